"""Draw each panel of the dashboards from what a real Prometheus answers, while classifiers are scaled from 1 to 3.

    python bench/panels.py [--seconds S] [--out docs/pictures] [--cloud]

A drawn live camera of 25 pictures/s goes through `derma up` with fake models (12 ms a picture, 30 ms a crop: one
classifier takes 16 pictures/s at most) and `derma observe` watches it, a scrape every second. After S seconds
`derma scale classifier=3`, then S seconds more. Then every query of every committed dashboard is asked for the whole
time, and drawn where Grafana would draw it. Needs Prometheus, and matplotlib (extra `bench`). With `--cloud` it is the
dashboard of the cloud: a classifier behind Redis as well, and Redis gone for the second of three times S.

The last line is JSON: what frames waited for the classifiers before and after, as Prometheus answered.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from runs import Run, fake_models, up, wait_for

from derma_common.messages import Command
from derma_common.topology import CONTROL
from derma_common.transport import request

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # their server has the shipped configuration
from support.redis_server import RedisServer

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

DASHBOARDS = Path(__file__).resolve().parents[1] / "deploy" / "grafana" / "dashboards"
CLOUD = "derma-cloud"
SOURCE = "skin=synthetic://?frames=0&fps=25&seed=1&width=640&height=480"
VARIABLES = {"$__rate_interval": "10s", "$camera": ".*"}
# Grafana's unit → (from this peak on, factor, what is written), the largest first
UNITS = {
    "s": ((10, 1, "s"), (0, 1000, "ms")), "bytes": ((1e9, 1e-9, "GB"), (0, 1e-6, "MB")),
    "percentunit": ((0, 100, "%"),), "cps": ((0, 1, "1/s"),),
    "celsius": ((0, 1, "°C"),), "watt": ((0, 1, "W"),), "none": ((0, 1, ""),),
}  # fmt: skip
COLOURS = {"red": "#c4162a", "orange": "#ff9830", "green": "#56a64b"}
WAIT_S = (
    'histogram_quantile({q}, sum by (le) (increase(derma_stage_wait_seconds_bucket{{stage="classifier"}}[{window}s])))'
)


@dataclass(frozen=True)
class Recorded:
    """A Prometheus that has watched a run, and when the run was scaled; times are Prometheus' own."""

    url: str
    started: float
    scaled: float
    ended: float

    def ask(self, path: str, **parameters: object) -> list[dict[str, Any]]:
        """Ask Prometheus' API."""
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{query}", timeout=30) as answer:
            return list(json.load(answer)["data"]["result"])

    def lines(self, expression: str) -> list[tuple[dict[str, str], np.ndarray, np.ndarray]]:
        """Return labels, seconds since the start, values of every series over the whole time."""
        found = self.ask("query_range", query=expression, start=self.started, end=self.ended, step=1)
        rows = [(s["metric"], np.asarray([[float(t), float(v)] for t, v in s["values"]])) for s in found]
        return [(labels, row[:, 0] - self.started, row[:, 1]) for labels, row in rows]


def now(url: str) -> float:
    """Return Prometheus' own time."""
    with urllib.request.urlopen(f"{url}/api/v1/query?query=time()", timeout=10) as answer:
        return float(json.load(answer)["data"]["result"][0])


@contextmanager
def observe(run: Run) -> Iterator[str]:
    """Start `derma observe` on a free port with a scrape every second."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "derma_cli", "observe", "--json", "--interval", "1", "--port", str(port),
        "--data-dir", str(run.settings.data_dir),
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield str(json.loads(process.stdout.readline())["prometheus"])
        finally:
            process.send_signal(signal.SIGINT)


@contextmanager
def recorded(seconds: float) -> Iterator[Recorded]:
    """Run, scale in the middle, and give what Prometheus saw."""
    with tempfile.TemporaryDirectory(prefix="derma-bench-") as name:
        models = fake_models(Path(name), detector_ms=12, classifier_ms=30)
        # room for one crop each: a fake batch costs the same as one crop, a real one does not
        flags = ("--classifiers", "1", "--set", "classifier.room=1", *models)
        with up(Path(name), SOURCE, *flags) as run:
            wait_for(run.all_ready, "the services to be ready")
            with observe(run) as url:
                time.sleep(12)  # the first scrapes, and rates that can be computed
                started = now(url)
                time.sleep(seconds)
                scaled = now(url)
                request(run.run_dir, CONTROL, Command("scale", "classifier=3"))
                time.sleep(seconds)
                yield Recorded(url, started, scaled, now(url))
            run.finish(ask=True)


@contextmanager
def cut_off(seconds: float) -> Iterator[Recorded]:
    """Run with a cloud and a classifier behind it, take Redis away in the middle, and give what Prometheus saw."""
    with tempfile.TemporaryDirectory(prefix="derma-bench-") as name, RedisServer(Path(name) / "redis") as server:
        detector, classifier = fake_models(Path(name), detector_ms=12, classifier_ms=30)[1::2]
        worker = subprocess.Popen(
            [sys.executable, "-m", "derma_classifier.remote", "--model", classifier],
            env=os.environ | server.settings(""), stderr=subprocess.DEVNULL,
        )  # fmt: skip
        settings = {
            "classifier.room": 1, "cloud.redis": server.access().address, "cloud.pictures": "all",
            "cloud.timeout_s": 1.0,
        }  # fmt: skip
        flags = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
        models = ("--detector", detector, "--classifier", classifier, "--classifiers", "1", "--classify", "both")
        try:
            with up(Path(name), SOURCE, *models, *flags) as run:
                wait_for(run.all_ready, "the services to be ready")
                with observe(run) as url:
                    time.sleep(12)
                    started = now(url)
                    time.sleep(seconds)
                    cut = now(url)
                    server.stop()
                    time.sleep(seconds)
                    server.start()
                    time.sleep(seconds)
                    yield Recorded(url, started, cut, now(url))
                run.finish(ask=True)
        finally:
            worker.terminate()
            worker.wait(30)


def draw(board: dict[str, Any], seen: Recorded, path: Path) -> list[str]:
    """Draw a dashboard's panels on its grid; return the titles of panels without data."""
    height = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in board["panels"])
    figure = plt.figure(figsize=(17, height * 0.36), dpi=90, facecolor="white")
    empty = []
    for panel in board["panels"]:
        at = panel["gridPos"]
        x, y, w, h = at["x"] / 24, 1 - (at["y"] + at["h"]) / height, at["w"] / 24, at["h"] / height
        if panel["type"] == "row":
            figure.text(0.005, y + h / 4, panel["title"], fontsize=12, fontweight="bold", color="#333333")
            continue
        axes = figure.add_axes((x + 0.03, y + 1.3 / height, w - 0.045, h - 2.4 / height))
        axes.set_title(panel["title"], fontsize=9, loc="left")
        if not _panel(axes, panel, seen):
            empty.append(str(panel["title"]))
            axes.text(
                0.5, 0.5, "no data on this machine", ha="center", va="center", transform=axes.transAxes, color="#888888"
            )
            axes.set_xticks([])
            axes.set_yticks([])
    figure.savefig(path)
    plt.close(figure)
    return empty


def _panel(axes: Any, panel: dict[str, Any], seen: Recorded) -> bool:
    """Draw one panel; say whether there was anything."""
    found = [
        (_legend(target.get("legendFormat", ""), labels), times, values)
        for target in panel["targets"]
        for labels, times, values in seen.lines(_filled(target["expr"]))
    ]
    found = [line for line in found if np.isfinite(line[2]).any()]  # a quantile of nothing is no number
    if not found:
        return False
    peak = max(float(np.nanmax(values)) for _, _, values in found)
    units = UNITS[panel["fieldConfig"]["defaults"]["unit"]]
    factor, unit = next((factor, unit) for least, factor, unit in units if peak >= least)
    match panel["type"]:
        case "stat":
            axes.axis("off")
            axes.text(0.5, 0.45, f"{found[0][2][-1] * factor:.3g} {unit}", ha="center", va="center", fontsize=17)
        case "heatmap":
            _heatmap(axes, found)
        case "table":
            axes.axis("off")
            axes.text(0, 1, "\n".join(_model(t, seen) for t in panel["targets"]), fontsize=6.5, va="top")
        case _:
            _lines(axes, panel, found, factor, unit)
    if panel["type"] in ("timeseries", "heatmap"):
        axes.axvline(seen.scaled - seen.started, color="#444444", linewidth=0.8, linestyle=":")
        axes.tick_params(labelsize=7)
    return True


def _lines(axes: Any, panel: dict[str, Any], found: list[Any], factor: float, unit: str) -> None:
    if panel["fieldConfig"]["defaults"]["custom"].get("stacking", {}).get("mode") == "normal":
        times = max((times for _, times, _ in found), key=len)
        rows = [np.interp(times, t, v * factor) for _, t, v in found]
        axes.stackplot(times, rows, labels=[name for name, _, _ in found], alpha=0.8)
    else:
        for name, times, values in found:
            axes.plot(times, values * factor, label=name, linewidth=1.1)
    top = axes.get_ylim()[1]
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"][1:]:
        if step["value"] * factor <= 2 * top:
            axes.axhline(step["value"] * factor, color=COLOURS[step["color"]], linewidth=0.8, linestyle="--")
    axes.set_ylim(0, top * (1.25 + 0.06 * min(8, len(found))))  # room for the legend
    axes.set_ylabel(unit, fontsize=7)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.legend(fontsize=6, loc="upper right", ncol=2 if len(found) > 5 else 1, framealpha=0.7)


def _heatmap(axes: Any, found: list[Any]) -> None:
    by_edge = sorted(((float(name), times, values) for name, times, values in found), key=lambda item: item[0])
    times = by_edge[0][1]
    table = np.diff(np.stack([np.interp(times, t, v) for _, t, v in by_edge]), axis=0, prepend=0.0)
    axes.pcolormesh(times, np.arange(len(by_edge)), np.clip(table, 0, None), cmap="Oranges", shading="nearest")
    axes.set_yticks(range(len(by_edge)), [f"{edge * 1000:g} ms" for edge, _, _ in by_edge])


def _filled(expression: str) -> str:
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    return expression


def _legend(template: str, labels: dict[str, str]) -> str:
    for label, value in labels.items():
        template = template.replace(f"{{{{{label}}}}}", value)
    return template or labels.get("name", "")


def _model(target: dict[str, Any], seen: Recorded) -> str:
    rows = [s["metric"] for s in seen.ask("query", query=target["expr"], time=seen.ended)]
    return "\n".join(f"{r['instance']:<14} {r['name']:<12} {r['runner']:<6} {r['sha256'][:20]}…" for r in rows)


def waits_ms(seen: Recorded) -> dict[str, dict[str, float]]:
    """Return p50 and p99 of the wait for a classifier in the quiet part of each half."""
    window = round(min(seen.scaled - seen.started, seen.ended - seen.scaled)) - 10
    found = {}
    for name, at in (("1 classifier", seen.scaled), ("3 classifiers", seen.ended)):
        values = {q: seen.ask("query", query=WAIT_S.format(q=q, window=window), time=at) for q in (0.5, 0.99)}
        found[name] = {f"p{q * 100:g}": round(1000 * float(v[0]["value"][1]), 1) for q, v in values.items()}
    return found


def main() -> int:
    """Record, draw, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=75.0, help="of each half")
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    parser.add_argument("--cloud", action="store_true", help="the dashboard of the cloud instead, with Redis cut off")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    boards = [file for file in sorted(DASHBOARDS.glob("*.json")) if (file.stem == CLOUD) == arguments.cloud]
    with (cut_off if arguments.cloud else recorded)(arguments.seconds) as seen:
        empty = {}
        for file in boards:
            path = arguments.out / f"{file.stem}.png"
            empty[file.stem] = draw(json.loads(file.read_text()), seen, path)
            print(f"{path}", file=sys.stderr)
        print(json.dumps({"wait_for_classifiers_ms": waits_ms(seen), "without_data": empty}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

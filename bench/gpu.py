"""Networks and the pipeline on whatever runner this machine offers, beside published figures and the device's limits.

    python bench/gpu.py [--only NAME …] [--batch N …] [--seconds S] [--out FOLDER]      (make bench-gpu)

network   YOLOv4 at 416 and 608 px, YOLOv4-tiny, EfficientNet-B0 and -B4 with random weights; fp32, fp16, int8; batch 1,
          4, 8; `p50` is a call with tensors in and out of the host's memory, `device` the network alone; with
          TensorRT once with CUDA graphs and once without.
limits    a copy each way of 64 MiB, and eight products of a 1024² with a 1024 × 4096 matrix, through the same runner.
pair      detector and classifier of the settings, each in a process of its own: alone, side by side, and so under MPS.
pipeline  the sample recording as fast as it goes, and a live drawn source of 1080p at 30 fps: latency of whole frames.

What this machine does not offer is named, in the table and in the file `FOLDER/<device>-<date>.json`. Needs the extra
`train` and the package onnx.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gpu_limits import copy_rates, matrix_rates
from gpu_networks import RANDOM, random_network
from gpu_pair import pair
from gpu_variants import Measured, measure
from runs import up

from derma_common.inference.choice import usable
from derma_common.inference.probe import probe
from derma_common.shipped import shipped

RESULTS = Path(__file__).parent / "results"
LIVE = "synthetic://?frames=300&fps=30&width=1920&height=1080"
# pictures/s at batch 1: tkDNN's own table for an RTX 2080 Ti (github.com/ceccocats/tkDNN), the chip family of the Clara
# AGX' RTX 6000; and Holoscan's endoscopy example on an RTX A6000 without a display (NVIDIA's Holoscan documentation)
PUBLISHED = {
    ("yolov4-416", "fp16"): 169,
    ("yolov4-416", "int8"): 207,
    ("yolov4-608", "fp16"): 111,
    ("yolov4-608", "int8"): 128,
}
PUBLISHED_PIPELINE = "Holoscan, endoscopy, RTX A6000, headless: p99 2.4 ms"


def device() -> tuple[str, str]:
    """Return what is measured: its name, and the same for a file's name."""
    gpus = probe().gpus
    cores = len(os.sched_getaffinity(0))
    name = gpus[0].name if gpus else f"CPU {_cpu()}, {cores} core{'s' if cores > 1 else ''}"
    return name, re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    names = re.findall(r"^model name\s*: (.*)$", info.read_text(), re.MULTILINE) if info.exists() else []
    return names[0] if names else platform.machine()


def pipeline(folder: Path) -> dict[str, Any]:
    """Examine the sample recording and a live source with the settings' networks; return rates and latencies."""
    found = {}
    for name, source in (("sample", str(shipped("samples") / "drawn-exam.mp4")), ("live 1080p at 30 fps", LIVE)):
        place = folder / name.replace(" ", "-")
        place.mkdir()
        with up(place, source, *(["--live"] if source == LIVE else [])) as run:
            summary = run.finish(ask=False)
        found[name] = {key: summary[key] for key in ("captured", "delivered", "dropped", "fps")}
        found[name] |= {"end_to_end_ms": summary["latency_ms"]["end_to_end"]}
    return found


def show(report: dict[str, Any]) -> None:
    """Print the tables."""
    print(f"{report['device']}, load {report['load']}; runners: {', '.join(report['runners'])}")
    print(f"{'network':<22}{'runner':<30}{'':<6}{'batch':>6}{'graph':>7}{'p50 ms':>9}{'p99 ms':>9}{'device ms':>11}"
          f"{'pictures/s':>12}{'published':>11}")  # fmt: skip
    for row in report["networks"]:
        known = PUBLISHED.get((row["network"], row["precision"]), "") if row["batch"] == 1 else ""
        alone = "" if row["device_ms"] is None else f"{row['device_ms']:.2f}"
        graph = {True: "yes", False: "no", None: ""}[row["graphs"]]
        print(f"{row['network']:<22}{row['runner']:<30}{row['precision']:<6}{row['batch']:>6}{graph:>7}{row['p50_ms']:>9.2f}"
              f"{row['p99_ms']:>9.2f}{alone:>11}{row['pictures_per_s']:>12.1f}{known:>11}")  # fmt: skip
    for name, value in report["limits"].items():
        print(f"limit: {name} {value}")
    for name, kinds in report["pair"].items():
        each = ", ".join(f"{kind} p50 {row['p50_ms']:.2f} p99 {row['p99_ms']:.2f} ms" for kind, row in kinds.items())
        print(f"{name}: {each}")
    for name, row in report["pipeline"].items():
        ms = ", ".join(f"{quantile} {value:.1f}" for quantile, value in row["end_to_end_ms"].items())
        dropped = sum(row["dropped"].values())
        print(f"pipeline, {name}: {row['fps']:.1f} frames/s, {dropped} of {row['captured']} dropped, ms {ms}")
    print(f"published: pictures/s above are tkDNN's, RTX 2080 Ti; {PUBLISHED_PIPELINE}")
    for name, reason in report["not_available"].items():
        print(f"not available, {name}: {reason}")


def main() -> None:
    """Measure, print, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=RANDOM, default=list(RANDOM), metavar="NAME")
    parser.add_argument("--batch", nargs="*", type=int, choices=range(1, 9), default=[1, 4, 8], metavar="N")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each row")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the JSON file")
    arguments = parser.parse_args()
    reasons = usable(probe(), 0)
    lacking = {name: reason for name, reason in reasons.items() if reason}
    runners = [name for name, reason in reasons.items() if not reason]
    rows: list[Measured] = []
    name, slug = device()
    now = datetime.now(UTC)
    load = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory(prefix="derma-bench-") as place:
        folder = Path(place)
        for network in arguments.only:
            print(network, file=sys.stderr)
            directory = random_network(network, folder)
            for runner in runners:
                measured, missing = measure(directory, runner, arguments.batch, arguments.seconds)
                rows += measured
                lacking |= missing
        report = {
            "device": name, "date": f"{now:%Y-%m-%d}", "driver": probe().driver, "load": load, "runners": runners,
            "seconds": arguments.seconds, "networks": [asdict(row) for row in rows],
            "limits": {**copy_rates(), **matrix_rates(folder, runners, arguments.seconds)},
            "pair": pair(arguments.seconds, folder, lacking), "pipeline": pipeline(folder), "not_available": lacking,
        }  # fmt: skip
    arguments.out.mkdir(exist_ok=True)
    file = arguments.out / f"{slug}-{now:%Y%m%d}.json"
    file.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    show(report)
    print(f"written: {file}", file=sys.stderr)


if __name__ == "__main__":
    main()

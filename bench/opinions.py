"""Second opinions on real lesions: how often they agree with the edge, when they come, and the exam's record of both.

    python bench/opinions.py PICTURES [--model M --model M …] [--json]

An exam of the folder PICTURES with the shipped models sends every lesion's picture through a redis-server of the
benchmark's own to `derma serve opinion`, an ensemble with eight views and rescaled priors. After the exam `derma outbox
drain` fetches what came later. Agreement is of the likeliest class, and of the likeliest class of the live view.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from runs import up

from derma_common.store import StoredFinding, StoreReader
from derma_common.taxonomy import find_view

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # their server has the shipped configuration
from support.redis_server import RedisServer

PATIENCE_S = 300.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--model", action="append", help="a member of the ensemble (the shipped classifiers)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    models = arguments.model or ["efficientnet-b0-skin", "mobilenetv2-skin"]
    with tempfile.TemporaryDirectory(prefix="derma-bench-") as name, RedisServer(Path(name) / "redis") as server:
        figures = measure(Path(name), server, arguments.pictures, models)
    if arguments.json:
        print(json.dumps(figures))
        return
    for what, value in figures.items():
        print(f"{what:<44}  {value}")


def measure(directory: Path, server: RedisServer, pictures: Path, models: list[str]) -> dict[str, Any]:
    """Examine, wait for the last opinion, compare."""
    environment = os.environ | server.settings("") | {"DERMA_CLOUD_SITE": "bench"}
    members = [word for model in models for word in ("--model", model)]
    log = (directory / "worker.log").open("wb")
    worker = subprocess.Popen(
        [sys.executable, "-m", "derma_cli", "serve", "opinion", *members], env=environment, stdout=log, stderr=log
    )
    cloud = {"redis": server.access().address, "site": "bench", "pictures": "all", "picture_every_s": "0"}
    flags = [word for key, value in cloud.items() for word in ("--set", f"cloud.{key}={value}")]
    try:
        with up(directory, str(pictures), *flags) as run:
            summary = run.finish(ask=False)
            database = run.settings.database
        findings = wait(directory / "data", database, summary["run"], environment)
    finally:
        worker.terminate()
        worker.wait(30)
        log.close()
    return compare(summary, findings, database)


def wait(data_dir: Path, database: Path, run: str, environment: dict[str, str]) -> list[StoredFinding]:
    """Return the findings when each has its opinion. Raises TimeoutError."""
    deadline = time.monotonic() + PATIENCE_S
    command = [sys.executable, "-m", "derma_cli", "outbox", "drain", "--data-dir", str(data_dir)]
    while time.monotonic() < deadline:
        subprocess.run(command, env=environment, check=True, capture_output=True)
        with StoreReader(database) as store:
            findings = list(store.findings(run))
        if all(finding.second_opinions for finding in findings):
            return findings
        time.sleep(1.0)
    raise TimeoutError(f"not every lesion has its opinion after {PATIENCE_S:g} s")


def compare(summary: dict[str, Any], findings: list[StoredFinding], database: Path) -> dict[str, Any]:
    """Return the figures of one exam."""
    live = find_view("live")
    both = [(f.probabilities, f.second_opinions[0].probabilities) for f in findings if f.probabilities]

    def seen(probabilities: dict[str, float]) -> str:
        shares = live.of([list(probabilities.values())], list(probabilities))[0]
        return live.classes[int(np.argmax(shares))]

    same = [max(edge, key=edge.__getitem__) == max(other, key=other.__getitem__) for edge, other in both]
    views = [(seen(edge), seen(other)) for edge, other in both]
    with StoreReader(database) as store:
        times = store.opinion_times(summary["run"])
    waits_s = [(received_ns - captured_ns) / 1e9 for captured_ns, received_ns, _ in times]
    return {
        "lesions with both statements": len(both),
        "same likeliest class": round(statistics.mean(same), 3),
        "same likeliest live class": round(statistics.mean(edge == other for edge, other in views), 3),
        "edge benign, opinion suspicious": sum(e == "benign" and "suspicious" in o for e, o in views),
        "edge suspicious, opinion benign": sum("suspicious" in e and o == "benign" for e, o in views),
        "opinions for a lesion, most": max(len(f.second_opinions) for f in findings),
        "worker's time for one, ms, p50": round(statistics.median(ns / 1e6 for _, _, ns in times), 1),
        "captured to opinion stored, s, p50 / longest": f"{statistics.median(waits_s):.1f} / {max(waits_s):.1f}",
        "method": findings[0].second_opinions[0].method,
        "models": ", ".join(findings[0].second_opinions[0].models),
    }


if __name__ == "__main__":
    main()

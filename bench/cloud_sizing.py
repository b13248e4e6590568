"""Measure what docs/cloud-sizing.md reckons with: bytes of each kind of stream entry, and CPU time of a crop.

    python bench/cloud_sizing.py [--json]

Entries are made from the sample recording by the shipped models: its first frames, every lesion of them. The figures
are bytes per entry over all of them: packed, in Redis' memory, in its append-only file, in the archive. CPU time is
that of one thread. Needs redis-server and the extra `cloud`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import redis

from derma_cloud.ensemble import Ensemble
from derma_cloud.rows import SCHEMA, rows_of
from derma_common.cloud.entries import (
    CropJob,
    Entry,
    FrameFindings,
    JobResult,
    LesionPicture,
    Opinion,
    SentLesion,
    pack,
    picture_of,
)
from derma_common.inference.classification import Classifier
from derma_common.inference.detection import Detector
from derma_common.preprocess import Image, cut, square_around
from derma_common.shipped import model_dir, shipped

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.redis_server import RedisServer

FRAMES, PICTURE_PX, COPIES, REPEATS = 24, 224, 2000, 40
RUN = "20261121T131338-0a87"


def frames() -> Iterator[Image]:
    """Yield the first frames of the sample recording, (H, W, 3) uint8 BGR."""
    video = cv2.VideoCapture(str(shipped("samples") / "drawn-exam.mp4"))
    for _ in range(FRAMES):
        yield video.read()[1]
    video.release()


def entries() -> tuple[dict[str, list[bytes]], list[FrameFindings]]:
    """Return the packed entries of each kind, and the findings."""
    detector = Detector.open(model_dir("yolov4-tiny-mole"))
    classifier = Classifier.open(model_dir("efficientnet-b0-skin"))
    ensemble = Ensemble([classifier])
    found: dict[str, list[bytes]] = {}
    findings = []

    def add(kind: str, entry: Entry) -> None:
        found.setdefault(kind, []).append(pack(entry))

    side, name = classifier.card.input.width, classifier.card.id
    for seq, image in enumerate(frames()):
        seen = detector.detect(image)
        boxes, scores = seen.boxes, seen.scores
        squares = [square_around(box, classifier.card.crop_margin) for box in boxes]
        rows = classifier.classify([cut(image, square, side) for square in squares])
        lesions = []
        for number, (square, row) in enumerate(zip(squares, rows, strict=True)):
            said = {label: round(float(p), 6) for label, p in zip(classifier.card.classes, row, strict=True)}
            box = tuple(float(v) for v in boxes[number])
            lesions.append(SentLesion(number, box, float(scores[number]), said, name))  # type: ignore[arg-type]
            crop, picture = cut(image, square, side), cut(image, square, PICTURE_PX)
            job = f"{seq:016x}-{number}"
            add(f"crop job, raw {side} px", CropJob("room1", job, name, 2_000_000_000, picture_of(crop, "raw")))
            add("job result", JobResult(
                "room1", job, tuple(float(p) for p in row), classifier.card.classes, name, "host:1:abcdef", 1, 1,
            ))  # fmt: skip
            add(f"lesion picture, png {PICTURE_PX} px", LesionPicture(
                "room1", RUN, "cam0", seq, number, time.time_ns(), 0, name, said, picture_of(picture, "png"),
            ))  # fmt: skip
            add("opinion", Opinion(
                "room1", RUN, "cam0", seq, number, said, ensemble.models, ensemble.method, "host:1:abcdef",
                time.time_ns(), 1,
            ))  # fmt: skip
        height, width = image.shape[:2]
        findings.append(FrameFindings(
            "room1", RUN, "cam0", seq, time.time_ns(), width, height, "delivered", "", detector.card.id, "0.1.0", 0,
            tuple(lesions),
        ))  # fmt: skip
        add("findings of a frame", findings[-1])
    return found, findings


def in_redis(server: RedisServer, packed: list[bytes]) -> tuple[float, float]:
    """Return bytes per entry in memory and in the append-only file."""
    with server.client() as client:
        client.flushall()
        before = _written(client)
        copies = max(1, COPIES // len(packed))
        for _ in range(copies):
            for data in packed:
                client.xadd("derma:sizes", {b"e": data})
        count = copies * len(packed)
        return client.memory_usage("derma:sizes", samples=0) / count, (_written(client) - before) / count


def _written(client: redis.Redis) -> int:
    """Return the size of the append-only file once all is in it."""
    while client.info("persistence")["aof_buffer_length"]:
        time.sleep(0.05)
    return int(client.info("persistence")["aof_current_size"])


def cpu_ms() -> tuple[float, float]:
    """Return the CPU time of a crop and of an opinion by the shipped classifier alone."""
    model = model_dir("efficientnet-b0-skin")
    classifier, ensemble = Classifier.open(model), Ensemble.open([model], 1)
    crop = cut(next(frames()), (0, 0, PICTURE_PX, PICTURE_PX), PICTURE_PX)
    return _ms(lambda: classifier.classify([crop])), _ms(lambda: ensemble.probabilities(crop))


def _ms(call: Callable[[], object]) -> float:
    call()
    started_ns = time.process_time_ns()
    for _ in range(REPEATS):
        call()
    return (time.process_time_ns() - started_ns) / REPEATS / 1e6


def in_archive(findings: list[FrameFindings], path: Path) -> float:
    """Return bytes per finding of an hour at 20 frames/s; every number differs, or compression would see the copies."""
    rng, table = np.random.default_rng(0), []
    for seq in range(72_000):
        frame = findings[seq % len(findings)]
        for row in rows_of(frame, f"1795251600000-{seq}"):
            shaken = {key: row[key] * rng.uniform(0.9, 1.1) for key in ("x1", "y1", "x2", "y2", "score")}
            said = [(name, round(p * rng.uniform(0.9, 1.1), 6)) for name, p in row["probabilities"]]
            table.append(row | shaken | {"seq": seq, "time_utc": row["time_utc"] + 50_000 * seq, "probabilities": said})
    pq.write_table(pa.Table.from_pylist(table, schema=SCHEMA), path, compression="zstd")
    return path.stat().st_size / len(table)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    found, findings = entries()
    with tempfile.TemporaryDirectory(prefix="dz") as name:
        rows = []
        options = ["--auto-aof-rewrite-percentage", "0", "--appendfsync", "everysec"]
        with RedisServer(Path(name) / "redis", options=options) as server:
            for kind, packed in found.items():
                memory, file = in_redis(server, packed)
                size = sum(map(len, packed)) / len(packed)
                rows.append({"entry": kind, "packed": round(size), "memory": round(memory), "aof": round(file)})
        archived = in_archive(findings, Path(name) / "f.parquet")
    lesions = sum(len(frame.lesions) for frame in findings) / len(findings)
    figures: dict[str, Any] = {
        "frames": len(findings), "lesions_per_frame": round(lesions, 2), "entries": rows,
        "archive_bytes_per_finding": round(archived, 1),
    }  # fmt: skip
    figures["crop_cpu_ms"], figures["opinion_cpu_ms"] = (round(ms, 1) for ms in cpu_ms())
    if arguments.json:
        print(json.dumps(figures))
        return
    print(f"{figures['frames']} frames, {figures['lesions_per_frame']} lesions in each")
    print(f"{'bytes per entry':<32}{'packed':>9}{'memory':>9}{'AOF':>9}")
    for row in rows:
        print("{entry:<32}{packed:>9}{memory:>9}{aof:>9}".format(**row))
    print("a finding in the archive: {archive_bytes_per_finding} bytes".format(**figures))
    print(
        "CPU time of a crop: {crop_cpu_ms} ms, of an opinion (8 views, 1 model): {opinion_cpu_ms} ms".format(**figures)
    )


if __name__ == "__main__":
    main()

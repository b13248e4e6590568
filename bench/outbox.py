"""A day without the line: findings pile up in the outbox, then drain into a real Redis.

    python bench/outbox.py [--findings N] [--json]

Frames with one finding each are committed by the sink's own store, a tenth of them suspicious and a fifth doubtful,
the suspicious ones with a picture; pictures may take a quarter of what they would. Then the forwarder drains the outbox
into a redis-server of the benchmark's own on a UNIX socket, with an append-only file. Shown: how fast it fills and
drains, how large the database is, the resident memory while it drains, and that each stream is complete, single and in
order. The floor is as many entries of the same sizes sent to the same server in the same batches, with nothing read and
nothing noted: what no forwarder could beat.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from derma_common.cloud.entries import FrameFindings, pack, picture_of, unpack
from derma_common.cloud.streams import Access, Line, findings_key, pictures_key
from derma_common.inference.card import read_card
from derma_common.inference.fake import fake_classifier, fake_detector
from derma_common.messages import Detections, Frame, Handle
from derma_common.outbox import FINDINGS, PICTURE, Outbox
from derma_common.settings import CloudSettings, RunSettings, Settings
from derma_forwarder.forwarder import BATCH
from derma_forwarder.wiring import open_forwarder
from derma_sink.join import Join
from derma_sink.outbox import OutboxRoom
from derma_sink.outcome import delivered
from derma_sink.outgoing import OutgoingRow
from derma_sink.store import StoreWriter

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))  # their server has the shipped configuration
from support.redis_server import RedisServer

SITE, PICTURE_PX, PER_COMMIT = "bench", 96, 50


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--findings", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="derma-bench-") as name, RedisServer(Path(name) / "redis") as server:
        figures = measure(Path(name), server.access(), arguments.findings)
    if arguments.json:
        print(json.dumps(figures))
        return
    for what, value in figures.items():
        print(f"{what:<34}{value}")


def fill(directory: Path, findings: int) -> tuple[float, int]:
    """Commit so many frames with a finding each; return the seconds and the bytes of pictures offered."""
    picture = pack(picture_of(np.random.default_rng(0).integers(0, 255, (PICTURE_PX, PICTURE_PX, 3), np.uint8), "raw"))
    pictures = sum(priority(seq) == 0 for seq in range(findings))
    store = StoreWriter(directory / "derma.db", "run1", OutboxRoom(len(picture) * pictures // 4))
    card_d, card_c = read_card(fake_detector(directory / "d")), read_card(fake_classifier(directory / "c"))
    store.begin_run(time.time_ns(), "boot", "bench", [("cam0", "camera", True)], card_d, card_c)
    started = time.monotonic()
    for first in range(0, findings, PER_COMMIT):
        outcomes, rows = [], list[OutgoingRow]()
        for seq in range(first, min(first + PER_COMMIT, findings)):
            handle = Handle("cam0", 0, 0, 2, 1080, 1920)
            frame = Frame("cam0", seq, 0, 1, 2, handle, "", 1, 2, 3)
            join = Join(0)
            join.add(Detections(frame, ((1.0, 2.0, 31.0, 32.0),), (0.9,), card_d.id, 4, 5))
            outcomes.append(replace(delivered(join), reason=""))
            rows.append(OutgoingRow(FINDINGS, priority(seq), "cam0", seq, -1, None))
            if priority(seq) == 0:
                rows.append(OutgoingRow(PICTURE, 0, "cam0", seq, 0, picture))
        store.commit(outcomes, [], rows)
    store.close()
    return time.monotonic() - started, len(picture) * pictures


def priority(seq: int) -> int:
    """Return a frame's priority: of ten, one suspicious and two doubtful."""
    return {0: 0, 3: 1, 7: 1}.get(seq % 10, 2)


def resident_mb() -> float:
    """Return this process's resident memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def measure(directory: Path, access: Access, findings: int) -> dict[str, Any]:
    """Fill, drain, check."""
    fill_s, offered = fill(directory, findings)
    settings = Settings(run=RunSettings(data_dir=str(directory)), cloud=CloudSettings(redis=access.address, site=SITE))
    with ExitStack() as closing:
        forwarder, outbox = open_forwarder(settings, closing)
        totals = outbox.totals()
        size = sum(file.stat().st_size for file in directory.glob("derma.db*"))
        memory, order, started = [resident_mb()], list[int](), time.monotonic()
        while waiting := outbox.first(1):
            order.append(waiting[0].priority)
            forwarder.turn()
            memory.append(resident_mb())
        drain_s = time.monotonic() - started
        given_up = outbox.given_up()
    entries = totals[FINDINGS].rows + totals[PICTURE].rows
    line = Line(access)
    found = [
        unpack(d.data, FrameFindings).seq for p in range(3) for d in line.read({findings_key(SITE, p): "0-0"}, 10**6, 0)
    ]
    pictures = len(line.read({pictures_key(SITE, 0): "0-0"}, 10**6, 0))
    floor_s = floor(line, directory, totals[FINDINGS].rows, totals[PICTURE].rows)
    line.close()
    wanted = [seq for p in range(3) for seq in range(findings) if priority(seq) == p]
    return {
        "findings, frames": findings,
        "filled, frames/s": round(findings / fill_s),
        "database, MB": round(size / 1e6, 1),
        "pictures offered, MB": round(offered / 1e6, 1),
        "pictures waiting, MB (bound)": f"{totals[PICTURE].bytes / 1e6:.1f} ({offered / 4e6:.1f})",
        "pictures given up": given_up.get((PICTURE, "full"), 0),
        "entries drained": entries,
        "drained, entries/s": round(entries / drain_s),
        "of a bare pipeline's time": round(drain_s / floor_s, 1),
        "urgent first, always": order == sorted(order),
        "complete, single, in order": found == wanted and pictures == totals[PICTURE].rows,
        "memory while draining, MB": f"{memory[len(memory) // 10]:.0f} … {max(memory):.0f}",
        "left in the outbox": sum(t.rows for t in Outbox(directory / "derma.db").totals().values()),
    }


def floor(line: Line, directory: Path, findings: int, pictures: int) -> float:
    """Send as many bare entries of the same sizes in the same batches; return the seconds."""
    small = bytes(len(line.read({findings_key(SITE, 2): "0-0"}, 1, 0)[0].data))
    large = bytes(len(line.read({pictures_key(SITE, 0): "0-0"}, 1, 0)[0].data)) if pictures else b""
    started = time.monotonic()
    for count, data in ((findings, small), (pictures, large)):
        for first in range(0, count, BATCH):
            line.send([("floor", "*", data)] * min(BATCH, count - first))
    return time.monotonic() - started


if __name__ == "__main__":
    main()

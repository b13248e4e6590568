"""`train`: train from scratch, or go on where the checkpoint is."""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path

from derma_common.errors import SourceError
from derma_training.detector import scenes, sources
from derma_training.detector.data import Pools
from derma_training.detector.sources import Picture

HAM_PICTURES = 2500  # dermoscopy must not dominate: the camera sees whole limbs


def real_pools(data: Path) -> dict[str, list[Picture]]:
    """Read the train split of every real source."""
    pools = {}
    for name, source in sources.SOURCES.items():
        limit = HAM_PICTURES if name == "ham10000" else None
        pools[name] = list(itertools.islice(source(data, "train"), limit))
    return pools


def packed(work: Path) -> dict[str, list[Picture]]:
    """Open all packs of scenes in `work`."""
    pools: dict[str, list[Picture]] = {}
    for file in sorted((work / "packs").glob("scenes-*.npy")):
        for picture in scenes.read_pack(file):
            pools.setdefault(picture.source, []).append(picture)
    if not pools:
        raise SourceError(f"{work / 'packs'} holds no packs; make some with `pack` first")
    return pools


def main(arguments: list[str]) -> None:
    """Train, or go on."""
    parser = argparse.ArgumentParser(prog="derma train detector", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--size", type=int, default=416)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(arguments)
    import torch

    from derma_training.detector import train as training

    torch.set_num_threads(args.threads)
    settings = training.TrainSettings(minutes=args.minutes, size=args.size, seed=args.seed)
    real = real_pools(args.data)

    def pools() -> Pools:
        return {**real, **packed(args.work)}

    if (args.work / training.CHECKPOINT).exists():
        run = training.resume(args.work, settings)
    else:
        run = training.start(training.choose_anchors(pools(), args.size, args.seed), settings)
    counts = {name: len(pool) for name, pool in pools().items()}
    print(json.dumps({"pictures": counts, "anchors": run.anchors, "step": run.step}), flush=True)
    training.train(run, pools, settings, args.work)

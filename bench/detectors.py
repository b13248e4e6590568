"""Time detectors on the CPU: ONNX Runtime on each model given, and cv2.dnn on the same weights, in one run.

    python bench/detectors.py [MODEL …] [--json] [--rounds N] [--threads N]

MODEL is a shipped name or a folder; without any, all shipped detectors. In each round the cases take turns in random
order on one drawn picture, so that what disturbs one disturbs all; times are medians of the rounds.

network  the tensor in, boxes and scores out, of the whole network with its decode. `wall` is what passes, `cpu` what
         all threads of the process spend: on a busy machine only the latter means something.
frame    a 1080p picture in, boxes out: letterbox, network, threshold, suppression, as the detector process does it.
tiled    the same of a live camera with `tile_px = "auto"`: the whole picture and the default number of tiles, in turn.
cv2.dnn  the network in OpenCV's Darknet reader, on the same weights (fp32), which derma writes as .cfg and .weights.
         Needs the extra `train`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from derma_common.drawn.camera import SyntheticCamera
from derma_common.errors import ModelError
from derma_common.inference.card import ModelCard, read_card
from derma_common.inference.detection import Detector
from derma_common.inference.opening import open_runner
from derma_common.inference.tiling import Rotation, detect_tiled
from derma_common.preprocess import Image, letterbox, to_tensor
from derma_common.settings import DetectorSettings
from derma_common.shipped import model_dir, shipped_models
from derma_training.detector.darknet_weights import save_weights
from derma_training.detector.layers import Darknet
from derma_training.detector.onnx_weights import network_of

PICTURES = 12
WARM_UP = 3
SAME = 1e-3  # cv2.dnn and ONNX Runtime must give the same scores, or another network is timed
Array = np.ndarray[Any, np.dtype[np.float32]]
Case = tuple[str, str]  # model, what is timed


def opencv_network(net: Darknet, threads: int) -> Callable[[Array], list[Array]]:
    """Return a function that runs the network with cv2.dnn: image (1, 3, H, W) in, decoded heads out."""
    cv2.setNumThreads(threads)
    with tempfile.TemporaryDirectory(prefix="derma-bench-") as name:
        cfg, weights = Path(name) / "net.cfg", Path(name) / "net.weights"
        cfg.write_text(net.config.text.replace("[yolo]", "[yolo]\nthresh=0"), encoding="utf-8")
        save_weights(net, weights)
        read = cv2.dnn.readNetFromDarknet(str(cfg), str(weights))
    outputs = read.getUnconnectedOutLayersNames()

    def run(image: Array) -> list[Array]:
        read.setInput(image)
        return [np.asarray(out, np.float32) for out in read.forward(outputs)]

    return run


def cases_of(directory: Path, threads: int) -> dict[Case, Callable[[Array, Any], object]]:
    """Return what is timed of a model: functions of the input tensor and the 1080p picture."""
    card, runner = open_runner(directory, "detector", threads)
    detector = Detector(card, runner)
    rotation = Rotation(card.input, "auto", DetectorSettings().live_tiles)
    cases: dict[Case, Callable[[Array, Any], object]] = {
        (card.name, "network"): lambda tensor, picture: runner.infer({card.input.name: tensor}),
        (card.name, "frame"): lambda tensor, picture: detector.detect(picture),
        (card.name, "tiled"): lambda tensor, picture: detect_tiled(
            detector, picture, rotation.turn(picture.shape[1], picture.shape[0])
        ),
    }
    if "quantised_from" not in card.figures:
        run = opencv_network(network_of(directory), threads)
        grey = np.full((1, 3, card.input.height, card.input.width), 0.4, np.float32)
        own = np.sort(runner.infer({card.input.name: grey})["scores"].ravel())
        theirs = np.sort(np.concatenate([rows[:, 5:].ravel() for rows in run(grey)]))
        if np.abs(own - theirs).max() > SAME:
            raise ModelError(f"{card.name}: cv2.dnn gives other scores, by up to {np.abs(own - theirs).max():.1e}")
        cases[card.name, "network, cv2.dnn"] = lambda tensor, picture: run(tensor)
    return cases


def measure(directories: list[Path], rounds: int, threads: int) -> dict[str, Any]:
    """Time all cases of all models in turns; ratios are of CPU time, to the first row."""
    cards = {card.name: card for card in map(read_card, directories)}
    cases = {case: run for directory in directories for case, run in cases_of(directory, threads).items()}
    camera = SyntheticCamera(7, PICTURES, 1920, 1080, lesions=8)
    pictures = [camera.image(n) for n in range(PICTURES)]
    tensors = {name: [tensor_of(card, picture) for picture in pictures] for name, card in cards.items()}
    wall_ms, cpu_ms = defaultdict[Case, list[float]](list), defaultdict[Case, list[float]](list)
    order = list(cases)
    for number in range(WARM_UP + rounds):
        random.shuffle(order)
        for case in order:
            tensor, picture = tensors[case[0]][number % PICTURES], pictures[number % PICTURES]
            wall_ns, cpu_ns = time.monotonic_ns(), time.process_time_ns()
            cases[case](tensor, picture)
            if number >= WARM_UP:
                cpu_ms[case].append((time.process_time_ns() - cpu_ns) / 1e6)
                wall_ms[case].append((time.monotonic_ns() - wall_ns) / 1e6)
    first = statistics.median(cpu_ms[next(iter(cases))])
    rows = [
        {
            "model": model, "input_px": [cards[model].input.width, cards[model].input.height], "timed": what,
            "wall_ms": round(statistics.median(wall_ms[model, what]), 2),
            "cpu_ms": round(statistics.median(cpu_ms[model, what]), 2),
            "of_the_first": round(statistics.median(cpu_ms[model, what]) / first, 3),
        }
        for model, what in cases
    ]  # fmt: skip
    load = round(os.getloadavg()[0], 1)
    return {"threads": threads, "rounds": rounds, "cores": len(os.sched_getaffinity(0)), "load": load, "rows": rows}


def tensor_of(card: ModelCard, picture: Image) -> Array:
    """Return a picture as the model's input (1, 3, H, W)."""
    fitted, _ = letterbox(picture, card.input.width, card.input.height)
    return to_tensor([fitted], card.input.mean, card.input.std)


def show(report: dict[str, Any]) -> None:
    """Print the table for a person."""
    print(f"{report['rounds']} rounds, {report['threads']} threads; {report['cores']} cores, load {report['load']}")
    print(f"{'model':<24}{'px':>9}  {'timed':<18}{'wall ms':>9}{'cpu ms':>9}{'of the first, cpu':>19}")
    for row in report["rows"]:
        size = "{}x{}".format(*row["input_px"])
        print(f"{row['model']:<24}{size:>9}  {row['timed']:<18}{row['wall_ms']:>9.1f}{row['cpu_ms']:>9.1f}"
              f"{row['of_the_first']:>19.2f}")  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    arguments = parser.parse_args()
    directories = [model_dir(name) for name in arguments.models]
    directories = directories or [place for place in shipped_models() if read_card(place).kind == "detector"]
    report = measure(directories, arguments.rounds, arguments.threads)
    if arguments.json:
        print(json.dumps(report))
    else:
        show(report)


if __name__ == "__main__":
    main()

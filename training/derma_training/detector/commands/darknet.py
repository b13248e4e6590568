"""`darknet`: a detector trained with Darknet becomes a model of derma, or the other way round.

darknet read NET.cfg NET.weights OUT --names NET.names    OUT becomes a model directory
darknet write MODEL OUT                                   OUT gets net.cfg, net.weights and net.names
"""

from __future__ import annotations

import argparse
from pathlib import Path

from derma_common.errors import ModelError, ResourceError
from derma_common.inference.card import read_card
from derma_common.shipped import model_dir

LICENCE = "that of the weights: ask who made them"


def main(arguments: list[str]) -> None:
    """Read or write Darknet's files."""
    parser = argparse.ArgumentParser(
        prog="python -m derma_training.detector darknet",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    read = verbs.add_parser("read")
    read.add_argument("cfg", type=Path)
    read.add_argument("weights", type=Path)
    read.add_argument("out", type=Path)
    read.add_argument("--names", type=Path, required=True, help="the classes, one a line")
    read.add_argument("--licence", default=LICENCE, help="of the weights, for the card")
    write = verbs.add_parser("write")
    write.add_argument("model", help="a shipped name or a folder, fp32")
    write.add_argument("out", type=Path)
    args = parser.parse_args(arguments)
    if args.verb == "read":
        _read(args.cfg, args.weights, args.names, args.out, args.licence)
    else:
        _write(model_dir(args.model), args.out)


def _read(cfg: Path, weights: Path, names: Path, out: Path, licence: str) -> None:
    from derma_training.detector.cfg_reader import read_cfg
    from derma_training.detector.darknet_weights import load_weights
    from derma_training.detector.export import draft_card, export
    from derma_training.detector.layers import Darknet

    try:
        classes = tuple(line.strip() for line in names.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{names} cannot be read: {error}") from error
    net = Darknet(read_cfg(cfg))
    load_weights(net, weights)
    _, height, width = net.config.input
    print(export(net, out, draft_card(out.resolve().name, net, width, height, classes, licence)).id)


def _write(model: Path, out: Path) -> None:
    from derma_training.detector.darknet_weights import save_weights
    from derma_training.detector.onnx_weights import network_of

    net = network_of(model)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "net.cfg").write_text(net.config.text, encoding="utf-8")
        (out / "net.names").write_text("\n".join(read_card(model).classes) + "\n", encoding="utf-8")
        save_weights(net, out / "net.weights")
    except OSError as error:
        raise ResourceError(f"{out} cannot be written: {error.strerror}") from error
    print(out)

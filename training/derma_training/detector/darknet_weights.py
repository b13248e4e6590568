"""Darknet's .weights files: read in full, and written back byte for byte.

Layout (Darknet's parser.c): int32 major, minor, revision; images seen, uint64 from version 0.2 on and uint32 before;
then for each convolutional layer its biases, with batch normalisation also scales, rolling means and rolling
variances, then its weights (filters, channels / groups, size, size); all float32, little endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from derma_common.errors import ModelError
from derma_training.detector.cfg import Config, stored_floats
from derma_training.detector.layers import ConvUnit, Darknet

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Header:
    """What a .weights file says of itself: the format's version, and how many pictures the network has seen."""

    major: int = 0
    minor: int = 2
    revision: int = 5
    seen: int = 0

    def packed(self) -> bytes:
        """Return the header as it stands in a file."""
        layout = "<3iQ" if _wide(self.major, self.minor) else "<3iI"
        return struct.pack(layout, self.major, self.minor, self.revision, self.seen)


def load_weights(net: Darknet, path: Path) -> Header:
    """Fill a network with a file that holds exactly its weights. Raises ModelError."""
    header, floats = read_file(path)
    wanted = sum(layer_floats(net.config))
    if len(floats) != wanted:
        raise ModelError(
            f"{path} holds {len(floats)} numbers, this network has {wanted}: "
            "the file is truncated or of another network"
        )
    fill(net.conv_units(), floats, path)
    return header


def save_weights(net: Darknet, path: Path, header: Header | None = None) -> None:
    """Write a network's weights, atomically."""
    draft = path.with_name(path.name + ".part")
    with draft.open("wb") as stream:
        stream.write((header or Header()).packed())
        for unit in net.conv_units():
            for tensor in _tensors(unit):
                stream.write(tensor.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
    draft.replace(path)


def _wide(major: int, minor: int) -> bool:
    return major * 10 + minor >= 2


def read_file(path: Path) -> tuple[Header, Floats]:
    """Return the header of a .weights file and the numbers (N,) after it. Raises ModelError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    if len(data) < 16:
        raise ModelError(f"{path} is too short for a Darknet .weights file: {len(data)} bytes")
    major, minor, revision = struct.unpack_from("<3i", data)
    start = 20 if _wide(major, minor) else 16
    if not (0 <= major < 1000 and 0 <= minor < 1000) or (len(data) - start) % 4 or len(data) < start:
        raise ModelError(
            f"{path} is no Darknet .weights file, or a truncated one: version {major}.{minor}, {len(data)} bytes"
        )
    (seen,) = struct.unpack_from("<Q" if start == 20 else "<I", data, 12)
    return Header(major, minor, revision, seen), np.frombuffer(data, "<f4", offset=start)


def layer_floats(config: Config) -> list[int]:
    """Return how many floats each convolutional layer has in a file."""
    counts = (stored_floats(layer, config.input_of(index)[0]) for index, layer in enumerate(config.layers))
    return [count for count in counts if count]


def _tensors(unit: ConvUnit) -> Sequence[Tensor]:
    if unit.conv.bias is not None:
        return [unit.conv.bias, unit.conv.weight]
    return [unit.norm.bias, unit.norm.weight, unit.norm.running_mean, unit.norm.running_var, unit.conv.weight]


@torch.no_grad()  # type: ignore[untyped-decorator]
def fill(units: Iterable[ConvUnit], floats: Floats, path: Path) -> None:
    """Fill layers from the numbers of a file, which must be finite and have no negative variance."""
    if not np.isfinite(floats).all():
        raise ModelError(f"{path} holds numbers that are not finite: it is damaged")
    place = 0
    for unit in units:
        for tensor in _tensors(unit):
            part = floats[place : place + tensor.numel()]
            if unit.conv.bias is None and tensor is unit.norm.running_var and part.min() < 0:
                raise ModelError(f"{path} has negative variances where this network's are: it is of another network")
            tensor.copy_(torch.from_numpy(part.copy()).view(tensor.shape))
            place += tensor.numel()

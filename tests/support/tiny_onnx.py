"""A real ONNX file of a few hundred bytes, written field by field: mean colour of a picture times a matrix.

Protocol buffers are tag-length-value, so this needs no onnx package. The logits of a picture are
`W @ (mean red, mean green, mean blue)` of its tensor.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FLOAT = 1
_VARINT, _BYTES = 0, 2


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | _BYTES) + _varint(len(data)) + data


def _node(operator: str, inputs: list[str], output: str) -> bytes:
    body = b"".join(_bytes(1, name) for name in inputs) + _bytes(2, output) + _bytes(4, operator)
    return _bytes(1, body)


def _tensor(name: str, values: npt.NDArray[np.float32]) -> bytes:
    dims = b"".join(_number(1, n) for n in values.shape)
    return _bytes(5, dims + _number(2, FLOAT) + _bytes(8, name) + _bytes(9, values.tobytes()))


def _value(field: int, name: str, shape: list[int | str]) -> bytes:
    dims = b"".join(_bytes(1, _number(1, n) if isinstance(n, int) else _bytes(2, n)) for n in shape)
    kind = _bytes(1, _number(1, FLOAT) + _bytes(2, dims))
    return _bytes(field, _bytes(1, name) + _bytes(2, kind))


def mean_colour_classifier(matrix: npt.NDArray[np.float32], size: int) -> bytes:
    """Return a network image (N, 3, size, size) → logits (N, C) for `matrix` (C, 3)."""
    graph = (
        _node("GlobalAveragePool", ["image"], "means")
        + _node("Flatten", ["means"], "colours")
        + _node("MatMul", ["colours", "matrix"], "logits")
        + _bytes(2, "mean-colour")
        + _tensor("matrix", np.ascontiguousarray(matrix.T, dtype=np.float32))
        + _value(11, "image", ["n", 3, size, size])
        + _value(12, "logits", ["n", len(matrix)])
    )
    return _number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, "") + _number(2, 17))

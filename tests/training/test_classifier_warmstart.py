"""Starting an EfficientNet-B0 from a MobileNetV2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
timm = pytest.importorskip("timm", reason="needs the train extra: pip install 'derma[train]'")

from derma_common.errors import ModelError  # noqa: E402
from derma_training.classifier.warmstart import read_source, source_stages, warm_start  # noqa: E402

pytestmark = pytest.mark.train

STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))


def drawn_source(path: Path) -> Path:
    """Write a MobileNetV2 with random layers in the order of the real one."""
    rng = np.random.default_rng(0)
    shapes = [(32, 3, 3, 3)]
    width = 32
    for expansion, outputs, depth in STAGES:
        for _ in range(depth):
            inner = width * expansion
            shapes += [(inner, width, 1, 1)] if expansion > 1 else []
            shapes += [(inner, 1, 3, 3), (outputs, inner, 1, 1)]
            width = outputs
    shapes.append((1280, width, 1, 1))
    arrays = {}
    for i, shape in enumerate(shapes):
        arrays[f"{i:02d}.weight"] = rng.normal(0, np.sqrt(2.0 / np.prod(shape[1:])), shape).astype(np.float16)
        arrays[f"{i:02d}.bias"] = rng.normal(0, 0.1, shape[0]).astype(np.float16)
    np.savez(path, **arrays)
    return path


def test_the_blocks_answer_as_the_sources_blocks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = drawn_source(tmp_path / "source.npz")
    model = timm.create_model("efficientnet_b0", num_classes=9)
    warm_start(model, source, torch.randn(24, 3, 64, 64))
    fresh = torch.randn(8, 3, 64, 64)
    with torch.no_grad():
        wanted = source_stages(read_source(source), fresh)[2][-1].output
        x = model.bn1(model.conv_stem(fresh))
        for stage in model.blocks[:3]:
            x = stage(x)
    correlation = np.corrcoef(x[:, : wanted.shape[1]].flatten().numpy(), wanted.flatten().numpy())[0, 1]
    assert correlation > 0.8


def test_a_file_that_is_no_such_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, weight=np.zeros(3))
    with pytest.raises(ModelError, match="is no folded MobileNetV2"):
        read_source(path)

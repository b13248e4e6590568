"""Starting an EfficientNet-B0 from a MobileNetV2."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
timm = pytest.importorskip("timm", reason="needs the train extra: pip install 'derma[train]'")

from support.mobilenet import drawn_mobilenet  # noqa: E402

from derma_training.classifier.mobilenet_v2 import read_folded  # noqa: E402
from derma_training.classifier.warmstart import source_stages, warm_start  # noqa: E402

pytestmark = pytest.mark.train


def test_the_blocks_answer_as_the_sources_blocks(tmp_path: Path) -> None:
    torch.manual_seed(0)
    source = drawn_mobilenet(tmp_path / "source.npz")
    model = timm.create_model("efficientnet_b0", num_classes=9)
    warm_start(model, source, torch.randn(24, 3, 64, 64))
    fresh = torch.randn(8, 3, 64, 64)
    with torch.no_grad():
        wanted = source_stages(read_folded(source), fresh)[2][-1].output
        x = model.bn1(model.conv_stem(fresh))
        for stage in model.blocks[:3]:
            x = stage(x)
    correlation = np.corrcoef(x[:, : wanted.shape[1]].flatten().numpy(), wanted.flatten().numpy())[0, 1]
    assert correlation > 0.8

"""MobileNetV2 without batch norm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")

from support.mobilenet import drawn_mobilenet  # noqa: E402

from derma_common.errors import ModelError  # noqa: E402
from derma_training.classifier.mobilenet_v2 import Convolution, MobileNetV2, load_folded, read_folded  # noqa: E402

pytestmark = pytest.mark.train

TORCHVISION_PARAMETERS = 3_504_872  # MobileNetV2 1.0 for ImageNet, its batch norms learning a scale and a shift
NORMALISED_CHANNELS = 17_056


def test_it_is_the_papers_network_with_one_bias_for_each_batch_norm() -> None:
    parameters = sum(parameter.numel() for parameter in MobileNetV2(classes=1000).parameters())
    assert parameters == TORCHVISION_PARAMETERS - NORMALISED_CHANNELS


@pytest.mark.parametrize(("length", "first"), [(8, 0), (9, -1), (1, -1)])
def test_an_odd_pixel_of_padding_goes_right_and_below_as_in_tensorflow(length: int, first: int) -> None:
    convolution = Convolution(1, 1, 3, stride=2, active=False)
    with torch.no_grad():
        convolution.weight.zero_()
        convolution.weight[0, 0, 1, 1] = 1.0  # picks the middle pixel of each window
        convolution.bias.zero_()
        y = convolution(torch.arange(length * length, dtype=torch.float32).reshape(1, 1, length, length))
    middles = [first + 1 + 2 * i for i in range((length + 1) // 2)]
    assert y[0, 0].tolist() == [[row * length + column for column in middles] for row in middles]


def test_a_folded_file_fills_every_convolution(tmp_path: Path) -> None:
    source = drawn_mobilenet(tmp_path / "source.npz")
    model = MobileNetV2(classes=3).eval()
    load_folded(model, source)
    convolutions = [module for module in model.modules() if isinstance(module, Convolution)]
    for convolution, (kernel, bias) in zip(convolutions, read_folded(source), strict=True):
        assert torch.equal(convolution.weight, kernel) and torch.equal(convolution.bias, bias)


def test_logits_and_features_belong_together() -> None:
    torch.manual_seed(0)
    model = MobileNetV2(classes=3).eval()
    images = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        maps = model.forward_features(images)
        features = model.forward_head(maps, pre_logits=True)
        assert maps.shape == (2, 1280, 2, 2) and features.shape == (2, 1280)
        torch.testing.assert_close(model(images), model.get_classifier()(features))


def test_a_file_that_is_no_such_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.npz"
    np.savez(path, weight=np.zeros(3))
    with pytest.raises(ModelError, match="is no folded MobileNetV2"):
        read_folded(path)


def test_a_network_of_another_width_is_refused(tmp_path: Path) -> None:
    with np.load(drawn_mobilenet(tmp_path / "source.npz")) as arrays:
        layers = dict(arrays)
    layers["03.weight"] = layers["03.weight"][:48]
    np.savez(tmp_path / "narrow.npz", **layers)
    with pytest.raises(ModelError, match="layer 3 has the kernel"):
        load_folded(MobileNetV2(classes=3), tmp_path / "narrow.npz")

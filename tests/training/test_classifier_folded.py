"""Networks without batch norm, and taking up an exported model again."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
timm = pytest.importorskip("timm", reason="needs the train extra: pip install 'derma[train]'")
pytest.importorskip("onnx", reason="needs the train extra: pip install 'derma[train]'")

from derma_common.errors import ModelError  # noqa: E402
from derma_training.classifier.folded import fold_norms, load_exported  # noqa: E402

pytestmark = pytest.mark.train


class Wrapped(torch.nn.Module):  # type: ignore[misc, name-defined]
    """As derma exports: the network is a part of another module."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body

    def forward(self, images: Any) -> Any:
        return self.body(images)


def used_network(classes: int = 4) -> Any:
    """Return an EfficientNet-B0 whose norms have seen pictures."""
    torch.manual_seed(0)
    model = timm.create_model("efficientnet_b0", num_classes=classes)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
    model.train()
    model(torch.randn(4, 3, 64, 64))
    return model.eval()


def exported(model: Any, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter deprecates itself
        torch.onnx.export(model.eval(), (torch.zeros(1, 3, 64, 64),), str(path), opset_version=17, dynamo=False)
    return path


def test_folding_keeps_the_function_and_leaves_no_norm() -> None:
    model, images = used_network(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = model(images)
        fold_norms(model)
        torch.testing.assert_close(model(images), wanted, atol=1e-5, rtol=1e-4)
    assert not [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]


@pytest.mark.parametrize("wrap", [Wrapped, lambda body: body])
def test_an_exported_network_is_taken_up_where_it_stood(tmp_path: Path, wrap: Any) -> None:
    model, images = used_network(), torch.randn(2, 3, 64, 64)
    path = exported(wrap(model), tmp_path / "model.onnx")
    torch.manual_seed(1)
    again = timm.create_model("efficientnet_b0", num_classes=4).eval()
    load_exported(again, path)
    with torch.no_grad():
        torch.testing.assert_close(again(images), model(images), atol=1e-5, rtol=1e-4)


def test_only_its_own_architecture_takes_an_export_up_and_may_have_other_classes(tmp_path: Path) -> None:
    path = exported(used_network(), tmp_path / "model.onnx")
    other = timm.create_model("efficientnet_b0", num_classes=7)
    before = other.classifier.weight.clone()
    load_exported(other, path)
    assert torch.equal(other.classifier.weight, before)
    with pytest.raises(ModelError, match="is of another network: its layer conv_stem"):
        load_exported(timm.create_model("efficientnet_b0", in_chans=1), path)
    for name in ("efficientnet_b1", "efficientnet_lite0"):  # deeper; without squeeze-excite
        with pytest.raises(ModelError, match="no export of this architecture"):
            load_exported(timm.create_model(name), path)


def test_what_is_no_onnx_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(ModelError, match="cannot be read as an ONNX file"):
        load_exported(used_network(), path)

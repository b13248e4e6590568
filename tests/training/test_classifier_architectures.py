"""Every architecture: that timm has it as the table says, that it builds, and where first weights may come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
timm = pytest.importorskip("timm", reason="needs the train extra: pip install 'derma[train]'")
pytest.importorskip("onnx", reason="needs the train extra: pip install 'derma[train]'")
safetensors = pytest.importorskip("safetensors.torch", reason="comes with timm")

from derma_common.errors import ConfigError, ModelError, ResourceError  # noqa: E402
from derma_training.classifier.architectures import (  # noqa: E402
    ARCHITECTURES,
    FOLDED_MOBILENET,
    HALF,
    IMAGENET_MEAN,
    normalisation,
)
from derma_training.classifier.export import PARITY, export_onnx, parity  # noqa: E402
from derma_training.classifier.network import Network, build  # noqa: E402
from derma_training.classifier.weights import HUB, is_folded, load_weights, read_state  # noqa: E402

pytestmark = pytest.mark.train

OF_TIMM = [name for name in ARCHITECTURES if name != FOLDED_MOBILENET]
TINY = "test_efficientnet"


def no_sample() -> Any:
    raise AssertionError("no pictures are needed")


@pytest.mark.parametrize("name", OF_TIMM)
def test_the_table_agrees_with_timm(name: str) -> None:
    known, ours = timm.get_pretrained_cfg(name), ARCHITECTURES[name]
    assert (known.input_size[1], known.mean, known.std) == (ours.size, ours.mean, ours.std)


FAMILIES = ("tf_efficientnet_b0", "legacy_seresnext101_32x4d", "inception_resnet_v2", "nasnetalarge", "inception_v3")


@pytest.mark.parametrize(
    ("name", "head"), [*((name, "linear") for name in ARCHITECTURES), *((name, "concat") for name in FAMILIES)]
)
def test_every_architecture_builds_in_three_layer_groups(name: str, head: str) -> None:
    with torch.device("meta"):  # shapes only: the largest has 89 million weights
        network = build(name, 5, head=head)
        features = network.features(torch.zeros(2, 3, 331, 331))
        logits = network.classify(features)
    groups = network.layer_groups()
    counted = [id(parameter) for group in groups for parameter in group]
    assert logits.shape == (2, 5) and features.shape[0] == 2
    assert all(groups) and len(counted) == len(set(counted)) == len(list(network.parameters()))


@pytest.mark.parametrize(("architecture", "head"), [("efficientnet_b0", "linear"), ("tf_efficientnet_b0", "concat")])
def test_b0_takes_a_step_and_is_exported_with_parity(architecture: str, head: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build(architecture, 9, head=head)
    images = torch.randn(4, 3, 64, 64)
    loss = torch.nn.functional.cross_entropy(network(images), torch.tensor([0, 1, 2, 3]))
    loss.backward()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter -= 0.01 * parameter.grad
    export_onnx(network, tmp_path / "model.onnx", 64)
    assert parity(network, tmp_path / "model.onnx", images.numpy()) <= PARITY


def test_an_architecture_that_timm_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match="timm knows no architecture 'efficientnet_b99'"):
        build("efficientnet_b99", 3)


def state_of(classes: int, seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    return dict(build(TINY, classes).body.state_dict())


@pytest.fixture(params=["safetensors", "pt", "wrapped.pth"])
def weights_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Weights for a thousand classes, as they are published."""
    path = tmp_path / f"weights.{request.param}"
    state = state_of(1000, seed=1)
    if path.suffix == ".safetensors":
        safetensors.save_file(state, path)
    else:
        torch.save({"state_dict": state} if "wrapped" in path.name else state, path)
    return path


@pytest.mark.parametrize("head", ["linear", "concat"])
def test_published_weights_start_all_but_the_last_layer(weights_file: Path, head: str) -> None:
    network = build(TINY, 4, head=head)
    last = {name: value.clone() for name, value in network.last_layer.state_dict().items()}
    load_weights(network, TINY, str(weights_file), no_sample)
    published, own = state_of(1000, seed=1), network.body.state_dict()
    assert all(torch.equal(own[name], value) for name, value in published.items() if "classifier" not in name)
    assert all(torch.equal(value, last[name]) for name, value in network.last_layer.state_dict().items())


def test_weights_with_the_same_classes_start_the_last_layer_too(tmp_path: Path) -> None:
    torch.save(state_of(4, seed=2), tmp_path / "w.pt")
    network = build(TINY, 4)
    load_weights(network, TINY, str(tmp_path / "w.pt"), no_sample)
    assert torch.equal(network.last_layer.weight, state_of(4, seed=2)["classifier.weight"])


def refusal(path: Path, architecture: str = TINY, error: type[Exception] = ModelError) -> str:
    with pytest.raises(error) as caught:
        load_weights(build(architecture, 4), architecture, str(path), no_sample)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Harmful:
    """What a pickle may do when it is read."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (print, ("executed",))


def test_a_pickle_is_never_executed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.pt"
    torch.save({"state_dict": Harmful()}, path)
    assert "holds no weights that can be read safely" in refusal(path)
    torch.save(torch.nn.Linear(2, 2), path)
    assert "give a .safetensors file, or a state dict" in refusal(path)
    assert "executed" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors", "w.npz"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"damaged")
    architecture = "efficientnet_b0" if name.endswith("npz") else TINY
    with pytest.raises(ModelError) as caught:
        load_weights(build(architecture, 4), architecture, str(tmp_path / name), lambda: torch.zeros(2, 3, 32, 32))
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    torch.save(dict(timm.create_model("test_vit", num_classes=4).state_dict()), tmp_path / "vit.pt")
    assert "is of another architecture: 0 of" in refusal(tmp_path / "vit.pt")
    torch.save({"conv_stem.weight": [1, 2]}, tmp_path / "list.pt")
    assert "is no state dict" in refusal(tmp_path / "list.pt")
    np.savez(tmp_path / "m.npz", weight=np.zeros(3))
    assert "starts an efficientnet_b0 or a mobilenetv2_folded" in refusal(tmp_path / "m.npz", error=ConfigError)
    assert "there is no file" in refusal(tmp_path / "none.pt", error=ConfigError)


def test_a_hub_that_cannot_be_reached_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*arguments: Any, **options: Any) -> Any:
        raise OSError("no route to host\nand more")

    network = build(TINY, 4)
    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(ResourceError, match="download them elsewhere and name the file") as caught:
        load_weights(network, TINY, HUB, no_sample)
    assert "\n" not in str(caught.value)


def test_a_state_dict_is_tensors_by_name(weights_file: Path) -> None:
    assert all(isinstance(value, torch.Tensor) for value in read_state(weights_file).values())


def test_inputs_are_normalised_as_the_first_weights_expect() -> None:
    assert normalisation("efficientnet_b0", "") == (HALF, HALF)
    assert normalisation("efficientnet_b0", "start.npz") == normalisation("efficientnet_b0", "m.onnx") == (HALF, HALF)
    assert normalisation("efficientnet_b0", "hub")[0] == IMAGENET_MEAN
    assert normalisation("inception_v3", "w.pt") == (HALF, HALF)
    assert is_folded("a/model.onnx") and not is_folded("w.pt") and not is_folded("")


def test_frozen_is_the_body_but_not_its_norms() -> None:
    network: Network = build(TINY, 3)
    network.freeze_body(True)
    learning = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert {"body.classifier.weight", "body.classifier.bias"} <= learning and any("bn" in name for name in learning)
    assert not any("conv" in name for name in learning)
    network.freeze_body(False)
    assert all(parameter.requires_grad for parameter in network.parameters())

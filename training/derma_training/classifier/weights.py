"""Where a network's first weights come from: a file of the user's, or the hub if asked. Nothing is ever unpickled."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError  # noqa: TID251  # what torch.load raises; nothing is unpickled here
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from derma_common.errors import ConfigError, ModelError, ResourceError
from derma_training.classifier.architectures import FOLDED_MOBILENET
from derma_training.classifier.folded import load_exported
from derma_training.classifier.mobilenet_v2 import MobileNetV2, load_folded
from derma_training.classifier.network import Network
from derma_training.classifier.warmstart import warm_start

HUB = "hub"


def load_weights(network: Network, architecture: str, source: str, sample: Callable[[], Any]) -> None:
    """Give a network the weights that `source` names; its last layer stays random where the classes differ.

    source: "hub" (timm's weights of the architecture), a state dict (.safetensors, .pt, .pth), a model.onnx that derma
    exported, or a folded MobileNetV2 (.npz). sample: a batch of images (N, 3, H, W), asked for by the last.
    Raises ModelError: damaged, or of another architecture.
    """
    if source == HUB:
        _load_state(network, _from_hub(architecture), f"the hub's {architecture}")
        return
    path = Path(source)
    if not path.is_file():
        raise ConfigError(f"--weights: there is no file {path} (a file, or {HUB!r} to download)")
    if path.suffix in (".npz", ".onnx") and not isinstance(network.last_layer, nn.Linear):
        raise ConfigError(f"{path} starts a network with a single last layer, which --recipe steppan does not have")
    if path.suffix == ".npz" and isinstance(network.body, MobileNetV2):
        load_folded(network.body, path)
    elif path.suffix == ".npz" and architecture == "efficientnet_b0":
        warm_start(network.body, path, sample())
    elif path.suffix == ".npz":
        raise ConfigError(f"{path} starts an efficientnet_b0 or a {FOLDED_MOBILENET}, not a {architecture}")
    elif is_folded(source):
        load_exported(network.body, path)
    else:
        _load_state(network, read_state(path), str(path))


def is_folded(source: str) -> bool:
    """Tell whether these weights have their batch norms folded away, as an exported file has."""
    return source.endswith(".onnx")


def read_state(path: Path) -> dict[str, Any]:
    """Read a state dict, tensors by name. Raises ModelError when the file is damaged or holds anything else."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError, SafetensorError) as error:
        raise ModelError(
            f"{path} holds no weights that can be read safely ({str(error).splitlines()[0][:120]}); "
            "give a .safetensors file, or a state dict saved by torch.save"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ModelError(f"{path} is no state dict: it holds something else than tensors by name")
    return state


def _from_hub(architecture: str) -> dict[str, Any]:
    try:
        return dict(timm.create_model(architecture, pretrained=True).state_dict())
    except (OSError, RuntimeError, ValueError) as error:
        raise ResourceError(
            f"the hub gives no weights for {architecture} ({str(error).splitlines()[0][:120]}); "
            "download them elsewhere and name the file: --weights FILE"
        ) from error


def _load_state(network: Network, state: dict[str, Any], origin: str) -> None:
    """Load all but the last layer. Raises ModelError when the rest does not fit."""
    own = network.body.state_dict()
    last = {id(parameter) for parameter in network.last_layer.parameters()}
    of_head = {name for name, parameter in network.body.named_parameters() if id(parameter) in last}
    needed = [name for name in own if name not in of_head and not _in_head(name, of_head)]
    missing = [name for name in needed if name not in state]
    other = [name for name in needed if name in state and state[name].shape != own[name].shape]
    if missing or other:
        first = (missing or other)[0]
        raise ModelError(
            f"{origin} is of another architecture: {len(needed) - len(missing) - len(other)} of {len(needed)} tensors "
            f"fit, {first} does not"
        )
    fits = {name: state[name] for name in own if name in state and state[name].shape == own[name].shape}
    network.body.load_state_dict(fits, strict=False)


def _in_head(name: str, of_head: set[str]) -> bool:
    """Tell whether a buffer (a norm's statistics) lies in the last layer."""
    return any(name.rpartition(".")[0] == known.rpartition(".")[0] for known in of_head)

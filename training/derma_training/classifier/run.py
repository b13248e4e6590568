"""A training run: what it is by now, and how it is saved and taken up again."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from timm.optim import RMSpropTF

from derma_common.errors import ModelError
from derma_training.classifier.checkpoint import BEST_FILE, CHECKPOINT_FILE, read_checkpoint, write_state
from derma_training.classifier.network import Network
from derma_training.classifier.recipes import Recipe
from derma_training.classifier.setup import Setup, setup_from

NOTE_FILE = "run.json"
RMSPROP_DECAY, RMSPROP_MOMENTUM, RMSPROP_EPS = 0.9, 0.9, 0.1  # Esteva et al. 2017
ADAM_BETAS = (0.9, 0.99)  # fastai 1; one cycle moves the first


@dataclass
class Run:
    """The state of a training. `average` is what is measured and exported: the model itself without averaging."""

    network: Any
    average: Any
    optimizer: Any
    scaler: Any
    epoch: int = 0
    position: int = 0  # pictures of the current epoch that are done
    step: int = 0
    elapsed_s: float = 0.0
    best_bma: float = -1.0
    stale_epochs: int = 0


COUNTERS = ("epoch", "position", "step", "elapsed_s", "best_bma", "stale_epochs")


def new_run(setup: Setup, network: Network, device: str) -> Run:
    """Return a run at its start, on a device."""
    network = network.to(device, memory_format=torch.channels_last)
    average = copy.deepcopy(network) if setup.recipe.ema_decay else network
    scaler = torch.amp.GradScaler(device, enabled=device == "cuda" and not torch.cuda.is_bf16_supported())
    return Run(network, average, _optimizer(network, setup.recipe), scaler)


def _optimizer(network: Network, recipe: Recipe) -> Any:
    """Return the optimizer; each of its groups says which layers it holds ("layer", 0 first)."""
    groups = []
    for layer, parameters in enumerate(network.layer_groups()):
        matrices = [p for p in parameters if p.ndim > 1 or recipe.decay_norms]
        others = [p for p in parameters if p.ndim <= 1 and not recipe.decay_norms]
        groups.append({"params": matrices, "weight_decay": recipe.weight_decay, "layer": layer})
        groups.append({"params": others, "weight_decay": 0.0, "layer": layer})
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "rmsprop":
        return RMSpropTF(groups, lr=1.0, alpha=RMSPROP_DECAY, momentum=RMSPROP_MOMENTUM, eps=RMSPROP_EPS)
    return torch.optim.AdamW(groups, lr=1.0, betas=ADAM_BETAS)


def save_checkpoint(run: Run, setup: Setup, directory: Path) -> None:
    """Write the run's state; a kill at any moment leaves the old or the new checkpoint whole."""
    counters = {name: getattr(run, name) for name in COUNTERS}
    state = {name: getattr(run, name).state_dict() for name in ("network", "average", "optimizer", "scaler")}
    if run.average is run.network:
        del state["average"]
    random = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        random["cuda"] = torch.cuda.get_rng_state()
    write_state({**state, "random": random, "counters": counters, "setup": asdict(setup)}, directory / CHECKPOINT_FILE)
    note = directory / (NOTE_FILE + ".part")
    note.write_text(json.dumps({**counters, "setup": asdict(setup)}, indent=1) + "\n", encoding="utf-8")
    note.replace(directory / NOTE_FILE)


def save_best(run: Run, setup: Setup, directory: Path) -> None:
    """Write the weights of the best epoch so far, for early stopping."""
    counters = {name: getattr(run, name) for name in COUNTERS}
    state = {"average": run.average.state_dict(), "counters": counters, "setup": asdict(setup)}
    write_state(state, directory / BEST_FILE)


def resume(run: Run, setup: Setup, directory: Path) -> None:
    """Take up the run that `directory` holds.

    Raises ModelError when the checkpoint is damaged, or was made by another setup.
    """
    path = directory / CHECKPOINT_FILE
    state = read_checkpoint(path)
    other = setup_from(state["setup"])
    for field in fields(Setup):
        was, wanted = getattr(other, field.name), getattr(setup, field.name)
        if was != wanted:
            raise ModelError(
                f"{directory} holds a run with another {field.name} ({_short(was)}, not {_short(wanted)}): "
                "choose another --out, or ask for the same to go on"
            )
    try:
        run.network.load_state_dict(state["network"])
        if run.average is not run.network:
            run.average.load_state_dict(state["average"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.scaler.load_state_dict(state["scaler"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise ModelError(f"{path} does not fit its own setup: {str(error).splitlines()[0]}") from error
    for name in COUNTERS:
        setattr(run, name, state["counters"][name])
    torch.set_rng_state(state["random"]["cpu"])
    if "cuda" in state["random"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["random"]["cuda"])


def _short(value: Any) -> str:
    return value.name if isinstance(value, Recipe) else str(value)

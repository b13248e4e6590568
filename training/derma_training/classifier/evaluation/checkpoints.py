"""A training run's network, opened for measuring. Torch is needed here and for gradients only."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from derma_common.errors import ModelError, ResourceError
from derma_training.classifier.evaluation.models import Array, Network

BATCH = 16


def open_checkpoint(run: Path, threads: int) -> Network:
    """Open the network that a training left in the folder `run`; it has no temperature.

    Raises ModelError, ResourceError without torch.
    """
    if importlib.util.find_spec("torch") is None:
        raise ResourceError(f"{run} holds a checkpoint, which needs torch: pip install 'derma[train]', or export it")
    import torch

    from derma_training.torchvision_ops import complete_torchvision

    complete_torchvision()
    from derma_training.classifier.trained import load_trained

    trained = load_trained(run)
    if trained.setup.sites is not None:
        raise ModelError(f"{run} was trained on metadata beside pictures, and only pictures can be measured here")
    torch.set_num_threads(threads)
    network: Any = trained.model

    def answer(tensor: Array) -> dict[str, Array]:
        with torch.no_grad():
            features = network.features(torch.from_numpy(tensor))
            return {"logits": network.classify(features).numpy(), "features": features.numpy()}

    return Network(
        id=f"{run.name} after {trained.epochs} epochs",
        classes=trained.classes,
        size_px=trained.size,
        mean=trained.mean,
        std=trained.std,
        batch=BATCH,
        run=answer,
        close=lambda: None,
        module=network,
    )

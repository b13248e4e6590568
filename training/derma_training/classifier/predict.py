"""What a network in PyTorch says of rows of a manifest, cut as the pipeline cuts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from derma_common.preprocess import softmax, to_tensor
from derma_training.classifier.about import AboutEncoder
from derma_training.classifier.architectures import Planes
from derma_training.classifier.crops import evaluation_crop
from derma_training.classifier.manifest import Row
from derma_training.classifier.metrics import accuracy, balanced_accuracy, macro_auc, negative_log_likelihood
from derma_training.classifier.network import Network
from derma_training.classifier.pictures import read_picture

BATCH = 32


def predict_logits(
    network: Network, rows: Sequence[Row], size: int, mean: Planes, std: Planes, encoder: AboutEncoder | None = None
) -> npt.NDArray[np.float32]:
    """Return the logits (N, C) of rows, on the device where the network is. Raises ConfigError: no picture."""
    network.eval()
    device = next(network.parameters()).device
    parts = []
    with torch.no_grad():
        for start in range(0, len(rows), BATCH):
            chosen = rows[start : start + BATCH]
            crops = [evaluation_crop(read_picture(row.file), row.box, size) for row in chosen]
            images = torch.from_numpy(to_tensor(crops, mean, std)).to(device, memory_format=torch.channels_last)
            about = torch.from_numpy(encoder.encode(chosen)).to(device) if encoder else None
            parts.append(network(images, about).float().cpu().numpy())
    return np.concatenate(parts)


def truth_of(rows: Sequence[Row], classes: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the class indices (N,) of rows."""
    return np.asarray([classes.index(row.label) for row in rows], dtype=np.int64)


def figures(logits: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return loss, accuracy, balanced accuracy and macro AUC of logits (N, C)."""
    return {
        "loss": negative_log_likelihood(logits, truth, 1.0),
        "accuracy": accuracy(logits, truth),
        "bma": balanced_accuracy(logits, truth),
        "macro_auc": macro_auc(softmax(logits), truth),
    }

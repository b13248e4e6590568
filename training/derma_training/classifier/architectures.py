"""The networks that a classifier may be, by timm's names, with their papers' input size and normalisation.

`efficientnet_b0` is derma's own; `tf_efficientnet_b0 … b7`, `legacy_seresnext101_32x4d`, `inception_resnet_v2` and
`nasnetalarge` are the networks of Steppan & Hanke 2021 (weights ported from TensorFlow and Cadene's collection),
`inception_v3` is that of Esteva et al. 2017. Imports no torch: the command line lists them.
"""

from __future__ import annotations

from dataclasses import dataclass

Planes = tuple[float, float, float]

HALF: Planes = (0.5, 0.5, 0.5)
IMAGENET_MEAN: Planes = (0.485, 0.456, 0.406)
IMAGENET_STD: Planes = (0.229, 0.224, 0.225)
FOLDED_MOBILENET = "mobilenetv2_folded"  # not of timm: derma_training.classifier.mobilenet_v2


@dataclass(frozen=True)
class Architecture:
    """The px of the square input, and the mean and std that pretrained weights expect of RGB in 0 … 1."""

    size: int
    mean: Planes = IMAGENET_MEAN
    std: Planes = IMAGENET_STD


ARCHITECTURES = {
    "efficientnet_b0": Architecture(224),
    "tf_efficientnet_b0": Architecture(224),
    "tf_efficientnet_b1": Architecture(240),
    "tf_efficientnet_b2": Architecture(260),
    "tf_efficientnet_b3": Architecture(300),
    "tf_efficientnet_b4": Architecture(380),
    "tf_efficientnet_b5": Architecture(456),
    "tf_efficientnet_b6": Architecture(528),
    "tf_efficientnet_b7": Architecture(600),
    "legacy_seresnext101_32x4d": Architecture(224),
    "inception_resnet_v2": Architecture(299, HALF, HALF),
    "nasnetalarge": Architecture(331, HALF, HALF),
    "inception_v3": Architecture(299, HALF, HALF),
    FOLDED_MOBILENET: Architecture(224, HALF, HALF),
}


def normalisation(architecture: str, weights: str) -> tuple[Planes, Planes]:
    """Return mean and std of the input: those of timm's weights, else ½ and ½ as derma's own weights have them.

    weights: what `--weights` says, "" for a network from scratch. Files of derma (.onnx, .npz) saw ½.
    """
    if not weights or weights.endswith((".onnx", ".npz")):
        return HALF, HALF
    known = ARCHITECTURES[architecture]
    return known.mean, known.std

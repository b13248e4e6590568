"""The network: a body from timm, its last layer for our classes, and an optional branch for metadata."""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import nn

from derma_common.errors import ConfigError
from derma_training.classifier.architectures import FOLDED_MOBILENET
from derma_training.classifier.mobilenet_v2 import MobileNetV2

HEAD_STD = 0.01  # timm's own start is for a thousand classes: with nine, the first losses would be huge
HIDDEN = 512  # fastai 1's head
ABOUT_WIDTHS = (512, 128)  # of the branch for metadata, as the SIIM-ISIC 2020 winners (arXiv 2010.05351)
ABOUT_DROPOUT = 0.3


class Network(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """`body` is timm's model whole, last layer included; its state dict is timm's."""

    def __init__(self, body: Any, classes: int, about: int = 0) -> None:
        """about: how many numbers of metadata come with each picture, 0 for none."""
        super().__init__()
        self.body = body
        self.frozen = False
        self.kept_stages = 0
        self.about: nn.Module | None = None
        self.joined: nn.Linear | None = None
        if about:
            first, second = ABOUT_WIDTHS
            self.about = nn.Sequential(
                nn.Linear(about, first), nn.BatchNorm1d(first), nn.SiLU(), nn.Dropout(ABOUT_DROPOUT),
                nn.Linear(first, second), nn.BatchNorm1d(second), nn.SiLU(),
            )  # fmt: skip
            self.joined = nn.Linear(self.last_layer.in_features + second, classes)

    @property
    def last_layer(self) -> Any:
        """What turns features into logits, when there is no metadata."""
        return self.body.get_classifier()

    def features(self, images: Any) -> Any:
        """Return the features (N, D) that the last layer sees, of images (N, 3, H, W)."""
        return self.body.forward_head(self.body.forward_features(images), pre_logits=True)

    def classify(self, features: Any, about: Any = None) -> Any:
        """Return logits (N, C) of features (N, D) and, where the network takes it, metadata (N, M)."""
        if self.about is None or self.joined is None:
            return self.last_layer(features)
        return self.joined(torch.cat([features, self.about(about)], dim=1))

    def forward(self, images: Any, about: Any = None) -> Any:
        """Return logits (N, C) of images (N, 3, H, W)."""
        return self.classify(self.features(images), about)

    def layer_groups(self) -> list[list[Any]]:
        """Return all parameters as [first half of the body, second half, head], for rates that differ by depth."""
        head = [*self.last_layer.parameters()]
        for part in (self.about, self.joined):
            head += [] if part is None else [*part.parameters()]
        of_head = {id(parameter) for parameter in head}
        body = [parameter for parameter in self.body.parameters() if id(parameter) not in of_head]
        middle = len(body) // 2
        return [body[:middle], body[middle:], head]

    def freeze_body(self, frozen: bool) -> None:
        """Keep the body's weights as they are, but for its norms; or let them learn again, but for the kept stages."""
        self.frozen = frozen
        for group in self.layer_groups()[:-1]:
            for parameter in group:
                parameter.requires_grad_(not frozen)
        for module in self.body.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                for parameter in module.parameters():
                    parameter.requires_grad_(True)
        for module in self._kept():
            for parameter in module.parameters():
                parameter.requires_grad_(False)

    def _kept(self) -> list[Any]:
        """Return the modules that never learn: a step costs less, as nothing is propagated back through large maps.

        Raises ConfigError when the body has no such stages.
        """
        if not self.kept_stages:
            return []
        if not hasattr(self.body, "blocks") or self.kept_stages > len(self.body.blocks):
            raise ConfigError(f"only an EfficientNet keeps stages, and not {self.kept_stages}")
        return [self.body.conv_stem, self.body.bn1, *self.body.blocks[: self.kept_stages]]


def build(architecture: str, classes: int, *, dropout: float = 0.2, head: str = "linear", about: int = 0) -> Network:
    """Build a network with random weights. head: "linear", or "concat" as fastai 1 makes it.

    about: numbers of metadata with each picture. Raises ConfigError when timm knows no such architecture.
    """
    if architecture == FOLDED_MOBILENET:
        return Network(MobileNetV2(classes, dropout), classes, about)
    if not timm.is_model(architecture):
        raise ConfigError(f"timm knows no architecture {architecture!r}")
    if head == "linear":
        body = timm.create_model(architecture, num_classes=classes, drop_rate=dropout)
        nn.init.normal_(body.get_classifier().weight, std=HEAD_STD)
    else:
        body = timm.create_model(architecture, num_classes=classes, drop_rate=0.0, global_pool="catavgmax")
        setattr(body, body.default_cfg["classifier"], _ConcatHead(body.get_classifier().in_features, classes))
    return Network(body, classes, about)


def check_size(network: Network, size: int) -> None:
    """Raise ConfigError when a network cannot take pictures of size × size px."""
    network.eval()
    try:
        with torch.no_grad():
            network.features(torch.zeros(1, 3, size, size))
    except RuntimeError as error:
        raise ConfigError(f"this architecture cannot take pictures of {size} px: {str(error)[:100]}") from error


class _ConcatHead(nn.Sequential):  # type: ignore[misc]
    """fastai 1's head behind pooling by mean and by maximum."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__(
            nn.BatchNorm1d(features), nn.Dropout(0.25), nn.Linear(features, HIDDEN), nn.ReLU(),
            nn.BatchNorm1d(HIDDEN), nn.Dropout(0.5), nn.Linear(HIDDEN, classes),
        )  # fmt: skip
        self.in_features = features

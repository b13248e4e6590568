"""What a training run was asked to be: stored in its checkpoint, and needed to build its network again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from derma_common.errors import ModelError
from derma_training.classifier.about import AboutEncoder
from derma_training.classifier.architectures import Planes
from derma_training.classifier.folded import fold_norms
from derma_training.classifier.network import Network, build
from derma_training.classifier.recipes import Recipe, recipe_from


@dataclass(frozen=True)
class Setup:
    """What defines a run: a checkpoint is taken up only by the same.

    sites: of the metadata, None without. folded: the weights it started from had their batch norms folded away.
    kept_stages: of the body, from the first, that never learn.
    inherited: licences of the models of derma that it started or learned from. data: digest of the manifest.
    """

    architecture: str
    classes: tuple[str, ...]
    size: int
    mean: Planes
    std: Planes
    recipe: Recipe
    weights: str = ""
    teacher: str = ""
    fold: int = 0
    patience: int = 0
    seed: int = 0
    sites: tuple[str, ...] | None = None
    folded: bool = False
    kept_stages: int = 0
    inherited: tuple[str, ...] = ()
    data: str = ""

    @property
    def encoder(self) -> AboutEncoder | None:
        """How metadata becomes numbers, None when the network takes none."""
        return None if self.sites is None else AboutEncoder(self.sites)

    def network(self, folded: bool) -> Network:
        """Build the network with random weights, its batch norms in place or folded away. Raises ConfigError."""
        about = self.encoder.width if self.encoder else 0
        recipe = self.recipe
        network = build(self.architecture, len(self.classes), dropout=recipe.dropout, head=recipe.head, about=about)
        if folded:
            fold_norms(network.body)
        network.kept_stages = self.kept_stages
        return network


def setup_from(values: Mapping[str, Any]) -> Setup:
    """Return the setup that a checkpoint stores. Raises ModelError."""
    try:
        lists = {name: tuple(values[name]) for name in ("classes", "mean", "std", "inherited")}
        sites = None if values["sites"] is None else tuple(values["sites"])
        return Setup(**{**values, **lists, "sites": sites, "recipe": recipe_from(values["recipe"])})
    except (KeyError, TypeError) as error:
        raise ModelError(f"the checkpoint is of another version of this program: {error}") from error

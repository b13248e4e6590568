"""Three ways to train: derma's, and those of the two papers. Imports no torch.

A recipe is data; `--lr`, `--sampling` and the like change single values of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

Sampling = Literal["natural", "sqrt", "over", "under"]
Emphasis = tuple[tuple[str, float], ...]  # class or source, factor on its draws
ClassWeights = Literal["none", "inverse", "effective"]


@dataclass(frozen=True)
class Stage:
    """A part of the run. The peak rate falls geometrically from the last layer (head) to the first (body).

    `body_lr` 0 freezes all but the head; batch norms go on learning, as in fastai.
    """

    share: float
    body_lr: float
    head_lr: float


@dataclass(frozen=True)
class Recipe:
    """How to train."""

    name: str
    augmentation: str
    stages: tuple[Stage, ...]
    epochs: int
    batch: int
    schedule: Literal["one_cycle", "steps"] = "one_cycle"
    optimizer: Literal["adamw", "rmsprop"] = "adamw"
    head: Literal["linear", "concat"] = "linear"
    warmup_share: float = 0.3  # of a stage: one cycle's rise
    weight_decay: float = 0.01
    decay_norms: bool = True  # decay biases and norms too
    cycle_momentum: bool = True
    sampling: Sampling = "natural"
    emphasis: Emphasis = ()  # of classes
    class_weights: ClassWeights = "none"
    beta: float = 0.999  # of the effective number
    label_smoothing: float = 0.0
    dropout: float = 0.0
    ema_decay: float = 0.0  # 0: no average
    clip_norm: float = 0.0  # 0: gradients are not clipped
    early_share: float = 0.0  # of the run is trained on smaller pictures
    early_scale: float = 1.0
    scratch_lr: float = 0.0  # peak rate of all layers without pretrained weights, 0: as the stages say
    source_emphasis: Emphasis = ()  # of sources, within each class


# Steppan & Hanke 2021 (arXiv 2101.03814) with its code's values (fastai 1): EfficientNet-B4's notebook
STEPPAN = Recipe(
    name="steppan",
    augmentation="steppan",
    stages=(
        Stage(32 / 62, 0.0, 3e-3),
        Stage(10 / 62, 1e-4, 1e-4),
        Stage(10 / 62, 1e-5, 1e-5),
        Stage(10 / 62, 1e-6, 1e-6),
    ),
    epochs=62,
    batch=16,
    head="concat",
    scratch_lr=3e-3,
)

# Esteva et al. 2017, Methods: one rate for all layers, divided by 16 every 30 epochs
ESTEVA = Recipe(
    name="esteva",
    augmentation="esteva",
    stages=(Stage(1.0, 1e-3, 1e-3),),
    epochs=90,
    batch=32,
    schedule="steps",
    optimizer="rmsprop",
    weight_decay=0.0,
    cycle_momentum=False,
)

DERMA = Recipe(
    name="derma",
    augmentation="derma",
    stages=(Stage(0.08, 0.0, 2e-3), Stage(0.92, 2e-4, 2e-3)),
    epochs=20,
    batch=32,
    warmup_share=0.08,
    weight_decay=0.02,
    decay_norms=False,
    cycle_momentum=False,
    sampling="sqrt",
    label_smoothing=0.05,
    dropout=0.2,
    ema_decay=0.999,
    clip_norm=5.0,
    early_share=0.3,
    early_scale=0.8,
    scratch_lr=6e-4,
)

# to go on with a network that already knows lesions
FINETUNE = replace(
    DERMA,
    name="derma-finetune",
    augmentation="derma-light",
    stages=(Stage(1.0, 9e-5, 2.2e-4),),
    epochs=10,
    ema_decay=0.997,
    early_share=0.0,
    early_scale=1.0,
)

RECIPES = {recipe.name: recipe for recipe in (DERMA, FINETUNE, STEPPAN, ESTEVA)}


def adapted(recipe: Recipe, pretrained: bool, peak_lr: float = 0.0) -> Recipe:
    """Return the recipe for this start, its rates scaled so that the highest is `peak_lr` (0: as they are).

    Without pretrained weights there is nothing to keep: one stage in which all layers learn alike.
    """
    stages = recipe.stages
    if not pretrained and recipe.scratch_lr:
        stages = (Stage(1.0, recipe.scratch_lr, recipe.scratch_lr),)
    if peak_lr:
        factor = peak_lr / max(stage.head_lr for stage in stages)
        stages = tuple(Stage(s.share, s.body_lr * factor, s.head_lr * factor) for s in stages)
    return replace(recipe, stages=stages)


def recipe_from(values: Mapping[str, Any]) -> Recipe:
    """Return the recipe that was stored as a dictionary. Raises TypeError and KeyError when it is none."""
    stages = tuple(Stage(**stage) for stage in values["stages"])
    factors = {
        key: tuple((name, factor) for name, factor in values.get(key, ())) for key in ("emphasis", "source_emphasis")
    }
    return Recipe(**{**values, "stages": stages, **factors})

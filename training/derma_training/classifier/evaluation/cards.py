"""Figures on a model's card, so that whoever has the model has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from derma_common.errors import ConfigError
from derma_common.inference.card import CARD_FILE, read_card, write_card
from derma_common.shipped import model_dir

KEPT = ("n", "accuracy", "bma", "macro_auc", "ece", "suspicious", "interval_95", "unknown")
KEPT_OF_A_CLASS = ("n", "recall", "auc", "ap", "sensitivity", "specificity")


def card_folder(models: Sequence[str]) -> Path:
    """Return the folder of the one model whose card takes figures.

    Raises ConfigError for several models, ModelError for what is no exported model.
    """
    if len(models) != 1:
        raise ConfigError("figures are written on the card of one model: give one --model with --write")
    return model_dir(models[0])


def write_card_figures(folder: Path, figures: Mapping[str, Any]) -> Path:
    """Put figures, title -> what was found, on the card of the model in `folder`; return the card's file."""
    card = read_card(folder)
    write_card(replace(card, figures={**card.figures, **figures}), folder)
    return folder / CARD_FILE


def card_figures(document: dict[str, Any]) -> dict[str, Any]:
    """Return the part of a document that a card keeps; of the table's path, its name and folder only."""
    settings = document["settings"]
    table = Path(settings["labels"])
    return {
        **{name: document[name] for name in KEPT if document.get(name) is not None},
        "classes": {
            name: {key: row[key] for key in KEPT_OF_A_CLASS} for name, row in document["classes"].items() if row["n"]
        },
        "measured": {**settings, "labels": f"{table.absolute().parent.name}/{table.name}"},
    }

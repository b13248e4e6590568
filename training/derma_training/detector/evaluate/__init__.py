"""How good a detector is: what it finds on labelled pictures, matched and counted as COCO does."""

from derma_training.detector.evaluate.looking import Seen, look_at
from derma_training.detector.evaluate.matching import Matches, match_all
from derma_training.detector.evaluate.measures import (
    average_precision,
    choose_threshold,
    figures,
    fp_at_recall,
    froc,
    intervals,
    precision_recall,
)

__all__ = [
    "Matches",
    "Seen",
    "average_precision",
    "choose_threshold",
    "figures",
    "fp_at_recall",
    "froc",
    "intervals",
    "look_at",
    "match_all",
    "precision_recall",
]

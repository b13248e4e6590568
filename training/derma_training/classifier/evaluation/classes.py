"""In which classes a table's labels and models' answers are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from derma_common.errors import ConfigError
from derma_common.taxonomy import View, Vocabulary, common_view, find_view, known_vocabulary
from derma_common.taxonomy.vocabulary import plain

AS_TRAINED = "as trained"
SUSPICIOUS = ("suspicious", "malignant")  # words for the node above every malignant or premalignant class
UNKNOWN = "UNK"
LEFT_OUT = -1

Unplaced = Literal["error", "skip", "unk"]


@dataclass(frozen=True)
class Scale:
    """The classes in which everything is scored, and which of them each label of the table is.

    name: of the view, or AS_TRAINED. suspicious: the classes that hold only malignant or premalignant kinds.
    unknown: the class for none of the others, if there is one. view: None when scored as trained.
    """

    name: str
    classes: tuple[str, ...]
    index_of: Mapping[str, int]
    suspicious: tuple[str, ...]
    unknown: str | None
    view: View | None

    def membership(self, classes: Sequence[str]) -> npt.NDArray[np.float64]:
        """Return (C, K), 1 where a model's class is held by a class of this scale. Raises ConfigError."""
        if self.view is not None:
            return self.view.membership(classes)
        return np.eye(len(self.classes))[[self.classes.index(name) for name in classes]]


def choose_scale(models: Sequence[Sequence[str]], labels: Sequence[str], view: str | None = None) -> Scale:
    """Return the scale for models with these classes and a table with these labels.

    A `view` asked for is taken. Else, where every label that is known at all is a class of the models, these are the
    scale; other labels meet the models in their finest common view (HAM10000's AKIEC is AK + SCC). A label that is
    unknown or has no place is in no `index_of`. Raises ConfigError for a view that is unknown, or that is finer than
    the models or the labels.
    """
    words = sorted(set(labels))
    if view is None and all(set(classes) == set(models[0]) for classes in models):
        own = {plain(name): i for i, name in enumerate(models[0])}
        found = {word: own[plain(word)] for word in words if plain(word) in own}
        if not any(known_vocabulary().named(word) for word in words if word not in found):
            return _as_trained(tuple(models[0]), found)
    if view is not None:
        return _through(find_view(view), words)
    every = dict.fromkeys(name for classes in models for name in classes)
    return _through(common_view(tuple(every), [word for word in words if known_vocabulary().named(word)]), words)


def _through(view: View, words: Sequence[str]) -> Scale:
    places = {word: view.place(word) for word in words if view.vocabulary.named(word)}
    index_of = {word: view.classes.index(place) for word, place in places.items() if place is not None}
    tree, node = view.vocabulary.tree, _suspicious_node(view.vocabulary)
    inside: set[str | None] = set()
    outside: set[str | None] = set()
    for leaf in tree.leaves(tree.root):
        (inside if node in tree.lineage(leaf) else outside).add(view.place(leaf))
    suspicious = tuple(name for name in view.classes if name in inside - outside)
    return Scale(view.name, view.classes, index_of, suspicious, unknown_class(view.classes), view)


def _as_trained(classes: tuple[str, ...], index_of: Mapping[str, int]) -> Scale:
    vocabulary = known_vocabulary()
    node = _suspicious_node(vocabulary)
    nodes = {name: vocabulary.named(name) for name in classes}
    suspicious = tuple(name for name, own in nodes.items() if own and node in vocabulary.tree.lineage(own))
    return Scale(AS_TRAINED, classes, index_of, suspicious, unknown_class(classes), None)


def _suspicious_node(vocabulary: Vocabulary) -> str | None:
    return next((node for word in SUSPICIOUS if (node := vocabulary.named(word))), None)


def unknown_class(classes: Sequence[str]) -> str | None:
    """Return the class, or the label, that stands for pictures of none of the others, None when there is none."""
    return next((name for name in classes if known_vocabulary().named(name) == UNKNOWN), None)


def place_labels(scale: Scale, labels: Sequence[str], unplaced: Unplaced = "error") -> npt.NDArray[np.int64]:
    """Return the class index (N,) of each label in `scale`; LEFT_OUT for what is skipped.

    unplaced: what becomes of labels without a place: an error, left out, or the class for none of the others.
    Raises ConfigError that names them.
    """
    lost = Counter(label for label in labels if label not in scale.index_of)
    instead = LEFT_OUT
    if lost and unplaced == "unk":
        if scale.unknown is None:
            raise ConfigError(f"none of the classes {', '.join(scale.classes)} is for unknown lesions")
        instead = scale.classes.index(scale.unknown)
    if lost and unplaced == "error":
        names = ", ".join(f"{label!r} ({n}×)" for label, n in lost.most_common(8))
        raise ConfigError(
            f"labels that are none of the classes {', '.join(scale.classes)} nor a known word for them: {names}; "
            "correct them, leave them out (--unknown-labels skip), count them as none of the classes "
            "(--unknown-labels unk), or choose a --view that has them"
        )
    return np.asarray([scale.index_of.get(label, instead) for label in labels], dtype=np.int64)

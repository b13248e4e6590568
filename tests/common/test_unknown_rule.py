"""A card's rule for the unknown: what it scores, what it tells, and what of a card is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from derma_common.errors import ModelError
from derma_common.inference.card import UnknownRule, read_card, sha256_of, write_card
from derma_common.inference.classification import Classifier
from derma_common.inference.unknown import UnknownCheck
from derma_common.preprocess import softmax

CLASSES = ("MEL", "NV", "UNK")
LOGITS = np.asarray([[4.0, 0.0, 0.0], [0.0, 0.1, 0.0], [1.0, 0.0, 3.0]])
ROWS = softmax(LOGITS.astype(np.float32)).astype(np.float64)


def check(score: str, threshold: float, known: Any = None, neighbours: int = 1) -> UnknownCheck:
    return UnknownCheck(UnknownRule(score, threshold, "UNK", neighbours=neighbours), CLASSES, known)  # type: ignore[arg-type]


def test_the_scores_leave_the_unknown_class_out() -> None:
    assert check("p_unk", 0.0).score(ROWS, LOGITS, None) == pytest.approx(1.0 - ROWS[:, 2])
    assert check("max_softmax", 0.0).score(ROWS, LOGITS, None) == pytest.approx(ROWS[:, :2].max(axis=1))
    energy = np.log(np.exp(LOGITS[:, :2]).sum(axis=1))
    assert check("energy", 0.0).score(ROWS, LOGITS, None) == pytest.approx(energy)


def test_features_are_compared_with_the_known_ones() -> None:
    known = np.asarray([[1.0, 0.0], [0.0, 1.0]], dtype=np.float16)
    features = np.asarray([[5.0, 0.0], [1.0, 1.0]])
    nearest = check("knn", 0.0, known).score(ROWS[:2], LOGITS[:2], features)
    assert nearest == pytest.approx([0.0, -(2.0 - np.sqrt(2.0))])
    second = check("knn", 0.0, known, neighbours=2).score(ROWS[:2], LOGITS[:2], features)
    assert second == pytest.approx([-2.0, -(2.0 - np.sqrt(2.0))])


def test_below_the_threshold_unknown_is_the_answer_and_the_rest_can_be_read() -> None:
    told = check("max_softmax", 0.5).told(ROWS, LOGITS, None)
    assert told[0] == pytest.approx(ROWS[0]), "a sure answer stays"
    assert told[1].argmax() == 2 and told[1, 2] == pytest.approx(0.75 + 0.25 * ROWS[1, 2])
    assert told[1, 0] / told[1, 1] == pytest.approx(ROWS[1, 0] / ROWS[1, 1])
    assert told.sum(axis=1) == pytest.approx(np.ones(3))
    sure = np.asarray([[1.0, 0.0, 0.0]])
    assert check("energy", 99.0).told(sure, LOGITS[:1], None)[0].argmax() == 2, "even of an answer that was certain"


def test_a_score_at_the_threshold_is_known() -> None:
    assert check("p_unk", float(1.0 - ROWS[1, 2])).told(ROWS, LOGITS, None)[1] == pytest.approx(ROWS[1])


@pytest.fixture
def ruled(classifier_dir: Path) -> Path:
    """The fake classifier, which says benign 1, melanoma 2, unknown 0 of everything."""
    card = read_card(classifier_dir)
    write_card(replace(card, unknown=UnknownRule("max_softmax", 0.9, "unknown")), classifier_dir)
    return classifier_dir


def test_the_service_tells_what_the_card_says(ruled: Path) -> None:
    opened = Classifier.open(ruled)
    row = opened.classify([np.zeros((64, 64, 3), dtype=np.uint8)])[0]
    opened.close()
    plain = softmax(np.asarray([[1.0, 2.0, 0.0]], dtype=np.float32))[0]
    assert row == pytest.approx([0.25 * plain[0], 0.25 * plain[1], 0.75 + 0.25 * plain[2]], abs=1e-6)


def test_findings_record_the_rule_with_the_model(ruled: Path) -> None:
    card = read_card(ruled)
    assert card.id == f"{card.name}@{card.sha256[:12]}+max_softmax@0.9"


def change(directory: Path, **changes: Any) -> None:
    card = json.loads((directory / "card.json").read_text())
    card["unknown"] |= changes
    (directory / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"score": "guess"}, "unknown.score 'guess' is none of p_unk, max_softmax, energy, knn"),
        ({"threshold": float("nan")}, "unknown.threshold must be a finite number"),
        ({"threshold": "high"}, "wrong type"),
        ({"told_as": "UNK"}, "unknown.told_as 'UNK' is no class of it"),
        ({"score": "knn"}, "the score knn needs the output features"),
        ({"score": "knn", "file": "../known.npy", "neighbours": 1}, "needs a plain file name and neighbours of 1"),
        ({"surprise": 1}, "unexpected keyword argument 'surprise'"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(ruled: Path, changes: dict[str, Any], said: str) -> None:
    change(ruled, **changes)
    with pytest.raises(ModelError, match=said) as caught:
        read_card(ruled)
    assert "\n" not in str(caught.value)


def knn(directory: Path, known: Any, **changes: Any) -> None:
    """Give a model directory known features, and a rule that compares with them."""
    np.save(directory / "known.npy", known, allow_pickle=known.dtype == object)
    card = json.loads((directory / "card.json").read_text())
    rule = {"score": "knn", "file": "known.npy", "sha256": sha256_of(directory / "known.npy"), "neighbours": 2}
    card |= {"outputs": ["logits", "features"], "unknown": card["unknown"] | rule | changes}
    (directory / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize(
    ("known", "changes", "said"),
    [
        (np.zeros((3, 4), np.float16), {"sha256": "0" * 64}, "is not the file of its card"),
        (np.zeros((1, 4), np.float16), {}, r"holds float16 \(1, 4\), not float16 features of 2 or more"),
        (np.zeros(4, np.float16), {}, r"holds float16 \(4,\)"),
        (np.zeros((3, 4), np.float32), {}, r"holds float32 \(3, 4\)"),
        (np.asarray([[{}]] * 3, dtype=object), {}, "cannot be read as an array"),  # a pickle: never opened
    ],
)
def test_known_features_that_are_none_are_refused(ruled: Path, known: Any, changes: dict[str, Any], said: str) -> None:
    knn(ruled, known, **changes)
    with pytest.raises(ModelError, match=said):
        Classifier.open(ruled)

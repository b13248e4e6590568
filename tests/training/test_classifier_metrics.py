"""Figures and the temperature."""

from __future__ import annotations

import numpy as np
import pytest

from derma_common.preprocess import softmax
from derma_training.classifier.metrics import (
    accuracy,
    auroc,
    balanced_accuracy,
    bootstrap_interval,
    calibration_error,
    fit_temperature,
    macro_auc,
    negative_log_likelihood,
    sensitivities,
)


def drawn_logits(seed: int, sharpness: float) -> tuple[np.ndarray, np.ndarray]:
    """Draw logits (600, 4) and truths sampled from their softmax, then sharpen the logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (600, 4)).astype(np.float32)
    truth = np.asarray([rng.choice(4, p=p / p.sum()) for p in softmax(logits).astype(np.float64)])
    return logits * np.float32(sharpness), truth


def test_the_temperature_of_two_classes_has_its_closed_form() -> None:
    logits = np.tile(np.asarray([[3.0, 0.0]], dtype=np.float32), (100, 1))
    truth = np.asarray([0] * 80 + [1] * 20)  # σ(3 / T) = 0.8
    assert fit_temperature(logits, truth) == pytest.approx(3.0 / np.log(0.8 / 0.2), rel=1e-3)


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_is_the_best_of_a_grid(sharpness: float) -> None:
    logits, truth = drawn_logits(1, sharpness)
    grid = np.exp(np.linspace(np.log(0.1), np.log(10), 400))
    best = grid[np.argmin([negative_log_likelihood(logits, truth, t) for t in grid])]
    assert fit_temperature(logits, truth) == pytest.approx(best, rel=0.02)
    assert best == pytest.approx(sharpness, rel=0.25)


def test_the_temperature_mends_the_calibration_error() -> None:
    logits, truth = drawn_logits(2, 3.0)
    before = calibration_error(softmax(logits), truth)
    after = calibration_error(softmax(logits, fit_temperature(logits, truth)), truth)
    assert after < before / 2


def test_auroc_counts_pairs_with_ties_as_half() -> None:
    rng = np.random.default_rng(3)
    scores, positive = rng.integers(0, 6, 80).astype(np.float32), rng.random(80) < 0.3
    pairs = scores[positive][:, None] - scores[~positive][None]
    assert auroc(scores, positive) == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())


def test_auroc_without_positives_is_not_a_number() -> None:
    assert np.isnan(auroc(np.ones(3), np.zeros(3, dtype=bool)))


def test_classes_that_do_not_occur_do_not_count() -> None:
    scores = np.eye(4, dtype=np.float32)[[0, 0, 1, 3]]
    truth = np.asarray([0, 0, 1, 1])
    assert sensitivities(scores, truth) == {0: 1.0, 1: 0.5}
    assert balanced_accuracy(scores, truth) == 0.75
    assert macro_auc(scores, truth) == pytest.approx((1.0 + 0.75) / 2)


def test_a_sure_and_right_classifier_has_no_calibration_error() -> None:
    assert calibration_error(np.eye(3, dtype=np.float32), np.arange(3)) == 0.0
    assert calibration_error(np.eye(3, dtype=np.float32), np.asarray([1, 2, 0])) == 1.0


def test_the_interval_is_wider_when_pictures_share_lesions() -> None:
    rng = np.random.default_rng(4)
    right = np.repeat(rng.random(100) < 0.7, 10)  # ten pictures of a lesion are right or wrong together
    scores = np.eye(2, dtype=np.float32)[np.where(right, 0, 1)]
    truth = np.zeros(1000, dtype=np.int64)
    alone = bootstrap_interval(accuracy, scores, truth, [str(i) for i in range(1000)])
    grouped = bootstrap_interval(accuracy, scores, truth, [str(i // 10) for i in range(1000)])
    assert alone[0] < right.mean() < alone[1]
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])
    wanted = 2 * 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / 100)
    assert grouped[1] - grouped[0] == pytest.approx(wanted, rel=0.2)

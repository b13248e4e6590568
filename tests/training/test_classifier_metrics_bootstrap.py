"""Confidence intervals."""

from __future__ import annotations

import numpy as np
import pytest

from derma_training.classifier.metrics import accuracy
from derma_training.classifier.metrics_bootstrap import bootstrap_interval, bootstrap_intervals


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


def test_draws_without_a_value_do_not_count() -> None:
    scores, truth = np.eye(2)[[0] * 9 + [1]], np.asarray([0] * 9 + [1])

    def recalls(drawn: np.ndarray, of: np.ndarray) -> np.ndarray:
        found = drawn.argmax(axis=1) == 1
        return np.asarray([found[of == 1].mean() if (of == 1).any() else np.nan, np.nan])

    intervals = bootstrap_intervals(recalls, scores, truth, [str(i) for i in range(10)], draws=50)
    assert intervals[0].tolist() == [1.0, 1.0]  # the one picture of class 1 is right whenever it is drawn
    assert np.isnan(intervals[1]).all()

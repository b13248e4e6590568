"""Readers beside a curve, scores for the unknown, the map of features, gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_common.errors import ConfigError
from derma_training.classifier.evaluation.embed import affinities, tsne
from derma_training.classifier.evaluation.readers import Reader, against, read_readers
from derma_training.classifier.evaluation.unknown import unknown_figures, unknown_scores
from derma_training.classifier.metrics_binary import curve


def test_a_reader_is_below_the_curve_where_the_model_finds_more_at_the_same_specificity() -> None:
    scores = np.asarray([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    points = curve(scores, np.asarray([1, 1, 0, 1, 0, 0], dtype=bool))  # (1/3, 1) (2/3, 1) (2/3, 2/3) (1, 2/3) …
    readers = [
        Reader("finds less", 0.6, 1.0, ""),
        Reader("as good", 2 / 3, 1.0, ""),
        Reader("better", 0.9, 0.9, ""),
        Reader("worse in both", 0.9, 0.5, ""),
    ]
    found = against(readers, points)
    assert (found["n"], found["below_curve"]) == (4, 2)
    assert found["sensitivity"]["mean"] == pytest.approx((0.6 + 2 / 3 + 0.9 + 0.9) / 4)
    assert found["specificity"]["sd"] == pytest.approx(np.std([1.0, 1.0, 0.9, 0.5], ddof=1))


def test_readers_are_read_and_checked(tmp_path: Path) -> None:
    table = tmp_path / "readers.csv"
    table.write_text("name,sensitivity,specificity,target\nA,.8,.7,MEL\nB,1,0.5,\n")
    assert read_readers(table) == [Reader("A", 0.8, 0.7, "MEL"), Reader("B", 1.0, 0.5, "")]
    table.write_text("name,sensitivity,specificity\nA,80,70\n")
    with pytest.raises(ConfigError, match="line 2: sensitivity and specificity are shares"):
        read_readers(table)
    table.write_text("name,sens\nA,1\n")
    with pytest.raises(ConfigError, match="needs a header"):
        read_readers(table)


@given(st.integers(0, 2**32 - 1))
def test_the_auroc_of_the_unknown_counts_pairs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    probabilities, logits = rng.dirichlet(np.ones(4), 30), rng.normal(size=(30, 3))
    is_unknown = np.arange(30) % 3 == 0
    found = unknown_figures(unknown_scores(probabilities, 3, [logits]), is_unknown)
    for name, less_known in (
        ("p_unk", probabilities[:, 3]),
        ("max_softmax", -probabilities[:, :3].max(axis=1)),
        ("energy", -np.log(np.exp(logits).sum(axis=1))),
    ):
        pairs = less_known[is_unknown][:, None] > less_known[~is_unknown][None]
        assert found[name]["auroc"] == pytest.approx(pairs.mean())
        # the 95 % of ten unknown pictures are all ten: the least of them is the threshold
        assert found[name]["fall_out_at_95"] == pytest.approx(
            (less_known[~is_unknown] >= less_known[is_unknown].min()).mean()
        )


def test_affinities_have_the_perplexity_asked_for_and_do_not_change_with_scale() -> None:
    points = np.random.default_rng(0).normal(size=(60, 5))
    squared = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    joint = affinities(squared, 10.0)
    assert joint.sum() == pytest.approx(1.0) and np.allclose(joint, joint.T) and (np.diag(joint) == 0).all()
    assert np.allclose(joint, affinities(squared * 1e4, 10.0))
    ring = np.minimum(np.arange(12), 12 - np.arange(12))
    circle = affinities(ring[(np.arange(12)[:, None] - np.arange(12)) % 12].astype(float) ** 2, 4.0)
    rows = circle * 12  # all points are alike, so the joint is the conditional
    entropy = -np.sum(rows * np.log(np.where(rows > 0, rows, 1.0)), axis=1)
    assert np.exp(entropy) == pytest.approx(np.full(12, 4.0), rel=1e-6)


def test_clusters_of_features_stay_apart_on_the_map() -> None:
    rng = np.random.default_rng(1)
    cluster = np.repeat(np.arange(3), 20)
    features = rng.normal(size=(3, 16))[cluster] * 10 + rng.normal(size=(60, 16))
    positions = tsne(features)
    distances = ((positions[:, None] - positions[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (cluster[distances.argmin(axis=1)] == cluster).all()
    assert np.array_equal(positions, tsne(features))
    assert np.isfinite(tsne(np.ones((5, 3)))).all()


@pytest.mark.train
def test_grad_cam_of_a_network_with_mean_pooling_is_its_class_activation_map() -> None:
    torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
    from derma_training.classifier.evaluation.gradients import grad_cam

    torch.manual_seed(0)
    convolution, last = torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Linear(4, 2)
    network = torch.nn.Sequential(convolution, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), last)
    tensor = np.random.default_rng(0).normal(size=(1, 3, 9, 9)).astype(np.float32)
    with torch.no_grad():
        maps = convolution(torch.from_numpy(tensor))[0]
        wanted = torch.relu((last.weight[1][:, None, None] * maps).sum(dim=0)).numpy() / 81  # of 9 × 9 places
    assert grad_cam(network, tensor, 1) == pytest.approx(wanted, abs=1e-7)


@pytest.mark.train
def test_saliency_of_a_linear_network_has_its_closed_form() -> None:
    torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")
    from derma_training.classifier.evaluation.gradients import saliency

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 4, 2))
    tensor = np.random.default_rng(0).normal(size=(1, 3, 4, 4)).astype(np.float32)
    with torch.no_grad():
        chance = torch.softmax(network(torch.from_numpy(tensor)), dim=1)[0, 0]
        first, second = network[1].weight
        wanted = ((1 - chance) * (second - first)).abs().reshape(3, 4, 4).sum(dim=0).numpy()  # ∂ −log p₀ / ∂x
    assert saliency(network, tensor, 0) == pytest.approx(wanted, rel=1e-5)

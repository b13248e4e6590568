"""After the network: rescaled priors, ensembles and test-time views against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from derma_common.posterior import (
    ENSEMBLES,
    dihedral_views,
    majority,
    mean,
    mean_by_confidence,
    mean_rank,
    rescale_priors,
    with_views,
    zoomed_views,
)

COUNTS = {  # of Steppan & Hanke's training set, and 32748 / n as they print it
    "NV": (13704, 2.389667), "UNK": (5958, 5.496475), "MEL": (4904, 6.677814), "BCC": (3378, 9.694494),
    "BKL": (2733, 11.982437), "AK": (867, 37.771626), "SCC": (628, 52.146497), "DF": (294, 111.387755),
    "VASC": (282, 116.127660),
}  # fmt: skip
SEEDS = st.integers(0, 2**32 - 1)


def posteriors(seed, *shape):
    """Draw rows that sum to 1."""
    return np.random.default_rng(seed).dirichlet(np.ones(shape[-1]), shape[:-1])


def test_equal_probabilities_are_rescaled_by_the_factors_of_the_paper():
    counts, factors = zip(*COUNTS.values(), strict=True)
    found = rescale_priors(np.full((1, 9), 1 / 9), counts)[0]
    assert found == pytest.approx(np.asarray(factors) / sum(factors), rel=1e-6)


def test_rescaling_turns_bayes_rule_at_one_prior_into_bayes_rule_at_equal_priors():
    likelihood = np.random.default_rng(0).uniform(size=(20, 4))
    counts = np.asarray([70, 20, 9, 1])
    posterior = likelihood * counts / (likelihood * counts).sum(axis=1, keepdims=True)
    assert rescale_priors(posterior, counts) == pytest.approx(likelihood / likelihood.sum(axis=1, keepdims=True))


@given(SEEDS, st.integers(1, 1000), st.integers(2, 9))
def test_equal_counts_change_nothing(seed, count, classes):
    p = posteriors(seed, 5, classes)
    assert rescale_priors(p, [count] * classes) == pytest.approx(p)


@pytest.mark.parametrize("counts", [(3, 0), (3, -1), (3, float("nan"))])
def test_a_class_never_trained_on_cannot_be_rescaled(counts):
    with pytest.raises(ValueError, match="every class needs a positive count"):
        rescale_priors([[0.5, 0.5]], counts)


@given(st.sampled_from(["mean", "confidence", "majority"]), SEEDS, st.integers(1, 4), st.integers(1, 6))
def test_an_ensemble_gives_probabilities_whatever_the_order_of_its_members(rule, seed, members, pictures):
    stack = posteriors(seed, members, pictures, 5)
    found = ENSEMBLES[rule](stack)
    assert found.shape == (pictures, 5)
    assert found.sum(axis=1) == pytest.approx(np.ones(pictures))
    assert ENSEMBLES[rule](stack[::-1]) == pytest.approx(found)


@given(st.sampled_from(["mean", "confidence"]), SEEDS)
def test_members_that_agree_are_their_ensemble(rule, seed):
    p = posteriors(seed, 6, 5)
    assert ENSEMBLES[rule]([p, p, p]) == pytest.approx(p)


def test_each_rule_on_three_members_by_hand():
    members = [[[0.6, 0.4]], [[0.6, 0.4]], [[0.1, 0.9]]]
    assert mean(members)[0] == pytest.approx([1.3 / 3, 1.7 / 3])
    assert mean_by_confidence(members)[0] == pytest.approx([(0.36 + 0.36 + 0.09) / 2.1, (0.24 + 0.24 + 0.81) / 2.1])
    assert majority(members)[0] == pytest.approx([2 / 3, 1 / 3])


def test_a_member_that_cannot_decide_splits_its_vote():
    assert majority([[[0.4, 0.4, 0.2]], [[0.0, 1.0, 0.0]]])[0] == pytest.approx([0.25, 0.75, 0.0])


@given(hnp.arrays(np.float64, (2, 7, 3), elements=st.sampled_from([0.0, 0.1, 0.5, 0.9])))
def test_a_rank_is_the_share_of_pictures_below_and_half_of_those_level(members):
    """pandas' rank(pct=True), counted pair by pair."""
    below = (members[:, None, :, :] < members[:, :, None, :]).sum(axis=2)
    level = (members[:, None, :, :] == members[:, :, None, :]).sum(axis=2)
    assert mean_rank(members) == pytest.approx(((below + (level + 1) / 2) / 7).mean(axis=0))


@given(SEEDS)
def test_ranks_do_not_care_for_a_members_scale(seed):
    stack = posteriors(seed, 2, 8, 3)
    assert mean_rank([stack[0] ** 3, stack[1]]) == pytest.approx(mean_rank(stack))


def picture(rows, columns, seed=0):
    """Draw a picture of noise."""
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def test_zoomed_views_are_the_corners_and_their_mirror_images():
    image = picture(135, 270)
    views = zoomed_views(image)
    corners = [image[:100, :200], image[35:, :200], image[:100, 70:], image[35:, 70:]]
    assert len(views) == 8
    for view, corner in zip(views, [*corners, *(c[:, ::-1] for c in corners)], strict=True):
        assert np.array_equal(view, corner)


def test_dihedral_views_are_the_eight_symmetries_of_the_square():
    views = dihedral_views(picture(5, 5))
    assert np.array_equal(views[0], picture(5, 5))
    assert len({view.tobytes() for view in views}) == 8
    for view in views:  # a group: the views of a view are the same eight
        assert {v.tobytes() for v in dihedral_views(view)} == {v.tobytes() for v in views}


def identity(images):
    """A network that gives its input back, as one long row for each picture."""
    return np.stack([image.reshape(-1) / 255.0 for image in images])


@given(SEEDS, st.floats(0, 1))
def test_views_of_an_identity_network_are_the_symmetrised_picture(seed, beta):
    image = picture(4, 4, seed)
    symmetrised = sum(np.rot90(np.float64(image) if up else np.float64(image).transpose(1, 0, 2), k)
                      for up in (True, False) for k in range(4)) / 8  # fmt: skip
    found = with_views(identity, [image], dihedral_views, beta)[0] * 255.0
    assert found == pytest.approx((beta * image + (1 - beta) * symmetrised).reshape(-1))


@given(st.floats(0, 1), st.sampled_from([zoomed_views, dihedral_views]))
def test_a_network_that_sees_no_difference_is_not_changed_by_views(beta, views):
    constant = lambda images: np.tile([0.2, 0.5, 0.3], (len(images), 1))  # noqa: E731
    found = with_views(constant, [picture(9, 9), picture(30, 20)], views, beta)
    assert found == pytest.approx(np.tile([0.2, 0.5, 0.3], (2, 1)))


def test_without_crops_there_are_no_probabilities():
    assert with_views(lambda images: np.empty((len(images), 3)), []).shape == (0, 3)

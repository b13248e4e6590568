"""Esteva's partition: the published fixtures, the losses of the algorithm as printed, and sums over classes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import RESEARCH, needs_research, trees

from derma_common.errors import ConfigError
from derma_common.taxonomy import Node, TrainingClass, Tree, infer, partition, read_tree

PATHS = ("three_partition_label", "nine_partition_label", "label")


@pytest.fixture(scope="module")
def fitzpatrick():
    return read_tree(RESEARCH / "fitzpatrick17k_taxonomy.csv", PATHS, "count")


def kept(classes):
    """Return the number of pictures in all classes."""
    return sum(trained.images for trained in classes)


@needs_research
@pytest.mark.parametrize(
    ("max_images", "classes", "images"),
    [(1000, 101, 16577), (1100, 90, 16577), (2000, 77, 16577), (20000, 1, 16577), (500, 110, 15343), (200, 94, 9511)],
)
def test_strictly_as_printed_the_algorithm_cuts_fitzpatrick17k_as_published(fitzpatrick, max_images, classes, images):
    found = partition(fitzpatrick, max_images, strict=True)
    assert (len(found), kept(found)) == (classes, images)


@needs_research
@pytest.mark.parametrize(("max_images", "lost_leaves"), [(1000, 0), (500, 2), (200, 20)])
def test_leaves_that_are_lost_as_printed_become_classes(fitzpatrick, max_images, lost_leaves):
    strict, found = partition(fitzpatrick, max_images, strict=True), partition(fitzpatrick, max_images)
    assert len(found) - len(strict) == lost_leaves
    assert kept(found) == 16577


@given(trees(), st.integers(1, 400))
def test_every_picture_is_in_exactly_one_class(tree, max_images):
    classes = partition(tree, max_images)
    members = [node for trained in classes for node in trained.members]
    assert len(members) == len(set(members))
    assert kept(classes) == tree.images(tree.root)
    for trained in classes:
        assert trained.images == sum(tree.nodes[node].images for node in trained.members) > 0
        assert trained.images < max_images or trained.members == (trained.node,)


@given(trees(), st.integers(1, 400))
def test_strictly_every_class_is_a_largest_subtree_below_the_limit(tree, max_images):
    classes = {trained.node for trained in partition(tree, max_images, strict=True)}
    for node in tree.nodes:
        above = tree.lineage(node)[1:]
        largest = tree.images(node) < max_images and all(tree.images(other) >= max_images for other in above)
        assert (node in classes) == largest


def test_pictures_attached_to_a_large_inner_node_become_a_class_of_that_node_alone():
    tree = Tree([Node("all", images=4), Node("a", "all", 10), Node("b", "all", 3)])
    assert partition(tree, 5) == [
        TrainingClass("all", ("all",), 4), TrainingClass("a", ("a",), 10), TrainingClass("b", ("b",), 3),
    ]  # fmt: skip
    assert partition(tree, 5, strict=True) == [TrainingClass("b", ("b",), 3)]


def test_a_limit_that_is_not_positive_is_refused():
    with pytest.raises(ConfigError, match="must be positive, not 0"):
        partition(Tree([Node("all")]), 0)


def test_the_benign_probability_of_the_papers_figure_is_six_tenths():
    """Esteva et al. 2017, Extended Data Figure 1."""
    benign, malignant = (0.1, 0.05, 0.05, 0.3, 0.02, 0.03, 0.05), (0.2, 0.15, 0.05)
    leaves = [("benign", i) for i in range(len(benign))] + [("malignant", i) for i in range(len(malignant))]
    nodes = [Node(f"{group}{i}", group, 10) for group, i in leaves]
    tree = Tree([Node("all"), Node("benign", "all"), Node("malignant", "all"), *nodes])
    found = infer([[*benign, *malignant]], tree, partition(tree, 11), ["benign", "malignant"])
    assert found == pytest.approx(np.asarray([[0.6, 0.4]]), abs=1e-15)


@given(trees(), st.integers(1, 400), st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_inference_at_a_level_keeps_all_probability_but_that_of_pictures_above_it(tree, max_images, depth, seed):
    classes = partition(tree, max_images)
    posterior = np.random.default_rng(seed).dirichlet(np.ones(max(1, len(classes))), 5)[:, : len(classes)]
    level = tree.level(depth)
    above = [k for k, c in enumerate(classes) if not any(node in tree.lineage(c.node) for node in level)]
    if any(len(classes[k].members) > 1 for k in above):
        with pytest.raises(ConfigError, match="coarser than the inference class"):
            infer(posterior, tree, classes, level)
    else:
        found = infer(posterior, tree, classes, level)
        assert found.sum(axis=1) == pytest.approx(posterior.sum(axis=1) - posterior[:, above].sum(axis=1))


@needs_research
def test_three_classes_are_the_sums_of_nine(fitzpatrick):
    classes = partition(fitzpatrick, 200)
    posterior = np.random.default_rng(0).dirichlet(np.ones(len(classes)), 20)
    three, nine = (infer(posterior, fitzpatrick, classes, fitzpatrick.level(d)) for d in (1, 2))
    assert (three.shape, nine.shape) == ((20, 3), (20, 9))
    parents = [fitzpatrick.nodes[node].parent for node in fitzpatrick.level(2)]
    for column, node in enumerate(fitzpatrick.level(1)):
        below = [i for i, parent in enumerate(parents) if parent == node]
        assert nine[:, below].sum(axis=1) == pytest.approx(three[:, column])

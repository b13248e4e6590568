"""Three-way and nine-way validation over folds, and the command that cuts a tree."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.trees import RESEARCH, needs_research

from derma_common.errors import ConfigError
from derma_common.taxonomy import Node, Tree, partition
from derma_training.classifier.commands.partition import main
from derma_training.classifier.partition import Fold, validate

LEAVES = ("a1", "a2", "b1", "b2")
TREE = Tree([Node("all"), Node("a", "all"), Node("b", "all"), *(Node(leaf, leaf[0], 10) for leaf in LEAVES)])
CLASSES = partition(TREE, 11)


def certain(*answers):
    """Return a posterior that gives each answer the probability 1."""
    return np.asarray([[float(c.node == answer) for c in CLASSES] for answer in answers])


def test_a_fold_of_right_answers_has_accuracy_one():
    found = validate([Fold(certain(*LEAVES), LEAVES)], TREE, CLASSES, TREE.level(2))
    assert (found.folds, found.mean, found.sd) == ((1.0,), 1.0, 0.0)


def test_a_wrong_disease_of_the_right_group_is_right_at_the_group():
    fold = Fold(certain("a2", "a1", "b1", "b1"), LEAVES)
    assert validate([fold], TREE, CLASSES, TREE.level(1)).mean == 1.0
    assert validate([fold], TREE, CLASSES, TREE.level(2)).mean == 0.25


def test_the_group_with_the_largest_sum_is_chosen_not_that_of_the_largest_class():
    fold = Fold([[0.3, 0.3, 0.4, 0.0]], ["a1"])
    assert validate([fold], TREE, CLASSES, TREE.level(1)).mean == 1.0


def test_accuracy_is_the_mean_over_classes_whatever_their_size():
    truth = ["a1"] * 9 + ["b1"]
    assert validate([Fold(certain(*["a1"] * 10), truth)], TREE, CLASSES, TREE.level(1)).mean == 0.5


def test_folds_are_summed_up_by_mean_and_sample_standard_deviation():
    folds = [Fold(certain(*answers), ["a1", "b1"]) for answers in (("a1", "b1"), ("a1", "a1"), ("b1", "a1"))]
    found = validate(folds, TREE, CLASSES, TREE.level(1))
    assert (found.folds, found.mean, found.sd) == ((1.0, 0.5, 0.0), 0.5, 0.5)


@pytest.mark.parametrize(("truth", "says"), [("c", "no node 'c'"), ("all", "'all' is below 0 of the inference")])
def test_a_truth_that_is_no_inference_class_is_refused(truth, says):
    with pytest.raises(ConfigError, match=says):
        validate([Fold(certain("a1"), [truth])], TREE, CLASSES, TREE.level(1))


def test_no_fold_is_refused():
    with pytest.raises(ConfigError, match="at least one fold"):
        validate([], TREE, CLASSES, TREE.level(1))


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "tree.csv"
    path.write_text("group,label,n\nbenign,nevus,30\nbenign,wart,4\nmalignant,melanoma,50\n")
    return path


def test_the_command_prints_classes_and_what_is_lost(table, capsys):
    arguments = [str(table), "--levels", "group,label", "--count", "n", "--max", "40"]
    main(arguments)
    out, err = capsys.readouterr()
    assert [line.strip() for line in out.splitlines()] == ["34  benign = nevus, wart", "50  malignant:melanoma"]
    assert err == "2 classes, 84 of 84 pictures, 0 lost\n"
    main([*arguments, "--strict", "--json"])
    assert json.loads(capsys.readouterr().out) == {
        "images": 84, "lost": 50,
        "classes": [{"class": "benign", "images": 34, "members": ["benign:nevus", "benign:wart"]}],
    }  # fmt: skip


@needs_research
def test_the_command_cuts_fitzpatrick17k_into_101_classes(capsys):
    levels = "three_partition_label,nine_partition_label,label"
    main([str(RESEARCH / "fitzpatrick17k_taxonomy.csv"), "--levels", levels, "--count", "count", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["lost"], len(found["classes"])) == (16577, 0, 101)

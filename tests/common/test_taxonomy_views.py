"""Views: sums of one posterior in other people's classes, and nothing dangerous under a harmless name."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_common.errors import ConfigError
from derma_common.taxonomy import View, common_view, find_view, known_views, known_vocabulary, view

ISIC = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
DOCS = Path(__file__).resolve().parents[2] / "docs"
POSTERIOR = np.asarray([[0.05, 0.30, 0.10, 0.07, 0.11, 0.02, 0.03, 0.12, 0.20]])


def in_view(name):
    """Return class -> probability of POSTERIOR in a view."""
    return dict(zip(find_view(name).classes, view(POSTERIOR, ISIC, name)[0].round(12), strict=True))


@pytest.mark.parametrize("name", known_views())
@pytest.mark.parametrize("dangerous", ["MEL", "BCC", "SCC", "AK", "AKIEC", "melanoma", "actinic keratosis"])
def test_nothing_dangerous_falls_under_a_harmless_class(name, dangerous):
    harmless = {"benign", "NV", "NEV", "BKL", "SEK", "DF", "VASC"}
    try:
        assert find_view(name).place(dangerous) not in harmless
    except ConfigError as error:
        assert "coarser" in str(error) and not any(repr(word) in str(error).split("may be")[1] for word in harmless)


def test_the_live_classes_are_sums():
    assert in_view("live") == {
        "benign": 0.46, "suspicious for melanoma": 0.05, "other suspicious": 0.29, "unknown": 0.2,
    }  # fmt: skip


def test_the_blogs_three_put_what_is_neither_benign_nor_melanoma_under_unknown():
    assert in_view("blog") == {"benign": 0.46, "unknown": 0.49, "melanoma": 0.05}


def test_ham10000_adds_ak_and_scc_and_has_no_place_for_unk():
    assert in_view("ham10000") == {
        "AKIEC": 0.19, "BCC": 0.1, "BKL": 0.11, "DF": 0.02, "MEL": 0.05, "NV": 0.3, "VASC": 0.03,
    }  # fmt: skip


def test_pad_ufes_20_renames():
    assert in_view("pad-ufes-20") == {"ACK": 0.07, "BCC": 0.1, "MEL": 0.05, "NEV": 0.3, "SCC": 0.12, "SEK": 0.11}


def test_isic_2019_seen_in_its_own_classes_is_unchanged():
    assert np.array_equal(view(POSTERIOR, ISIC, "isic2019"), POSTERIOR)


@given(st.sampled_from(["live", "isic2019", "blog"]), st.permutations(ISIC), st.integers(0, 2**32 - 1))
def test_a_view_with_a_place_for_all_keeps_all_probability_in_any_order_of_classes(name, order, seed):
    posterior = np.random.default_rng(seed).dirichlet(np.ones(len(ISIC)), 4)
    found = view(posterior, ISIC, name)
    assert found.sum(axis=1) == pytest.approx(np.ones(4))
    assert view(posterior[:, [ISIC.index(c) for c in order]], order, name) == pytest.approx(found)


def test_a_view_of_a_view_is_the_view():
    first = view(POSTERIOR, ISIC, "live")
    assert view(first, find_view("live").classes, "blog") == pytest.approx(view(POSTERIOR, ISIC, "blog"))


@pytest.mark.parametrize(
    ("name", "labels", "classes"),
    [
        ("isic2019", ["nevus", "Melanoma", "ACK", "SEK", "solar_lentigo", "unknown"], "NV MEL AK BKL BKL UNK"),
        ("ham10000", ["akiec", "AK", "SCC", "nv"], "AKIEC AKIEC AKIEC NV"),
        ("pad-ufes-20", ["seborrheic keratosis", "NV", "actinic keratosis"], "SEK NEV ACK"),
        ("blog", ["nevus", "scc", "melanoma"], "benign unknown melanoma"),
    ],
)
def test_labels_of_other_tables_find_their_class(name, labels, classes):
    found = find_view(name)
    assert [found.classes[i] for i in found.indices(labels)] == classes.split()


def test_a_label_that_a_view_cannot_decide_on_is_refused():
    with pytest.raises(ConfigError, match="'akiec' is coarser than the view 'isic2019': it may be 'AK' or 'SCC'"):
        find_view("isic2019").indices(["nv", "akiec"])


def test_a_label_without_a_place_is_refused():
    with pytest.raises(ConfigError, match="the view 'ham10000' has no class for the label 'UNK'"):
        find_view("ham10000").indices(["UNK"])


def test_a_word_nobody_knows_is_refused_with_those_that_are_known():
    with pytest.raises(ConfigError, match=r"knows no class 'wart', only anything, benign, NV.*docs/taxonomy"):
        view([[1.0]], ["wart"], "live")


def test_a_model_with_ak_and_scc_and_a_table_with_akiec_meet_at_akiec():
    found = common_view(ISIC, ["akiec", "nv", "bcc", "mel"])
    assert found.classes == ("MEL", "NV", "BCC", "BKL", "DF", "VASC", "UNK", "AKIEC")
    assert found.of(POSTERIOR, ISIC)[0, -1] == pytest.approx(0.19)
    assert found.classes[found.indices(["akiec"])[0]] == "AKIEC"


def test_a_model_of_three_classes_meets_a_table_of_nine_at_its_own():
    found = common_view(["benign", "unknown", "melanoma"], ISIC)
    assert found.classes == ("benign", "unknown", "melanoma", "AK", "BCC", "SCC")
    assert [found.classes[i] for i in found.indices(["NV", "MEL", "BCC"])] == ["benign", "melanoma", "BCC"]


NODES = sorted(known_vocabulary().tree.nodes)


@given(st.lists(st.sampled_from(NODES), min_size=1), st.lists(st.sampled_from(NODES)))
def test_all_classes_and_all_labels_have_a_place_in_their_common_view(classes, labels):
    found = common_view(classes, labels)
    assert found.membership(classes).sum(axis=1) == pytest.approx(np.ones(len(classes)))
    tree = found.vocabulary.tree
    for label, index in zip(labels, found.indices(labels), strict=True):
        held = found.vocabulary.node(found.classes[index])
        assert held in tree.lineage(label)
        assert not set(tree.lineage(held)[1:]) & {*classes, *labels}
    assert not any(
        a in tree.lineage(b) for a, b in itertools.permutations(map(found.vocabulary.node, found.classes), 2)
    )


def test_every_alias_of_the_known_classes_stands_for_its_node():
    vocabulary = known_vocabulary()
    for node in vocabulary.tree.nodes.values():
        assert {vocabulary.node(word.upper()) for word in (node.id, *node.aliases)} == {node.id}


def written(tmp_path, document):
    """Write a taxonomy file and return its path as text."""
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(document))
    return str(path)


def test_a_users_file_brings_a_view_over_dermas_tree(tmp_path):
    file = written(
        tmp_path, {"views": {"binary": {"melanoma": ["MEL"], "rest": ["benign", "other suspicious", "UNK"]}}}
    )
    assert view(POSTERIOR, ISIC, file) == pytest.approx(np.asarray([[0.05, 0.95]]))


def test_a_users_file_brings_its_own_tree_and_several_views(tmp_path):
    nodes = [{"id": "all"}, {"id": "wart", "parent": "all"}, {"id": "mole", "parent": "all", "aliases": ["naevus"]}]
    file = written(
        tmp_path, {"nodes": nodes, "views": {"one": {"any": ["all"]}, "two": {"w": ["wart"], "m": ["mole"]}}}
    )
    assert view([[0.3, 0.7]], ["naevus", "wart"], file + "#two") == pytest.approx(np.asarray([[0.7, 0.3]]))
    with pytest.raises(ConfigError, match=r"name one view of .*mine\.json, as .*#NAME: it has one, two"):
        find_view(file)


DOCUMENTED = re.findall(r"```json\n(.*?)```", (DOCS / "taxonomy.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("text", DOCUMENTED, ids=range(len(DOCUMENTED)))
def test_a_documented_file_holds_the_view_it_shows(tmp_path, text):
    view_of_it = find_view(written(tmp_path, json.loads(text)))
    assert [view_of_it.name] == list(json.loads(text)["views"])


def test_the_documented_views_are_those_there_are():
    rows = re.findall(r"^\| `([^`]+)` \|", (DOCS / "taxonomy.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == list(known_views())


def test_a_view_that_does_not_exist_is_refused_with_those_that_do():
    with pytest.raises(ConfigError, match="there is no view 'lives': neither one of live, isic2019, ham10000"):
        find_view("lives")


@pytest.mark.parametrize(
    ("views", "says"),
    [
        ({}, "needs views"),
        ({"v": {}}, "view 'v': there are no classes"),
        ({"v": {"a": []}}, "or one has no nodes"),
        ({"v": {"a": "MEL"}}, "must give each class a list of nodes"),
        ({"v": {"a": ["MEL"], "b": ["suspicious"]}}, "MEL is in two classes, 'a' and 'b'"),
        ({"v": {"a": ["wart"]}}, "knows no class 'wart'"),
        ({"v": {"benign": ["benign", "BCC"]}}, "BCC is not benign and must not be called 'benign'"),
        ({"v": {"Benign lesions": ["AK"]}}, "AK is not benign and must not be called 'Benign lesions'"),
        ({"v": {"nevus": ["NV", "MEL"]}}, "MEL is not benign and must not be called 'nevus'"),
    ],
)
def test_a_view_that_cannot_be_is_refused(tmp_path, views, says):
    with pytest.raises(ConfigError, match=says):
        find_view(written(tmp_path, {"views": views}))


def test_a_class_of_which_a_view_holds_only_a_part_is_too_coarse():
    partly = View("partly", known_vocabulary(), {"a": ["SK"], "b": ["NV"]})
    with pytest.raises(ConfigError, match="it may be 'a' or none of its classes"):
        partly.of([[1.0]], ["BKL"])


def test_one_word_for_two_nodes_is_refused(tmp_path):
    nodes = [{"id": "all"}, {"id": "NV", "parent": "all"}, {"id": "MEL", "parent": "all", "aliases": ["nv"]}]
    with pytest.raises(ConfigError, match="'nv' stands for two nodes of the tree, 'NV' and 'MEL'"):
        find_view(written(tmp_path, {"nodes": nodes, "views": {"v": {"a": ["all"]}}}))

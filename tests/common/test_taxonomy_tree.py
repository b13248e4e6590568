"""Trees: what they say of themselves, how they are read, and how a broken one is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.trees import RESEARCH, needs_research, trees

from derma_common.errors import ConfigError
from derma_common.taxonomy import Node, Tree, read_tree


@given(trees())
def test_a_nodes_pictures_are_its_own_and_its_childrens(tree):
    for node in tree.nodes.values():
        assert tree.images(node.id) == node.images + sum(map(tree.images, tree.children(node.id)))


@given(trees())
def test_descendants_are_exactly_the_nodes_whose_lineage_holds_the_node(tree):
    for node in tree.nodes:
        below = tree.descendants(node)
        assert len(below) == len(set(below))
        assert set(below) == {other for other in tree.nodes if node in tree.lineage(other)}


@given(trees(), st.integers(0, 6))
def test_every_leaf_is_below_exactly_one_node_of_a_level(tree, depth):
    level = tree.level(depth)
    for leaf in tree.leaves(tree.root):
        assert len([node for node in level if node in tree.lineage(leaf)]) == 1 or len(tree.lineage(leaf)) - 1 > depth


def test_a_chain_of_ten_thousand_nodes_is_walked_without_recursion():
    chain = Tree([Node("0"), *(Node(str(i), str(i - 1), 1) for i in range(1, 10_000))])
    assert chain.images("0") == 9_999
    assert len(chain.lineage("9999")) == 10_000


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ([], "the tree has no nodes"),
        ([Node("a"), Node("b")], "the tree has 2 roots, 'a', 'b': give them one parent"),
        ([Node("a"), Node("b", "a"), Node("b", "a")], "two nodes with the id 'b'"),
        ([Node("a"), Node("b", "c")], "node 'b' has the parent 'c', which is not in the tree"),
        ([Node("a", "b"), Node("b", "a")], "no root, but a cycle: a < b < a"),
        ([Node("r"), Node("x", "a"), Node("a", "b"), Node("b", "a")], "has a cycle: a < b < a"),
        ([Node("a", "a")], "no root, but a cycle: a < a"),
        ([Node("a", images=-1)], "a count cannot be negative"),
        ([Node("")], "a node of the tree has no id"),
    ],
)
def test_a_broken_tree_is_refused_with_what_is_wrong(nodes, says):
    with pytest.raises(ConfigError, match=says):
        Tree(nodes)


def written(tmp_path, name, text):
    """Write a file and return its path."""
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_one_tree_is_read_alike_from_three_layouts(tmp_path):
    nodes = written(tmp_path, "nodes.csv", "id,parent,images\nall,,\na,all,1\na:b,a,5\nc,all,7\n")
    paths = written(tmp_path, "paths.csv", "count,big,small\n1,a,\n5,a,b\n7,c,\n")
    document = [{"id": "all"}, {"id": "a", "parent": "all", "images": 1}, {"id": "a:b", "parent": "a", "images": 5}]
    document.append({"id": "c", "parent": "all", "images": 7})
    as_json = written(tmp_path, "nodes.json", json.dumps({"nodes": document}))
    trees = [read_tree(nodes), read_tree(paths, ["big", "small"], "count"), read_tree(as_json)]
    assert trees[0].nodes == trees[1].nodes == trees[2].nodes
    assert trees[0].images("all") == 13


def test_without_a_count_each_row_of_paths_is_a_picture(tmp_path):
    tree = read_tree(
        written(tmp_path, "p.csv", "group,label,file\na,b,1.jpg\na,b,2.jpg\na,,3.jpg\n"), ["group", "label"]
    )
    assert {node.id: node.images for node in tree.nodes.values()} == {"all": 0, "a": 1, "a:b": 2}


def test_aliases_are_read_from_a_table(tmp_path):
    tree = read_tree(written(tmp_path, "n.csv", "id,parent,aliases\nall,,\nNV,all,nevus; naevus ;\n"))
    assert tree.nodes["NV"].aliases == ("nevus", "naevus")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("t.csv", "label,count\na,1\n", r"t\.csv has no columns id and parent; .* \(it has label, count\)"),
        ("t.csv", "", "has no columns id and parent"),
        ("t.csv", "id,parent\na,,3\n", "line 2 has 3 fields, the header has 2"),
        ("t.csv", "id,parent\n\na\n", "line 3 has 1 fields, the header has 2"),
        ("t.csv", 'id,parent\n"a,\n', "is no table"),
        ("t.csv", "id,parent,images\na,,many\n", "line 2: 'many' is no number of pictures"),
        ("t.csv", "id,parent,images\na,,-4\n", "'-4' is no number of pictures"),
        ("t.csv", "id,parent\na,\na,\n", r"t\.csv: the tree has two nodes with the id 'a'"),
        ("t.json", "[1]", "must hold one JSON object"),
        ("t.json", "{", "is no JSON document"),
        ("t.json", '{"nodes": 3}', "needs nodes, a list of objects"),
        ("t.json", '{"nodes": [], "nodes": []}', "'nodes' occurs twice in one object"),
        ("t.json", '{"nodes": [{"id": 3}]}', "node 1: id and parent are texts"),
        ("t.json", '{"nodes": [{"id": "a", "aliases": [1]}]}', "node 1: aliases are texts"),
        ("t.json", '{"nodes": [{"id": "a", "images": true}]}', "node 1: True is no number of pictures"),
        ("t.json", '{"nodes": [{"id": "a", "exclusive": 1}]}', "exclusive is true or false"),
    ],
)
def test_a_file_that_holds_no_tree_is_refused_with_the_place(tmp_path, name, text, says):
    with pytest.raises(ConfigError, match=says):
        read_tree(written(tmp_path, name, text))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("g,label,n\na,b,1\na,b,2\n", "line 3: 'a:b' has a count on an earlier line"),
        ("g,label,n\n,b,1\n", r"line 2: a path has no gaps, this one is \? / b"),
        ("g,label,n\n,,1\n", "a path has no gaps"),
        ("g,label,n\na,b:c,1\n", "':' separates the names of a path"),
        ("g,label,n\nall,b,1\n", "'all' is the root"),
        ("g,label,n\na,b,\nc,,x\n", "line 3: 'x' is no number of pictures"),
        ("g,name,n\na,b,1\n", r"has no column 'label' \(it has g, name, n\)"),
        ("g,label\na,b\n", "has no column 'n'"),
    ],
)
def test_a_table_of_paths_that_is_no_tree_is_refused_with_the_line(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says):
        read_tree(written(tmp_path, "p.csv", text), ["g", "label"], "n")


def test_a_file_that_is_not_there_or_no_text_is_refused(tmp_path):
    for name in ("no.csv", "no.json"):
        with pytest.raises(ConfigError, match=r"cannot be read: No such file"):
            read_tree(tmp_path / name)
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is no table"):
        read_tree(tmp_path / "b.csv")


@needs_research
def test_the_isic_diagnosis_hierarchy_is_read_whole():
    levels = [f"diagnosis_{i}" for i in range(1, 6)]
    tree = read_tree(RESEARCH / "isic_diagnosis_taxonomy.csv", levels)
    depths = [len(tree.lineage(node)) - 1 for node in tree.nodes]
    assert [depths.count(d) for d in range(6)] == [1, 3, 41, 200, 137, 37]
    assert len(tree.leaves(tree.root)) == 326
    assert {node: len(tree.descendants(node)) for node in tree.level(1)} == {
        "Benign": 233, "Malignant": 165, "Indeterminate": 20,
    }  # fmt: skip

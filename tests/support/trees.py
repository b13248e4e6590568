"""Drawn trees of diseases, and where the public ones lie if this machine has them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import strategies as st

from derma_common.taxonomy import Node, Tree

RESEARCH = Path(__file__).resolve().parents[3] / "shared" / "research"
needs_research = pytest.mark.skipif(not RESEARCH.is_dir(), reason="the public taxonomies are not on this machine")


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Draw a tree of up to 30 nodes with up to 50 pictures attached to each."""
    images = draw(st.lists(st.integers(0, 50), min_size=1, max_size=30))
    parents = ["", *(f"n{draw(st.integers(0, i - 1))}" for i in range(1, len(images)))]
    nodes = [Node(f"n{i}", parent, n) for i, (parent, n) in enumerate(zip(parents, images, strict=True))]
    return Tree(draw(st.permutations(nodes)))

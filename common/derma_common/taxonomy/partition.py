"""Training classes cut out of a tree, and inference classes summed over it (Esteva et al. 2017).

A disease with few pictures is trained together with its relatives, one with many alone; what is asked of the
network afterwards, three classes or nine, is a sum over what it was trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from derma_common.errors import ConfigError
from derma_common.taxonomy.tree import Tree

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrainingClass:
    """The pictures that are trained as one class.

    `node` gives the name; `members` are the nodes whose own pictures belong to it: `node` and all its descendants,
    or `node` alone.
    """

    node: str
    members: tuple[str, ...]
    images: int


def partition(tree: Tree, max_images: int, strict: bool = False) -> list[TrainingClass]:
    """Cut a tree into classes of fewer than `max_images` pictures (Esteva et al. 2017, Extended Data Table 1).

    From the root down, a node becomes a class with all its descendants as soon as these have fewer than
    `max_images` pictures. As printed, the algorithm loses pictures in silence: those of a leaf with `max_images` or
    more, and those attached to an inner node that is too large. Here both become classes of that node alone, which
    may reach `max_images` or more; every picture is in exactly one class, and a class without pictures is left out.
    `strict` gives the algorithm as printed, losses and empty classes included.

    Raises ConfigError when `max_images` is not positive.
    """
    if max_images < 1:
        raise ConfigError(f"the largest number of pictures of a class must be positive, not {max_images}")
    classes, waiting = [], [tree.root]
    while waiting:
        node = waiting.pop()
        images = tree.images(node)
        if images < max_images:
            classes.append(TrainingClass(node, tree.descendants(node), images))
            continue
        if not strict:
            classes.append(TrainingClass(node, (node,), tree.nodes[node].images))
        waiting.extend(reversed(tree.children(node)))
    return classes if strict else [c for c in classes if c.images]


def infer(posterior: npt.ArrayLike, tree: Tree, classes: Sequence[TrainingClass], nodes: Sequence[str]) -> Array:
    """Return probabilities (N, M) of inference classes `nodes` from those (N, K) of training classes.

    P(u) is the sum over the training classes that descend from u (Esteva et al. 2017, Methods). Rows sum to what the
    training classes below `nodes` sum to: to 1 for `nodes` = `tree.level(d)`, unless pictures attached to a node
    above that level were a class. Raises ConfigError for a training class that is coarser than an inference class.
    """
    return np.asarray(posterior, dtype=np.float64) @ membership(tree, classes, nodes)


def membership(tree: Tree, classes: Sequence[TrainingClass], nodes: Sequence[str]) -> Array:
    """Return (K, M), 1 where a training class descends from an inference class and 0 elsewhere; raises as `infer`."""
    matrix = np.zeros((len(classes), len(nodes)))
    for row, trained in enumerate(classes):
        line = tree.lineage(trained.node)
        for column, node in enumerate(nodes):
            if node in line:
                matrix[row, column] = 1.0
            elif node in trained.members:
                raise ConfigError(
                    f"training class {trained.node!r} is coarser than the inference class {node!r}: ask for a level "
                    "nearer the root, or train with a smaller largest class"
                )
    return matrix

"""What kinds of skin lesions there are, and what one set of classes says in the words of another."""

from derma_common.taxonomy.partition import TrainingClass, infer, membership, partition
from derma_common.taxonomy.reading import read_tree
from derma_common.taxonomy.tree import Node, Tree
from derma_common.taxonomy.views import View, common_view, find_view, known_views, known_vocabulary, read_views, view
from derma_common.taxonomy.vocabulary import Vocabulary

__all__ = [
    "Node", "TrainingClass", "Tree", "View", "Vocabulary", "common_view", "find_view", "infer", "known_views",
    "known_vocabulary", "membership", "partition", "read_tree", "read_views", "view",
]  # fmt: skip

"""Labelled pictures: four formats of files in, one type out, and a report of what is wrong with them."""

from derma_training.detector.annotations.annotated import NO_BOXES, Annotated, Decoded
from derma_training.detector.annotations.reading import Annotations, read_annotations
from derma_training.detector.annotations.report import Problem, Report

__all__ = ["NO_BOXES", "Annotated", "Annotations", "Decoded", "Problem", "Report", "read_annotations"]

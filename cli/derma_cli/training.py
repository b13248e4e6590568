"""`derma data`, `derma train`, `derma evaluate`: hand over to the programs of `derma_training`, in this process.

The CLI imports nothing of training: torch stays out of every other command, and a program's own `--help` and
exit status are the user's.
"""

from __future__ import annotations

import os
import sys

import typer

HELP = {"-h", "--help"}
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

data = typer.Typer(help="Prepare pictures and labels for training.", no_args_is_help=True)
train = typer.Typer(help="Train a model (needs the `train` extra).", no_args_is_help=True)
evaluate = typer.Typer(help="Measure a model on labelled pictures.", no_args_is_help=True)


def _train(package: str, arguments: list[str]) -> None:
    if not HELP & set(arguments):
        print("loading PyTorch", file=sys.stderr)  # which takes seconds
    _become(package, "train", arguments)


def _become(package: str, verb: str, arguments: list[str]) -> None:
    """Replace this process by `python -m derma_training.PACKAGE VERB ARGUMENTS`."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", f"derma_training.{package}", verb, *arguments])


@data.command("prepare", context_settings=_PASS_ON)
def prepare(context: typer.Context) -> None:
    """From a folder and its table to a checked manifest with lesion-grouped splits."""
    _become("classifier", "prepare", context.args)


@data.command("partition", context_settings=_PASS_ON)
def partition(context: typer.Context) -> None:
    """Make training classes from a taxonomy, each of at most so many pictures."""
    _become("classifier", "partition", context.args)


@data.command("draw", context_settings=_PASS_ON)
def draw(context: typer.Context) -> None:
    """Draw wide-field skin scenes with exact boxes."""
    _become("detector", "draw", context.args)


@data.command("mine", context_settings=_PASS_ON)
def mine(context: typer.Context) -> None:
    """Collect what a detector wrongly finds on pictures without lesions."""
    _become("detector", "mine", context.args)


@train.command("detector", context_settings=_PASS_ON)
def train_detector(context: typer.Context) -> None:
    """Train a YOLOv4 lesion detector on a folder of annotated pictures."""
    _train("detector", context.args)


@train.command("classifier", context_settings=_PASS_ON)
def train_classifier(context: typer.Context) -> None:
    """Train a lesion classifier on a prepared manifest."""
    _train("classifier", context.args)


@evaluate.command("detector", context_settings=_PASS_ON)
def evaluate_detector(context: typer.Context) -> None:
    """AP, recall, precision and false positives of a detector."""
    _become("detector", "evaluate", context.args)


@evaluate.command("classifier", context_settings=_PASS_ON)
def evaluate_classifier(context: typer.Context) -> None:
    """Accuracy, balanced accuracy, AUC and calibration of a classifier."""
    _become("classifier", "evaluate", context.args)

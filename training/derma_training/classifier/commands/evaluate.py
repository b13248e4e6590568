"""Measure classifiers on labelled pictures: a table `file,label`, paths beside it, and maybe columns to group by."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

from derma_common.posterior import ENSEMBLES
from derma_common.settings import ClassifierSettings
from derma_training.classifier.evaluation.cards import card_figures, card_folder, write_card_figures
from derma_training.classifier.evaluation.classes import Unplaced
from derma_training.classifier.evaluation.document import document_of
from derma_training.classifier.evaluation.measure import Request, judge
from derma_training.classifier.evaluation.predict import Tta
from derma_training.classifier.evaluation.submission import write_submission
from derma_training.classifier.evaluation.text import as_text

DEFAULT_MODEL = ClassifierSettings().model


def main(arguments: list[str]) -> None:
    """Measure classifiers. Raises UserError."""
    options = parser().parse_args(arguments)
    request = request_of(options)
    card = card_folder(request.models) if options.write else None
    if options.report:
        from derma_training.classifier.evaluation.report import prepare, write_report

        prepare(options.report)
    with ExitStack() as opened:
        judged = judge(request, opened, progress)
        document = document_of(judged)
        if options.submission:
            write_submission(options.submission, judged)
        if card:
            written = write_card_figures(card, {options.write: card_figures(document)})
            print(f"derma: the figures are on {written}", file=sys.stderr)
        if options.report:
            print("derma: drawing the report", file=sys.stderr)
            print(f"derma: the report is {write_report(options.report, judged, document)}", file=sys.stderr)
    print(json.dumps(document, indent=1, ensure_ascii=False) if options.json else as_text(document))


def request_of(options: argparse.Namespace) -> Request:
    """Return what the options ask for."""
    return Request(
        labels=options.labels,
        models=tuple(options.model or [DEFAULT_MODEL]),
        images=options.images,
        label_column=options.label_column and options.label_column.lower(),
        where=tuple(options.where),
        view=options.view,
        unknown_labels=options.unknown_labels,
        whole=options.whole,
        tta=options.tta,
        rescale=options.priors == "rescale",
        ensemble=options.ensemble,
        threads=options.threads,
        group=options.group and options.group.lower(),
        by=options.by,
        draws=options.draws,
        readers=options.readers,
    )


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    parser = argparse.ArgumentParser(prog="derma evaluate classifier", description=__doc__)
    add = parser.add_argument
    add("--labels", type=Path, required=True, metavar="CSV", help="with columns file (or image) and label, or one-hot")
    add("--images", type=Path, metavar="DIR", help="where the pictures lie, if not beside the CSV")
    add("--label-column", metavar="NAME", help="the column with the label (default: label)")
    add("--where", action="append", default=[], type=condition, metavar="COLUMN=VALUE", help="only such rows")
    add("--model", action="append", metavar="M", help="name, folder or training run; several make an ensemble "
        f"(default: {DEFAULT_MODEL})")  # fmt: skip
    add("--view", metavar="NAME", help="score in the classes of a view: live, isic2019, ham10000, … or FILE#NAME")
    add("--unknown-labels", choices=get_args(Unplaced), default="error", help="rows whose label has no class")
    add("--whole", action="store_true", help="show the centre square of pictures, even where a lesion box is known")
    add("--tta", choices=get_args(Tta), default="none", help="mean over several views of each crop")
    add("--priors", choices=("as-trained", "rescale"), default="as-trained", help="rescale: as if equally frequent")
    add("--ensemble", choices=tuple(ENSEMBLES), default="mean", help="how several models are combined")
    add("--group", metavar="COLUMN", help="rows of one value are drawn together for intervals "
        "(default: patient_id, group or lesion_id)")  # fmt: skip
    add("--by", type=_names, metavar="COLUMNS", help="tables by these (default: sex,age,site,fitzpatrick where there)")
    add("--draws", type=_count, default=1000, help="of the bootstrap for 95%% intervals; 0 for none")
    add("--readers", type=Path, metavar="CSV", help="name,sensitivity,specificity[,target]: people beside the curve")
    add("--threads", type=_positive, default=len(os.sched_getaffinity(0)), help="of the networks (default: all cores)")
    add("--json", action="store_true", help="one JSON document instead of text")
    add("--report", type=Path, metavar="DIR", help="write report.html, figures.json and predictions.csv")
    add("--submission", type=Path, metavar="FILE", help="write image,MEL,NV,… as the ISIC 2019 challenge reads it")
    add("--write", metavar="TITLE", help="write the figures on the model's card, under this title")
    return parser


def condition(text: str) -> tuple[str, str]:
    """Return column and value of COLUMN=VALUE. Raises argparse.ArgumentTypeError."""
    column, equals, value = text.partition("=")
    if not (column and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not COLUMN=VALUE")
    return column.strip().lower(), value.strip()


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 0")
    return int(text)


def _positive(text: str) -> int:
    if _count(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of at least 1")
    return int(text)


def progress(done: int, of: int) -> None:
    """Say on a terminal how many pictures are done."""
    if sys.stderr.isatty():
        print(f"\r{done} of {of} pictures", end="\n" if done == of else "", file=sys.stderr, flush=True)

"""One evaluation from end to end: a table of labelled pictures and some models in, judged predictions out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from derma_common.errors import ConfigError
from derma_common.posterior import ENSEMBLES, rescale_priors
from derma_training.classifier.evaluation.classes import LEFT_OUT, Scale, Unplaced, choose_scale, place_labels
from derma_training.classifier.evaluation.figures import Scored
from derma_training.classifier.evaluation.groups import columns_to_compare, independent_groups
from derma_training.classifier.evaluation.models import Network, open_network
from derma_training.classifier.evaluation.predict import Progress, Seen, Tta, predict
from derma_training.classifier.evaluation.readers import Reader, by_target, read_readers
from derma_training.classifier.evaluation.table import Labelled, read_table

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Request:
    """What is asked for; the options of the command say what each means."""

    labels: Path
    models: tuple[str, ...]
    images: Path | None = None
    label_column: str | None = None
    where: tuple[tuple[str, str], ...] = ()
    view: str | None = None
    unknown_labels: Unplaced = "error"
    whole: bool = False
    tta: Tta = "none"
    rescale: bool = False
    ensemble: str = "mean"
    threads: int = 1
    group: str | None = None
    by: tuple[str, ...] | None = None
    draws: int = 1000
    readers: Path | None = None


@dataclass(frozen=True)
class Skipped:
    """What of the table is in no figure: rows without a label, labels without a place, pictures and why."""

    unlabelled: int
    labels: dict[str, int]
    unreadable: dict[str, str]


@dataclass(frozen=True)
class Judged:
    """N labelled pictures that could be read, and what the networks say of them.

    group_column: whose values in `scored.groups` belong together, "" when every picture stands for itself. by: name ->
    column of the table, for figures of groups. readers: target -> people.
    """

    request: Request
    networks: tuple[Network, ...]
    scale: Scale
    rows: tuple[Labelled, ...]
    seen: tuple[Seen, ...]
    scored: Scored
    group_column: str
    by: dict[str, str]
    readers: dict[str, list[Reader]]
    skipped: Skipped


def judge(request: Request, opened: ExitStack, progress: Progress = lambda done, of: None) -> Judged:
    """Read, predict and compare; the networks stay open until `opened` is closed, so that they can be asked more.

    Raises ConfigError, SourceError, ModelError.
    """
    readers = read_readers(request.readers) if request.readers else []
    table = read_table(request.labels, label_column=request.label_column, images=request.images, where=request.where)
    labelled = [row for row in table if row.label]
    if not labelled:
        raise ConfigError(f"{request.labels} has no labelled rows to measure on")
    networks = _open(request, opened)
    scale = choose_scale([n.classes for n in networks], [row.label for row in labelled], request.view)
    places = place_labels(scale, [row.label for row in labelled], request.unknown_labels)
    asked = [row for row, place in zip(labelled, places, strict=True) if place != LEFT_OUT]
    if not asked:
        raise ConfigError(f"no label of {request.labels} is one of the classes {', '.join(scale.classes)}")
    column, groups = independent_groups(asked, request.group)
    by = columns_to_compare(asked, request.by)
    predicted = predict(asked, networks, tta=request.tta, whole=request.whole, progress=progress)
    kept = list(predicted.rows)
    scored = Scored(
        scale.classes,
        combined(request, networks, predicted.seen, scale.membership),
        places[places != LEFT_OUT][kept],
        tuple(groups[i] for i in kept),
        scale.suspicious,
    )
    rows = tuple(asked[i] for i in kept)
    targets = by_target(readers, scored.targets())
    lost = Counter(row.label for row in labelled if row.label not in scale.index_of)
    skipped = Skipped(
        len(table) - len(labelled), dict(lost) if request.unknown_labels == "skip" else {}, predicted.unreadable
    )
    return Judged(request, networks, scale, rows, predicted.seen, scored, column, by, targets, skipped)


def _open(request: Request, opened: ExitStack) -> tuple[Network, ...]:
    networks = []
    for name in request.models:
        network = open_network(name, request.threads)
        opened.callback(network.close)
        if request.rescale and not network.class_counts:
            raise ConfigError(f"{network.id} says no class_counts on its card: its priors cannot be rescaled")
        networks.append(network)
    return tuple(networks)


def combined(
    request: Request,
    networks: Sequence[Network],
    seen: Sequence[Seen],
    membership: Callable[[Sequence[str]], Floats],
) -> Floats:
    """Return the ensemble's posterior (N, K); membership: a network's classes -> (C, K).

    The order is that of `derma_common.posterior`: each network's priors first, then its classes, then the ensemble.
    """
    members = []
    for network, said in zip(networks, seen, strict=True):
        counts = [network.class_counts[name] for name in network.classes] if request.rescale else []
        posterior = rescale_priors(said.probabilities, counts) if counts else said.probabilities
        members.append(posterior @ membership(network.classes))
    return ENSEMBLES[request.ensemble](np.stack(members))

"""Measure classifiers on everything held out, every way they may be asked, and write it on their cards.

    python bench/classifiers.py PLAN.toml --model A [--model B …] [--tta dihedral|steppan|none] [--write] [--json]

PLAN.toml says what is held out. Paths are relative to it, tables as `derma evaluate classifier` reads them:

    [[table]]
    title = "HAM10000 val"                           # what the figures are called
    labels = "manifest.csv"
    where = {fold = "test", source = "dermoscopy"}   # these rows (optional)
    views = ["ham10000"]                             # read in these class sets too (optional)
    whole = false                                    # show the middle of the picture, not the lesion's box (optional)
    lesions = true                                   # what unknown pictures are told from (optional)

    [[unknown]]
    labels = "unknown/labels.csv"                    # pictures labelled UNK
    where = {fold = "test", label = "UNK"}           # (optional)
    kind = "source"                                  # the column that says what each shows (optional)
    trained = ["tile"]                               # kinds that training had other pictures of (optional)

Each table is shown to each model once plainly and once with views (TTA). From that follow, for each model and for the
mean of all: plain, TTA, priors rescaled, and both. `--write` puts a model's figures on its card, the mean's on each.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tomllib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np

from derma_common.errors import ConfigError, UserError
from derma_common.shipped import model_dir
from derma_training.classifier.commands.evaluate import progress
from derma_training.classifier.evaluation.cards import card_figures, write_card_figures
from derma_training.classifier.evaluation.classes import choose_scale, place_labels, unknown_class
from derma_training.classifier.evaluation.document import document_of
from derma_training.classifier.evaluation.figures import SUSPICIOUS, Scored, all_figures, rounded
from derma_training.classifier.evaluation.measure import Judged, Request, combined, judge
from derma_training.classifier.evaluation.models import Network
from derma_training.classifier.evaluation.predict import Seen, Tta
from derma_training.classifier.evaluation.unknown import unknown_figures, unknown_scores

PLAIN = "plain"
COLUMNS = ("accuracy", "bma", "macro_auc", "ece", "suspicious_auc")
SCORES = ("p_unk", "max_softmax", "energy")


@dataclass(frozen=True)
class Table:
    """Held-out lesions, as the plan has them."""

    title: str
    labels: str
    where: dict[str, str] = field(default_factory=dict)
    views: tuple[str, ...] = ()
    whole: bool = False
    lesions: bool = False


@dataclass(frozen=True)
class Unknown:
    """Held-out pictures of none of the classes, as the plan has them."""

    labels: str
    where: dict[str, str] = field(default_factory=dict)
    kind: str = "source"
    trained: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    folder: Path  # of the plan
    models: tuple[str, ...]
    tta: Tta
    draws: int
    threads: int


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("plan", type=Path)
    parser.add_argument("--model", action="append", required=True, help="name or folder; several make an ensemble too")
    parser.add_argument("--tta", choices=get_args(Tta), default="dihedral")
    parser.add_argument("--draws", type=int, default=300, help="of the bootstrap for plain figures (300)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--write", action="store_true", help="write the figures on the models' cards")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    asked = Asked(options.plan.parent, tuple(options.model), options.tta, options.draws, options.threads)
    try:
        folders = [model_dir(name) for name in asked.models] if options.write else []
        tables, unknown = read_plan(options.plan)
        found = measure(asked, tables, unknown)
        for folder, figures in zip(folders, found["cards"], strict=False):
            print(f"classifiers: {write_card_figures(folder, figures)}", file=sys.stderr)
    except UserError as error:
        print(f"classifiers: {error}", file=sys.stderr)
        return error.exit_code
    del found["cards"]  # the same again
    print(json.dumps(found, indent=1) if options.json else as_text(found))
    return 0


def read_plan(path: Path) -> tuple[list[Table], list[Unknown]]:
    """Return the tables of lesions and of unknown pictures. Raises ConfigError."""
    try:
        plan = tomllib.loads(path.read_text(encoding="utf-8"))
        lesions = [Table(**{**entry, "views": tuple(entry.get("views", ()))}) for entry in plan["table"]]
        unknown = [
            Unknown(**{**entry, "trained": tuple(entry.get("trained", ()))}) for entry in plan.get("unknown", ())
        ]
    except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is no plan of what is held out: {error}") from error
    return lesions, unknown


def measure(asked: Asked, tables: list[Table], unknown: list[Unknown]) -> dict[str, Any]:
    """Return `tables` (title -> who -> class set -> how -> figures), `unknown`, and `cards`, one for each model."""
    found: dict[str, Any] = {}
    cards: list[dict[str, Any]] = [{} for _ in asked.models]
    known: list[tuple[Seen, ...]] = []
    for table in tables:
        print(table.title, file=sys.stderr)
        with ExitStack() as opened:
            request = request_for(asked, table.labels, table.where)
            looks = shown(replace(request, whole=table.whole), asked.tta, opened)
            plain = looks[PLAIN]
            members = members_of(plain.networks)
            found[table.title] = {who: told(looks, chosen, table.views) for who, chosen in members.items()}
            for i, (network, card) in enumerate(zip(plain.networks, cards, strict=True)):
                card[table.title] = card_figures(document_of(only(plain, [i]))) | found[table.title][network.id]
                for who in [who for who, chosen in members.items() if len(chosen) > 1]:
                    card.setdefault(who, {})[table.title] = {"n": len(plain.rows), **found[table.title][who]}
            if table.lesions:
                known.append(plain.seen)
    strange = strangers(asked, unknown, known) if unknown and known else {}
    for card, kinds in zip(cards, strange.values(), strict=False):
        card["unknown pictures, against all lesions"] = kinds
    return {"tables": found, "unknown": strange, "cards": cards}


def request_for(asked: Asked, labels: str, where: dict[str, str]) -> Request:
    """Return the request to measure all models on a table of the plan."""
    return Request(
        asked.folder / labels, asked.models, where=tuple(where.items()), by=(), draws=asked.draws, threads=asked.threads
    )


def shown(request: Request, tta: Tta, opened: ExitStack) -> dict[str, Judged]:
    """Return how -> what all models say of a table, plainly and with views."""
    ways: tuple[Tta, ...] = ("none", tta) if tta != "none" else ("none",)
    return {PLAIN if way == "none" else way: judge(replace(request, tta=way), opened, progress) for way in ways}


def only(judged: Judged, members: list[int], rescale: bool = False) -> Judged:
    """Return what some of the models say together, their priors rescaled or not."""
    request = replace(judged.request, models=tuple(judged.request.models[i] for i in members), rescale=rescale)
    networks, seen = tuple(judged.networks[i] for i in members), tuple(judged.seen[i] for i in members)
    posterior = combined(request, networks, seen, judged.scale.membership)
    scored = replace(judged.scored, probabilities=posterior)
    return replace(judged, request=request, networks=networks, seen=seen, scored=scored)


def members_of(networks: Sequence[Network]) -> dict[str, list[int]]:
    """Return who is asked: each network alone, and all together."""
    members = {network.id: [i] for i, network in enumerate(networks)}
    if len(members) > 1:
        members["mean of " + " and ".join(members)] = list(range(len(networks)))
    return members


def told(looks: dict[str, Judged], members: list[int], views: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return class set -> way of asking -> figures of some models together."""
    countable = all(looks[PLAIN].networks[i].class_counts for i in members)
    sets: dict[str, dict[str, Any]] = {}
    for view in (None, *views):
        ways = sets.setdefault(f"as {view}" if view else "ways", {})
        for rescale in (False, True) if countable else (False,):
            for how, judged in looks.items():
                scored = seen_as(only(judged, members, rescale), view)
                ways[f"{how}, priors rescaled" if rescale else how] = brief(scored)
    return sets


def seen_as(judged: Judged, view: str | None) -> Scored:
    """Return the predictions, in the classes of a view if one is named. Raises ConfigError: it is finer."""
    if view is None:
        return judged.scored
    labels = [row.label for row in judged.rows]
    scale = choose_scale([network.classes for network in judged.networks], labels, view)
    posterior = combined(judged.request, judged.networks, judged.seen, scale.membership)
    return Scored(scale.classes, posterior, place_labels(scale, labels), judged.scored.groups, scale.suspicious)


def brief(scored: Scored) -> dict[str, Any]:
    """Return the headline figures and each class's recall."""
    figures = all_figures(scored, 0)
    short = {name: figures[name] for name in ("accuracy", "bma", "macro_auc", "ece")}
    short["suspicious_auc"] = figures.get(SUSPICIOUS, {}).get("auc")
    short["recall"] = {name: row["recall"] for name, row in figures["classes"].items() if row["n"]}
    return dict(rounded(short))


def strangers(asked: Asked, tables: list[Unknown], known: list[tuple[Seen, ...]]) -> dict[str, dict[str, Any]]:
    """Return model -> kind -> how well such pictures are told from the known lesions."""
    found: dict[str, dict[str, Any]] = {}
    for table in tables:
        print(table.labels, file=sys.stderr)
        with ExitStack() as opened:
            judged = judge(request_for(asked, table.labels, table.where), opened, progress)
            kinds = np.asarray([row.columns.get(table.kind, "") or "unnamed" for row in judged.rows])
            for i, network in enumerate(judged.networks):
                lesions = joined([seen[i] for seen in known])
                for kind in sorted(set(kinds)):
                    figures = told_apart(network, lesions, rows_of(judged.seen[i], kinds == kind))
                    found.setdefault(network.id, {})[kind] = figures | {"kind_in_training": kind in table.trained}
    return found


def told_apart(network: Network, lesions: Seen, strange: Seen) -> dict[str, Any]:
    """Return AUROC and false alarms of each score, and the share of both that is called unknown."""
    unknown = network.classes.index(class_for_unknown(network))
    both = joined([lesions, strange])
    is_unknown = np.arange(len(both.logits)) >= len(lesions.logits)
    scores = unknown_scores(both.probabilities, unknown, [np.delete(both.logits, unknown, axis=1)])
    called = both.probabilities.argmax(axis=1) == unknown
    shares = {"called_unk": called[is_unknown].mean(), "lesions_called_unk": called[~is_unknown].mean()}
    return dict(rounded(unknown_figures(scores, is_unknown) | shares))


def class_for_unknown(network: Network) -> str:
    """Return the class of a network for pictures of none of the others. Raises ConfigError when it has none."""
    found = unknown_class(network.classes)
    if found is None:
        raise ConfigError(f"{network.id} with its classes {', '.join(network.classes)} has none for the unknown")
    return found


def joined(parts: list[Seen]) -> Seen:
    """Return several pictures' answers as one; features are not needed."""
    return Seen(np.concatenate([p.probabilities for p in parts]), np.concatenate([p.logits for p in parts]), None)


def rows_of(seen: Seen, chosen: Any) -> Seen:
    """Return the answers for chosen pictures (N,)."""
    return Seen(seen.probabilities[chosen], seen.logits[chosen], None)


def as_text(found: dict[str, Any]) -> str:
    """Return the figures as tables."""
    lines = []
    for title, members in found["tables"].items():
        lines += ["", title, f"{'':<32}" + "".join(f"{name:>16}" for name in (*COLUMNS, "recall MEL"))]
        for who, sets in members.items():
            for classes, ways in sets.items():
                lines.append(f"  {who}" + (f", {classes}" if classes != "ways" else ""))
                for how, row in ways.items():
                    values = [*(row[name] for name in COLUMNS), row["recall"].get("MEL")]
                    cells = "".join(f"{'–' if value is None else f'{value:.3f}':>16}" for value in values)
                    lines.append(f"    {how:<28}{cells}")
    for who, kinds in found["unknown"].items():
        lines += ["", f"unknown pictures against lesions, {who}: AUROC of", f"{'':<36}{'n':>6}  " + "  ".join(SCORES)]
        for kind, row in kinds.items():
            areas = "  ".join(f"{row[name]['auroc']:>{len(name)}.3f}" for name in SCORES)
            lines.append(f"    {kind:<32}{row['n']:>6}  {areas}  called UNK {row['called_unk']:.3f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

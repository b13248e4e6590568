"""The model card: the sidecar that says what a network file is, and the lock on it.

A model is a directory with `card.json` and the file that the card names. The file is loaded only if
its sha256 is the card's: a damaged or exchanged network never gives a finding.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from derma_common.errors import ModelError
from derma_common.shipped import CARD_FILE as CARD_FILE

UnknownScore = Literal["p_unk", "max_softmax", "energy", "knn"]
_OUTPUTS = {"detector": ("boxes", "scores"), "classifier": ("logits",)}


@dataclass(frozen=True)
class InputSpec:
    """What the network wants: tensor `name`, (N, 3, height, width) float32 RGB, (x / 255 − mean) / std."""

    name: str
    width: int
    height: int
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    max_batch: int = 1  # 1: the file has a fixed batch of one


@dataclass(frozen=True)
class UnknownRule:
    """When a classifier's crop is told as unknown: its score is below `threshold` (`derma_common.inference.unknown`).

    told_as: the class for pictures of none of the others. file: for the score `knn`, an array (M, D) float16 of
    features of lesions that the network learned from, beside the card, with its sha256; neighbours: k, the distance
    to the k-th nearest of them counts.
    """

    score: UnknownScore
    threshold: float
    told_as: str
    file: str = ""
    sha256: str = ""
    neighbours: int = 0


@dataclass(frozen=True)
class ModelCard:
    """Everything about a model that its file does not say, as stored in `card.json`.

    `kind` "detector": outputs `boxes` (N, A, 4) xyxy in network input px and `scores` (N, A, C) in [0, 1].
    `kind` "classifier": output `logits` (N, C); probability = softmax(logits / temperature). It may also have the
    output `features` (N, D), what the last layer sees.
    """

    name: str
    kind: Literal["detector", "classifier"]
    architecture: str
    file: str
    sha256: str
    input: InputSpec
    outputs: tuple[str, ...]
    classes: tuple[str, ...]
    licence: str
    runner: str = "onnx"
    score_threshold: float = 0.25  # detector: below it a box is not reported
    iou_threshold: float = 0.45  # detector: above it two boxes are one
    temperature: float = 1.0  # classifier: fitted on held-out data
    crop_margin: float = 0.25  # classifier: share of the longer side added around a detected box
    intended_use: str = "research; not a medical device"
    training_data: tuple[str, ...] = ()
    class_counts: dict[str, int] = field(default_factory=dict)  # classifier: training pictures, for prior rescaling
    unknown: UnknownRule | None = None  # classifier: None, the most probable class is the answer
    figures: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def id(self) -> str:
        """Name, first twelve hex digits of the hash, rule for the unknown: what a finding records as its model."""
        rule = f"+{self.unknown.score}@{self.unknown.threshold:g}" if self.unknown else ""
        return f"{self.name}@{self.sha256[:12]}{rule}"


def sha256_of(path: Path) -> str:
    """Return the hex sha256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_card(directory: Path) -> ModelCard:
    """Read and check `directory/card.json`. Raises ModelError with the field that is wrong."""
    path = directory / CARD_FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{directory} is no model: it has no {CARD_FILE}") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}") from error
    return _card_from(raw, path)


def _card_from(raw: Any, path: Path) -> ModelCard:
    if not isinstance(raw, dict):
        raise ModelError(f"{path} must hold one JSON object")
    known = {f.name for f in fields(ModelCard)}
    unknown = sorted(set(raw) - known)
    if unknown:
        raise ModelError(f"{path} has unknown fields: {', '.join(unknown)}")
    try:
        spec = dict(raw["input"])
        for key in ("mean", "std"):
            if key in spec:
                spec[key] = tuple(float(v) for v in spec[key])
        values = {**raw, "input": InputSpec(**spec)}
        if raw.get("unknown") is not None:
            values["unknown"] = UnknownRule(**raw["unknown"])
        for key in ("outputs", "classes", "training_data", "notes"):
            if key in values:
                values[key] = tuple(str(v) for v in values[key])
        card = ModelCard(**values)
        _check(card, path)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is incomplete or has a value of the wrong type: {error}") from error
    return card


def _check(card: ModelCard, path: Path) -> None:
    problems = []
    if card.kind not in ("detector", "classifier"):
        problems.append(f"kind {card.kind!r} is neither detector nor classifier")
    lacking = set(_OUTPUTS.get(card.kind, ())) - set(card.outputs)
    if lacking:
        problems.append(f"a {card.kind} needs the outputs {', '.join(sorted(lacking))}")
    if not card.classes:
        problems.append("classes is empty")
    if Path(card.file).name != card.file:
        problems.append(f"file {card.file!r} must be a plain name beside the card")
    if len(card.sha256) != 64:
        problems.append("sha256 must have 64 hex digits")
    if not (card.input.width > 0 and card.input.height > 0 and card.input.max_batch > 0):
        problems.append("input width, height and max_batch must be positive")
    if not len(card.input.mean) == len(card.input.std) == 3:
        problems.append("mean and std must have a number for each of red, green, blue")
    if any(not s > 0 for s in card.input.std) or not card.temperature > 0:
        problems.append("std and temperature must be positive")
    counts = card.class_counts
    if not isinstance(counts, dict) or (counts and set(counts) != set(card.classes)):
        problems.append("class_counts must name every class, and nothing else, or be empty")
    elif any(type(n) is not int or n < 1 for n in counts.values()):
        problems.append("class_counts must be whole positive numbers")
    if card.unknown is not None:
        problems += _rule_problems(card, card.unknown)
    if problems:
        raise ModelError(f"{path}: {'; '.join(problems)}")


def _rule_problems(card: ModelCard, rule: UnknownRule) -> list[str]:
    """Return what is wrong with a rule for the unknown."""
    problems = []
    if rule.score not in get_args(UnknownScore):
        problems.append(f"unknown.score {rule.score!r} is none of {', '.join(get_args(UnknownScore))}")
    if not math.isfinite(rule.threshold):
        problems.append("unknown.threshold must be a finite number")
    if rule.told_as not in card.classes:
        problems.append(f"unknown.told_as {rule.told_as!r} is no class of it")
    if rule.score == "knn" and "features" not in card.outputs:
        problems.append("the score knn needs the output features")
    if rule.score == "knn" and not (rule.neighbours > 0 and rule.file and Path(rule.file).name == rule.file):
        problems.append("the score knn needs a plain file name and neighbours of 1 or more")
    return problems


def write_card(card: ModelCard, directory: Path) -> None:
    """Write `directory/card.json`, readable by people, atomically."""
    draft = directory / (CARD_FILE + ".part")
    draft.write_text(json.dumps(asdict(card), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    draft.replace(directory / CARD_FILE)


def verified_file(card: ModelCard, directory: Path) -> Path:
    """Return the network file's path after checking its sha256. Raises ModelError when it differs."""
    return checked_file(card.name, directory / card.file, card.sha256)


def checked_file(name: str, path: Path, sha256: str) -> Path:
    """Return the path of a file of the model `name` after checking its sha256. Raises ModelError when it differs."""
    try:
        found = sha256_of(path)
    except OSError as error:
        raise ModelError(f"{name}: the file {path} that the card names cannot be read: {error.strerror}") from error
    if found != sha256:
        raise ModelError(
            f"{name}: {path} is not the file of its card (sha256 {found[:12]}…, the card says {sha256[:12]}…); "
            "copy the model anew or export it again"
        )
    return path

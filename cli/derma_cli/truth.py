"""Compare a run's boxes with the ground truth of a drawn recording."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from derma_common.boxes import match
from derma_common.errors import SourceError
from derma_common.store import StoreReader

IOU = 0.5


@dataclass(frozen=True, slots=True)
class Agreement:
    """How found boxes meet the true ones at IoU ≥ 0.5, over all frames."""

    frames: int
    true_boxes: int
    found_boxes: int
    matched: int
    lesions: int  # distinct lesions in the recording
    lesions_found: int  # of them, found in at least one frame

    @property
    def recall(self) -> float:
        """Share of true boxes that were found."""
        return self.matched / self.true_boxes if self.true_boxes else 1.0

    @property
    def precision(self) -> float:
        """Share of found boxes that are true."""
        return self.matched / self.found_boxes if self.found_boxes else 1.0

    def as_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints."""
        return asdict(self) | {"recall": round(self.recall, 4), "precision": round(self.precision, 4)}

    def line(self) -> str:
        """Return it for a person."""
        return (
            f"against the ground truth (IoU ≥ {IOU}): recall {self.recall:.3f}, precision {self.precision:.3f} over "
            f"{self.true_boxes} true boxes in {self.frames} frames; "
            f"{self.lesions_found} of {self.lesions} lesions found"
        )


def compare(store: StoreReader, run: str, camera: str | None, truth: Path) -> Agreement:
    """Compare the findings of one camera (the only one by default) with `truth`. Raises SourceError."""
    frames = _read_truth(truth)
    cameras = [camera] if camera else list(store.cameras(run))
    if len(cameras) != 1:
        raise SourceError(f"the run has cameras {', '.join(cameras)}: say --camera, the truth is of one recording")
    found: dict[int, list[tuple[float, float, float, float]]] = defaultdict(list)
    for finding in store.findings(run, cameras[0]):
        found[finding.seq].append(finding.box)
    matched, lesions, hit = 0, set(), set()
    for seq, true in frames.items():
        pairs = match(_rows(found[seq]), _rows([box for _, box in true]), IOU)
        matched += len(pairs)
        lesions |= {lesion for lesion, _ in true}
        hit |= {true[j][0] for _, j in pairs}
    total = sum(len(true) for true in frames.values())
    return Agreement(
        len(frames), total, sum(len(boxes) for seq, boxes in found.items() if seq in frames), matched,
        len(lesions), len(hit),
    )  # fmt: skip


def _rows(boxes: list[Any]) -> Any:
    return np.asarray(boxes, dtype=np.float32).reshape(-1, 4)


def _box(numbers: list[Any]) -> list[float]:
    x1, y1, x2, y2 = (float(v) for v in numbers)
    return [x1, y1, x2, y2]


def _read_truth(path: Path) -> dict[int, list[tuple[str, list[float]]]]:
    try:
        frames = json.loads(path.read_text(encoding="utf-8"))["frames"]
        return {int(f["seq"]): [(str(x["id"]), _box(x["box"])) for x in f["lesions"]] for f in frames}
    except FileNotFoundError:
        raise SourceError(f"there is no ground truth {path}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path} is no ground truth of a drawn recording: {error!r}") from error

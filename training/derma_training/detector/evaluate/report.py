"""All figures of one evaluation as one JSON document, and the same for a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from derma_training.detector.evaluate.looking import Seen
from derma_training.detector.evaluate.matching import Areas, match_all
from derma_training.detector.evaluate.measures import figures, fp_at_recall, fp_at_recall_of, froc, intervals

# COCO's small (under 32 × 32 px) in two, since the moles of a wide field are all small; medium and large as in COCO
SIZES: dict[str, Areas] = {
    "tiny": (0.0, 16.0**2), "small": (16.0**2, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10),
}  # fmt: skip


def report(seen: Sequence[Seen], threshold: float, samples: int = 0, seed: int = 0) -> dict[str, Any]:
    """Return the figures of pictures at a score threshold, with `samples` > 0 also their bootstrap intervals."""
    matches = match_all(seen)
    document: dict[str, Any] = {"threshold": threshold, **figures(matches, threshold)}
    if samples:
        document["intervals"] = intervals(matches, threshold, samples, seed)
        document["bootstrap"] = {"samples": samples, "groups": len(set(matches.groups))}
    document["fp_at_recall"] = fp_at_recall(matches)
    document["froc"] = froc(matches)
    names = sorted({one.picture.source for one in seen})
    document["by_source"] = {name: _of_source(seen, name, threshold) for name in names}
    document["by_size"] = {name: _of_size(seen, areas, threshold) for name, areas in SIZES.items()}
    document["ms_per_image"] = round(1000 * float(np.median([one.elapsed_s for one in seen])), 1)
    document["tiles_per_image"] = round(float(np.mean([one.tiles for one in seen])), 1)
    return document


def on_skin(lesions: Sequence[Seen], skin: Sequence[Seen], threshold: float) -> dict[str, Any]:
    """Return false positives per lesion-free picture, at the threshold and where `lesions` reach fixed recalls."""
    quiet = match_all(skin)
    return {
        "n_images": len(skin),
        "fp_per_image": figures(quiet, threshold)["fp_per_image"],
        "fp_at_recall": fp_at_recall_of(match_all(lesions), quiet),
    }


def _of_source(seen: Sequence[Seen], name: str, threshold: float) -> dict[str, Any]:
    return figures(match_all(one for one in seen if one.picture.source == name), threshold)


def _of_size(seen: Sequence[Seen], areas: Areas, threshold: float) -> dict[str, Any]:
    values = figures(match_all(seen, areas), threshold)
    return {name: values[name] for name in ("n_boxes", "ap50", "recall")}


def lines(document: dict[str, Any]) -> list[str]:
    """Return what `report` made for a person."""
    out = [
        f"{document['n_images']} pictures, {document['n_boxes']} lesions, {document['tiles_per_image']:g} tiles and "
        f"{document['ms_per_image']:g} ms a picture",
        f"AP50 {_with(document, 'ap50')}, AP {_with(document, 'ap')}",
        f"at the threshold {document['threshold']:g}: recall {_with(document, 'recall')}, "
        f"precision {_with(document, 'precision')}, F1 {_with(document, 'f1')}, "
        f"false positives a picture {_with(document, 'fp_per_image')}",
    ]
    if document["n_boxes"]:
        reached = [f"{fp:.2f} at {recall}" for recall, fp in document["fp_at_recall"].items() if fp is not None]
        out.append("false positives a picture at a recall: " + (", ".join(reached) or "0.5 is not reached"))
    for title in ("by_size", "by_source"):
        rows = {name: row for name, row in document[title].items() if row["n_boxes"]}
        for name, row in rows.items() if title == "by_size" or len(document[title]) > 1 else ():
            out.append(f"  {name}: {row['n_boxes']} lesions, AP50 {_with(row, 'ap50')}, recall {_with(row, 'recall')}")
    if "skin" in document:
        skin = document["skin"]
        reached = [f"{fp:.2f} at {recall}" for recall, fp in skin["fp_at_recall"].items() if fp is not None]
        out.append(
            f"{skin['n_images']} pictures without lesions: {skin['fp_per_image']:.3f} false positives each at the "
            f"threshold; at a recall above: {', '.join(reached) or '0.5 is not reached'}"
        )
    return out


def _with(row: dict[str, Any], name: str) -> str:
    value, between = row[name], row.get("intervals", {}).get(name)
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" [{between[0]:.3f}, {between[1]:.3f}]" if between else "")

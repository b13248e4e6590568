"""From a frame's findings to the archive's rows: one row a finding, with all that is needed to judge it later."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from derma_common.cloud.entries import FrameFindings

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SCHEMA = pa.schema([
    ("site", pa.string()), ("run", pa.string()), ("camera", pa.string()),
    ("seq", pa.int64()),  # of the frame, in its run and camera
    ("number", pa.int64()),  # of the finding, in its frame
    ("time_utc", pa.timestamp("us")),  # by the edge's clock
    ("width", pa.int64()), ("height", pa.int64()),  # of the frame, px
    ("x1", pa.float64()), ("y1", pa.float64()), ("x2", pa.float64()), ("y2", pa.float64()),  # the box, px
    ("score", pa.float64()),
    ("top", pa.string()), ("top_probability", pa.float64()),  # the most probable class; null without a classification
    ("probabilities", pa.map_(pa.string(), pa.float64())),
    ("missing", pa.string()),  # why there is no classification
    ("outcome", pa.string()), ("reason", pa.string()),  # of the frame
    ("detector", pa.string()), ("classifier", pa.string()), ("version", pa.string()),
    ("priority", pa.int64()),
    ("entry", pa.string()),  # the stream entry's id: with site and priority it tells where the row came from
])  # fmt: skip
Row = dict[str, Any]


def day_of(frame: FrameFindings) -> str:
    """Return the UTC day of a frame's wall time, YYYY-MM-DD."""
    return (_EPOCH + timedelta(microseconds=frame.wall_ns // 1000)).date().isoformat()


def rows_of(frame: FrameFindings, entry_id: str) -> list[Row]:
    """Return the rows of a frame; none when nothing was found in it."""
    return [
        {
            "site": frame.site, "run": frame.run, "camera": frame.camera, "seq": frame.seq, "number": lesion.number,
            "time_utc": frame.wall_ns // 1000, "width": frame.width, "height": frame.height,
            **dict(zip(("x1", "y1", "x2", "y2"), lesion.box, strict=True)), "score": lesion.score,
            **_top(lesion.probabilities), "probabilities": list(lesion.probabilities.items()),
            "missing": lesion.missing, "outcome": frame.outcome, "reason": frame.reason, "detector": frame.detector,
            "classifier": lesion.classifier, "version": frame.version, "priority": frame.priority, "entry": entry_id,
        }
        for lesion in frame.lesions
    ]  # fmt: skip


def _top(probabilities: dict[str, float]) -> Row:
    if not probabilities:
        return {"top": None, "top_probability": None}
    name = max(probabilities, key=lambda key: probabilities[key])
    return {"top": name, "top_probability": probabilities[name]}

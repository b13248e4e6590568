"""Where the shipped models, the sample recording and the documented settings lie: in a checkout or in the wheel."""

from __future__ import annotations

from pathlib import Path

from derma_common.errors import ModelError

CARD_FILE = "card.json"  # in a model's folder
SAMPLE = "samples/drawn-exam.mp4"
_PACKAGE = Path(__file__).resolve().parent


def shipped(name: str) -> Path:
    """Return the place of a shipped file or folder, such as `models` or `samples`."""
    inside = _PACKAGE / "share" / name
    return inside if inside.exists() else _PACKAGE.parents[1] / name


def model_dir(name: str) -> Path:
    """Return the directory of a model given by the name of a shipped one or by its path. Raises ModelError."""
    path = Path(name).expanduser()
    for candidate in (path, shipped("models") / name):
        if (candidate / CARD_FILE).is_file():
            return candidate.resolve()
    there = ", ".join(directory.name for directory in shipped_models())
    raise ModelError(f"there is no model {name!r}: neither a folder with {CARD_FILE} nor one of {there}")


def shipped_models() -> list[Path]:
    """Return the directories of the shipped models, by name."""
    return sorted(card.parent for card in shipped("models").glob(f"*/{CARD_FILE}"))

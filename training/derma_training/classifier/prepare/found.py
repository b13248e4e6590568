"""What a layout finds in a data set: a labelled picture, before checks and folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from derma_common.errors import ConfigError
from derma_common.preprocess import Image
from derma_common.recordings import PICTURE_SUFFIXES
from derma_training.classifier.tables import Box


@dataclass(frozen=True)
class Found:
    """One labelled picture of a data set.

    `read` gives (H, W, 3) uint8 BGR; `file` is None when the picture is no file of its own. `group` is "" when
    the data set knows neither lesion nor patient; `stated` is "test" or "train" when it states a split, else "".
    """

    name: str
    label: str
    read: Callable[[], Image]
    file: Path | None = None
    group: str = ""
    stated: str = ""
    box: Box | None = None
    licence: str = ""
    source: str = ""
    age: float | None = None
    sex: str = ""
    site: str = ""
    fitzpatrick: str = ""


@dataclass(frozen=True)
class Reading:
    """How the user wants tables to be read; "" and empty mean the layout's own way."""

    label_column: str = ""
    group_column: str = ""
    words: dict[str, str] = field(default_factory=dict)  # a table's label -> ours, "" leaves the picture out
    skip_missing: bool = False
    seed: int = 0


class Pictures:
    """All picture files below a folder, found by relative path or by name."""

    def __init__(self, folder: Path) -> None:
        """Look through `folder`. Raises ConfigError when it holds no pictures."""
        self.folder = folder
        self.files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file())
        if not self.files:
            raise ConfigError(f"{folder} holds no pictures ({' '.join(PICTURE_SUFFIXES)})")
        self._by_name: dict[str, list[Path]] = {}
        for file in self.files:
            self._by_name.setdefault(file.stem.lower(), []).append(file)

    def find(self, said: str) -> Path | None:
        """Return the file a table means by a relative path or by a name with or without suffix, None if there is none.

        Raises ConfigError when the name fits several files.
        """
        if (self.folder / said).is_file():
            return self.folder / said
        name = Path(said).name
        stem = Path(name).stem if Path(name).suffix.lower() in PICTURE_SUFFIXES else name
        files = self._by_name.get(stem.lower(), [])
        if len(files) > 1:
            raise ConfigError(f"{said} may be {files[0]} or {files[1]}: keep one of them")
        return files[0] if files else None

"""The files of a data set's folder: listed once, pictures found by what a label calls them."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path, PurePosixPath

from derma_common.errors import SourceError
from derma_common.recordings import PICTURE_SUFFIXES

PICTURE_FOLDERS = ("images", "jpegimages")  # where a data set has such a folder, its pictures are in there
_SPLIT = re.compile(r"(train|val|test)(?:\d{4}|id|ing|idation)?\Z", re.IGNORECASE)


class Tree:
    """All files below a folder, sorted; links to folders are followed once."""

    def __init__(self, root: Path) -> None:
        """List the files. Raises SourceError when `root` is no folder."""
        if not root.is_dir():
            raise SourceError(f"there is no folder {root}")
        self.root = root
        self.files: list[Path] = []
        seen: set[str] = set()
        for folder, inner, names in os.walk(root, followlinks=True):
            real = os.path.realpath(folder)
            inner[:] = sorted(name for name in inner if not name.startswith(".")) if real not in seen else []
            if real not in seen:
                self.files += [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
            seen.add(real)
        pictures = self.ending(*PICTURE_SUFFIXES)
        inside = [p for p in pictures if any(part.lower() in PICTURE_FOLDERS for part in self._folders(p))]
        self.pictures = inside or pictures
        self._called: dict[str, list[Path]] = defaultdict(list)
        for path in self.pictures:
            self._called[path.name].append(path)
            self._called[path.stem].append(path)

    def ending(self, *suffixes: str) -> list[Path]:
        """Return the files with one of these suffixes, in any case."""
        return [path for path in self.files if path.suffix.lower() in suffixes]

    def picture(self, name: str, beside: Path) -> Path | None:
        """Find the picture that a label file in folder `beside` calls `name`: a path, a file name or a bare stem."""
        posix = PurePosixPath(name.replace("\\", "/"))
        for base in (beside, self.root):
            if (base / posix).is_file():
                return base / posix
        candidates = self._called.get(posix.name, [])
        ending = [path for path in candidates if path.as_posix().endswith("/" + str(posix))]
        best = ending or candidates
        return best[0] if len(best) == 1 else next((p for p in best if beside in p.parents), None)

    def split(self, path: Path) -> str:
        """Return "train", "val" or "test" as a file's folders or its name say, else ""."""
        named = re.split(r"[_.-]", path.stem) if path.suffix.lower() == ".json" else ()  # instances_val2017.json
        for part in (*self._folders(path), *named):
            if found := _SPLIT.match(part):
                return found.group(1).lower()
        return ""

    def source(self, path: Path) -> str:
        """Return the name of the data set that a file belongs to: its first folder that is no mere sorting."""
        plain = (*PICTURE_FOLDERS, "labels", "annotations")
        named = [part for part in self._folders(path) if part.lower() not in plain and not _SPLIT.match(part)]
        return named[0] if named else self.root.resolve().name

    def shown(self, path: Path) -> str:
        """Return a file's name for the report: within the folder where it can be."""
        return str(path.relative_to(self.root)) if self.root in path.parents else str(path)

    def _folders(self, path: Path) -> tuple[str, ...]:
        return path.relative_to(self.root).parts[:-1] if self.root in path.parents else ()

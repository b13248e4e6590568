"""Data sets whose labels are the names of folders."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from derma_common.errors import ConfigError
from derma_training.classifier.pictures import read_picture
from derma_training.classifier.prepare.found import Found, Pictures, Reading


def read_folders(folder: Path, reading: Reading, words: Mapping[str, str], ending: str) -> list[Found]:
    """Return the pictures below a folder that `words` knows (lower case -> our class), named …`ending`.

    Raises ConfigError when there is none.
    """
    found = []
    for file in Pictures(folder).files:
        parents = [part.lower() for part in file.relative_to(folder).parts[:-1]]
        label = next((words[part] for part in reversed(parents) if part in words), "")
        label = reading.words.get(label, label)
        if label and file.stem.lower().endswith(ending):
            found.append(Found(file.stem, label, partial(read_picture, file), file))
    if not found:
        raise ConfigError(f"{folder} has no pictures in folders named {', '.join(words)}")
    return found


def read_class_folders(folder: Path, reading: Reading) -> list[Found]:
    """Return the pictures below `folder`, each labelled by the folder it lies in. Raises ConfigError."""
    found = []
    for file in Pictures(folder).files:
        if file.parent == folder:
            raise ConfigError(f"{file} lies in no class's folder: a folder for each class is expected in {folder}")
        label = reading.words.get(file.parent.name, file.parent.name)
        if label:
            found.append(Found(file.stem, label, partial(read_picture, file), file))
    return found

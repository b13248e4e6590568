"""Where a test's run lives."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """Where a test's run lives, and its fake models."""

    data_dir: Path
    shm_dir: Path
    detector: Path
    classifier: Path

    @property
    def dirs(self) -> dict[str, Path]:
        """The directories as `up` and `derma` take them."""
        return {"data_dir": self.data_dir, "shm_dir": self.shm_dir}

    @property
    def models(self) -> tuple[str, ...]:
        """The flags that choose the fake models."""
        return ("--detector", str(self.detector), "--classifier", str(self.classifier))

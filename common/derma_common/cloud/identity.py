"""Who claims a site's name: so that two machines with one name are found out before one hides the other's findings."""

from __future__ import annotations

import hashlib
from pathlib import Path

_MACHINE_ID = Path("/etc/machine-id")


def identity_of(data_dir: Path) -> str:
    """Return this machine and data folder as 24 hex digits that tell nothing of either."""
    machine = _MACHINE_ID.read_text() if _MACHINE_ID.exists() else ""
    return hashlib.sha256(f"{machine}\0{data_dir}".encode()).hexdigest()[:24]

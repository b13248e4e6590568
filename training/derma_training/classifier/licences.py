"""Licences of pictures, by their SPDX names, and what they mean for a network that learned from them."""

from __future__ import annotations

import re
from collections.abc import Iterable

UNKNOWN = "unknown"
PERMISSIVE = ("MIT", "Apache-2.0")
_CREATIVE_COMMONS = re.compile(r"CC-?(0|BY(?:-NC)?(?:-(?:SA|ND))?)(?:-(\d\.\d))?", re.IGNORECASE)


def normalised(words: str) -> str:
    """Return the SPDX-like name of a licence: "CC BY-NC 4.0" → "CC-BY-NC-4.0", "CC-0" → "CC0-1.0", "" → "unknown".

    A Creative Commons licence without a version keeps none; words that are no known licence stay as they are.
    """
    said = re.sub(r"[\s_]+", "-", words.strip())
    if not said:
        return UNKNOWN
    found = _CREATIVE_COMMONS.fullmatch(said)
    if found:
        terms, version = found.group(1).upper(), found.group(2)
        return "CC0-1.0" if terms == "0" else f"CC-{terms}" + (f"-{version}" if version else "")
    return next((name for name in (*PERMISSIVE, UNKNOWN) if name.lower() == said.lower()), words.strip())


def is_commercial(licence: str) -> bool:
    """Tell whether a picture under this licence may serve a commercial product: CC0 and CC BY only."""
    return licence == "CC0-1.0" or re.fullmatch(r"CC-BY(-\d\.\d)?", licence) is not None


def licence_of_model(licences: Iterable[str]) -> str:
    """Return what a network's card says of its licence: that of the strictest pictures it learned from."""
    names = sorted(set(licences))
    trained_on = f"(trained on {', '.join(names)})"
    if any(n not in PERMISSIVE and not _CREATIVE_COMMONS.fullmatch(n) for n in names):
        return f"{UNKNOWN} {trained_on}: some pictures state no known licence; keep it to yourself"
    for term, duty in (("-NC", ": non-commercial research"), ("-SA", ""), ("-ND", ""), ("-BY", ": name the sources")):
        bound = [n for n in names if term in n]
        if bound:
            return f"{bound[-1]} {trained_on}{duty}"
    return f"{names[-1]} {trained_on}"

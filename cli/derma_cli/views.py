"""One lesion's probabilities in the classes of a view."""

from __future__ import annotations

from collections.abc import Mapping

from derma_common.taxonomy import View


def in_view(view: View, probabilities: Mapping[str, float]) -> dict[str, float]:
    """Return class of the view -> probability; nothing for a finding that was not classified."""
    if not probabilities:
        return {}
    told = view.of([list(probabilities.values())], list(probabilities))[0]
    return {name: round(float(p), 6) for name, p in zip(view.classes, told, strict=True)}

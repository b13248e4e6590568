"""The streams of all sites; names come from outside and are believed only as far as they are names."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from derma_common.cloud.entries import PRIORITIES, SITE
from derma_common.errors import InvalidMessage


def keys_by_priority(sites: Iterable[str], key: Callable[[str, int], str]) -> list[list[str]]:
    """Return the sites' streams, a list for each priority, the most urgent first."""
    named = [site for site in sites if SITE.match(site)]
    return [[key(site, priority) for site in named] for priority in PRIORITIES]


def checked_site(site: str, key: str) -> None:
    """Raise InvalidMessage when an entry speaks for another site than the one whose stream it came by."""
    if site != key.split(":")[2]:
        raise InvalidMessage(f"an entry of the site {site!r} in {key}")

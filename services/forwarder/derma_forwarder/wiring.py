"""From settings to a forwarder, for the service and for `derma outbox drain`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from derma_common.cloud.access import access_of
from derma_common.cloud.identity import identity_of
from derma_common.cloud.streams import Line
from derma_common.outbox import Outbox, Waiting
from derma_common.settings import Settings
from derma_common.store import StoreReader
from derma_forwarder.content import Content
from derma_forwarder.forwarder import Forwarder


def open_forwarder(
    settings: Settings, closing: ExitStack, delay: Callable[[Waiting], None] = lambda row: None
) -> tuple[Forwarder, Outbox]:
    """Open the outbox of the settings' database and a forwarder for it. Raises ConfigError, ResourceError."""
    access = access_of(settings.cloud)
    outbox = closing.enter_context(Outbox(settings.database))
    store = closing.enter_context(StoreReader(settings.database))
    forwarder = Forwarder(
        outbox, Content(store, outbox, settings.cloud.site), lambda: Line(access), settings.cloud.site,
        identity_of(settings.data_dir), settings.cloud.outbox_days * 86400.0, delay,
    )  # fmt: skip
    closing.callback(forwarder.close)
    return forwarder, outbox

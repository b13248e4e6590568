"""Go on when the line to Redis drops: wait, longer with every failure and never in step with others, and try again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from derma_common.back_off import BackOff
from derma_common.cloud.streams import Denied, LineDown
from derma_common.errors import ResourceError
from derma_common.stage import Stop
from derma_common.workers.metrics import WorkerMetrics

log = logging.getLogger(__name__)
FIRST_S, LONGEST_S = 0.1, 10.0


def keep_trying(
    step: Callable[[], object], start_anew: Callable[[], None], stop: Stop, metrics: WorkerMetrics, every_s: float = 0.0
) -> None:
    """Call `step` every `every_s` until asked to stop; after a LineDown wait, and call `start_anew` before the next.

    Raises ResourceError when Redis refuses us before the first step succeeded: that is a matter of our settings.
    """
    back_off, worked = BackOff(FIRST_S, LONGEST_S), False
    while not stop.asked:
        try:
            step()
        except LineDown as error:
            if isinstance(error, Denied) and not worked:
                raise ResourceError(f"Redis refuses us: {error}; see the cloud settings and users.acl") from error
            metrics.connected = False
            metrics.failures.inc()
            if not back_off.failures:  # once, not at every attempt of a day
                log.warning("no line to Redis, trying on: %s", error)
            pause(back_off.failed(), stop)
            start_anew()
        else:
            if back_off.failures:
                log.info("the line to Redis is up")
            back_off.worked()
            worked = metrics.connected = True
            if every_s:
                pause(every_s, stop)


def pause(seconds: float, stop: Stop) -> None:
    """Wait, but no longer than until the process is asked to leave."""
    until = time.monotonic() + seconds
    while not stop.asked and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))

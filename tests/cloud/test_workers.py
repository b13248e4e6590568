"""What all workers share besides their loop: going on without a line, and Redis' clock."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import patch

import pytest
from support.metrics import values

from derma_common.cloud.streams import Denied, LineDown
from derma_common.errors import ResourceError
from derma_common.stage import Stop
from derma_common.workers import clock, retry
from derma_common.workers.clock import AGAIN_AFTER_S, RedisClock
from derma_common.workers.metrics import WorkerMetrics
from derma_common.workers.retry import keep_trying

Try = Callable[..., tuple[list[str], WorkerMetrics]]


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> Try:
    """Run steps that end as told, one after the other, without waiting."""

    def run(*steps: Exception | None) -> tuple[list[str], WorkerMetrics]:
        stop, metrics, happened, left = Stop(), WorkerMetrics("job"), list[str](), list(steps)
        monkeypatch.setattr(retry, "pause", lambda seconds, stop: happened.append("waits"))

        def step() -> None:
            end = left.pop(0)
            if not left:
                stop.ask()
            happened.append("step")
            if end is not None:
                raise end

        keep_trying(step, lambda: happened.append("anew"), stop, metrics)
        return happened, metrics

    return run


def test_a_dropped_line_is_waited_for_and_begun_anew(tried: Try) -> None:
    happened, metrics = tried(LineDown("no"), None, Denied("for a moment"), None)
    assert happened == ["step", "waits", "anew", "step", "step", "waits", "anew", "step"]
    assert values(metrics, "derma_cloud_failures_total") == {(): 2}
    assert values(metrics, "derma_cloud_connected") == {(): 1}


def test_who_is_refused_from_the_first_is_told_to_mend_it(
    tried: Callable[..., tuple[list[str], WorkerMetrics]],
) -> None:
    with pytest.raises(ResourceError, match=r"^Redis refuses us: wrong password; see"):
        tried(LineDown("not yet there"), Denied("wrong password"), None)


def test_redis_clock_is_asked_seldom_and_runs_on_between() -> None:
    asked, ours = [], [1000.0]

    def ask() -> int:
        asked.append(ours[0])
        return round(5_000_000 + ours[0] * 1000)  # theirs differs by a constant

    theirs = RedisClock(ask)
    with patch.object(clock.time, "monotonic", lambda: ours[0]):
        for _ in range(5):
            assert theirs.now_ms() == pytest.approx(5_000_000 + ours[0] * 1000)
            ours[0] += AGAIN_AFTER_S / 4
    assert asked == [1000.0]
    ours[0] += 1
    with patch.object(clock.time, "monotonic", lambda: ours[0]):
        theirs.now_ms()
    assert len(asked) == 2

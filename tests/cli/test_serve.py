"""`derma serve`: how many workers a backlog wants, and what becomes of workers that die."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_cli.archive import need_extra
from derma_cli.fleet import FRUITFUL_S, LEAVE_WITHIN_S, MOST_WAIT_S, Fleet, Refused
from derma_cli.scaling import Scaler
from derma_common.errors import ResourceError


def test_workers_are_added_at_once_and_taken_away_after_a_calm_time() -> None:
    scaler = Scaler(least=1, most=4, share=8, calm_s=60)
    assert scaler.wanted(0, backlog=0) == 1
    assert scaler.wanted(1, backlog=9) == 2
    assert scaler.wanted(2, backlog=1000) == 4
    assert scaler.wanted(10, backlog=17) == 4
    assert scaler.wanted(61, backlog=0) == 4
    assert scaler.wanted(63, backlog=0) == 3, "what was needed 53 s ago"
    assert scaler.wanted(71, backlog=0) == 1


@given(
    st.lists(st.tuples(st.floats(0, 30), st.integers(0, 200)), min_size=1, max_size=60),
    st.integers(0, 3), st.integers(0, 5), st.integers(1, 20),
)  # fmt: skip
def test_the_need_of_the_last_calm_time_decides(
    steps: list[tuple[float, int]], least: int, more: int, share: int
) -> None:
    scaler, now_s, seen = Scaler(least, least + more, share, 60.0), 0.0, []
    for after_s, backlog in steps:
        now_s += after_s
        seen.append((now_s, -(-backlog // share)))
        need = max(n for t, n in seen if now_s - t <= 60.0)
        assert scaler.wanted(now_s, backlog) == min(least + more, max(least, need))


def test_without_the_extra_the_archive_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ResourceError, match=r"pip install 'derma\[cloud\]'"):
        need_extra()


class FakeChild:
    """A process that ends when the test says so, or when it is asked to leave (if it is polite)."""

    def __init__(self, polite: bool = True) -> None:
        self.code: int | None = None
        self.polite = polite

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        if self.polite:
            self.code = 0

    def kill(self) -> None:
        self.code = -9

    def wait(self, timeout: float | None = None) -> int:
        assert self.code is not None
        return self.code


@pytest.fixture
def born() -> list[FakeChild]:
    return []


@pytest.fixture
def fleet(born: list[FakeChild]) -> Fleet:
    def spawn() -> FakeChild:
        born.append(FakeChild())
        return born[-1]

    return Fleet(spawn)


def alive(born: list[FakeChild]) -> list[int]:
    return [i for i, child in enumerate(born) if child.code is None]


def test_as_many_run_as_wanted_and_the_youngest_leave_first(fleet: Fleet, born: list[FakeChild]) -> None:
    fleet.turn(3, 0.0)
    assert alive(born) == [0, 1, 2]
    fleet.turn(1, 1.0)
    assert alive(born) == [0]
    fleet.turn(2, 2.0)
    assert alive(born) == [0, 3] and fleet.size == 2


def test_a_dead_worker_is_replaced_later_each_time_it_dies_early(fleet: Fleet, born: list[FakeChild]) -> None:
    now_s, waits = 0.0, []
    fleet.turn(1, now_s)
    for _ in range(9):
        born[-1].code = -6
        died_s, n = now_s, len(born)
        fleet.turn(1, now_s)
        while len(born) == n:
            now_s += 0.05
            fleet.turn(1, now_s)
        waits.append(now_s - died_s)
    assert waits[:3] == pytest.approx([0.25, 0.5, 1.0], abs=0.06)
    assert waits[-1] == pytest.approx(MOST_WAIT_S, abs=0.06)
    born[-1].code, now_s = -6, now_s + FRUITFUL_S + 1
    fleet.turn(1, now_s)
    fleet.turn(1, now_s + 0.3)
    assert len(born) == 11, "one that worked for long is replaced soon"


def test_an_error_of_the_users_ends_all_with_its_exit_status(fleet: Fleet, born: list[FakeChild]) -> None:
    fleet.turn(2, 0.0)
    born[0].code = 4
    with pytest.raises(Refused) as caught:
        fleet.turn(2, 1.0)
    assert caught.value.exit_code == 4
    fleet.close()
    assert alive(born) == []


def test_a_worker_that_does_not_leave_is_killed() -> None:
    polite, stubborn = FakeChild(), FakeChild(polite=False)
    children = iter([polite, stubborn])
    fleet = Fleet(lambda: next(children))
    fleet.turn(2, 0.0)
    fleet.turn(0, 1.0)
    assert (polite.code, stubborn.code) == (0, None)
    fleet.turn(0, 2.0 + LEAVE_WITHIN_S)
    assert stubborn.code == -9

"""Who may talk to Redis as `deploy/redis` sets it up, and what a stranger hears."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.redis_server import Authority, RedisServer

from derma_common.cloud.streams import (
    CLASSIFIERS,
    DEAD,
    Access,
    Delivery,
    Denied,
    Line,
    LineDown,
    findings_key,
    jobs_key,
    opinions_key,
    pictures_key,
    results_key,
)

JOBS = jobs_key("0" * 64)
PICTURES = pictures_key("room1", 0)
FINDINGS = findings_key("room1", 0)
Use = Callable[[Line], object]
ENTRY = Delivery(JOBS, "1-1", b"x")

# what each role does in its work
ALLOWED: dict[str, list[Use]] = {
    "site-room1": [
        lambda line: line.owner("room1", "me"),
        lambda line: line.register("room1"),
        lambda line: line.send([(FINDINGS, "1-1", b"x"), (PICTURES, "1-1", b"x"), (JOBS, "*", b"x")]),
        lambda line: line.last_id(FINDINGS),
        lambda line: line.read({results_key("room1"): "0-0", opinions_key("room1"): "0-0"}, 1, 0),
        lambda line: line.last_id(results_key("room1")),
        lambda line: line.forget(opinions_key("room1"), "1-0"),
    ],
    "classifier": [
        lambda line: line.now_ms(),
        lambda line: line.join(JOBS, CLASSIFIERS),
        lambda line: line.take(CLASSIFIERS, "w", [JOBS], 1, 0),
        lambda line: line.take_over(CLASSIFIERS, "w", JOBS, 0.0, 1),
        lambda line: line.answer(CLASSIFIERS, [ENTRY], [(results_key("room1"), b"x")]),
        lambda line: line.bury(CLASSIFIERS, ENTRY, "why"),
        lambda line: line.backlog(JOBS, CLASSIFIERS),
        lambda line: line.trim(JOBS),
        lambda line: line.leave(JOBS, CLASSIFIERS, "w"),
    ],
    "opinion": [
        lambda line: line.sites(),
        lambda line: line.join(PICTURES, "opinion"),
        lambda line: line.take("opinion", "w", [PICTURES], 1, 0),
        lambda line: line.take_over("opinion", "w", PICTURES, 0.0, 1),
        lambda line: line.answer("opinion", [replace(ENTRY, key=PICTURES)], [(opinions_key("room1"), b"x")]),
        lambda line: line.bury("opinion", replace(ENTRY, key=PICTURES), "why"),
        lambda line: line.trim(PICTURES),
        lambda line: line.leave(PICTURES, "opinion", "w"),
    ],
    "ingest": [
        lambda line: line.owner(".archive", "me"),
        lambda line: line.sites(),
        lambda line: line.read({FINDINGS: "0-0"}, 1, 0),
        lambda line: line.forget(FINDINGS, "1-0"),
        lambda line: line.bury("", replace(ENTRY, key=FINDINGS), "why"),
    ],
    "scaler": [lambda line: line.backlog(JOBS, CLASSIFIERS)],
}  # fmt: skip

# what nobody of that role has any business with
DENIED: dict[str, list[Use]] = {
    "site-room1": [
        lambda line: line.sites(),
        lambda line: line.send([(findings_key("room2", 0), "1-1", b"x")]),
        lambda line: line.send([(results_key("room1"), "*", b"x")]),
        lambda line: line.read({opinions_key("room2"): "0-0"}, 1, 0),
        lambda line: line.read({JOBS: "0-0"}, 1, 0),
        lambda line: line.forget(JOBS, "9-0"),
        lambda line: line.forget(FINDINGS, "9-0"),
        lambda line: line.owner("room2", "me"),
        lambda line: line.take(CLASSIFIERS, "w", [JOBS], 1, 0),
        lambda line: line.read({DEAD: "0-0"}, 1, 0),
    ],
    "classifier": [
        lambda line: line.read({FINDINGS: "0-0"}, 1, 0),
        lambda line: line.take("opinion", "w", [PICTURES], 1, 0),
        lambda line: line.send([(opinions_key("room1"), "*", b"x")]),
        lambda line: line.sites(),
    ],
    "opinion": [
        lambda line: line.take(CLASSIFIERS, "w", [JOBS], 1, 0),
        lambda line: line.send([(results_key("room1"), "*", b"x")]),
        lambda line: line.register("room7"),
    ],
    "ingest": [
        lambda line: line.read({PICTURES: "0-0"}, 1, 0),
        lambda line: line.send([(FINDINGS, "9-9", b"x")]),
        lambda line: line.owner("room1", "me"),
    ],
    "scaler": [
        lambda line: line.take(CLASSIFIERS, "w", [JOBS], 1, 0),
        lambda line: line.trim(JOBS),
        lambda line: line.send([(JOBS, "*", b"x")]),
    ],
}  # fmt: skip
DANGEROUS = [
    "CONFIG GET *", "FLUSHALL", "FLUSHDB", "KEYS *", "SCAN 0", "EVAL return(1) 0", "FUNCTION LIST", "SHUTDOWN",
    "ACL LIST", "MODULE LIST", "SAVE", "REPLICAOF NO ONE", "MONITOR", "CLIENT LIST",
]  # fmt: skip


@pytest.fixture
def line_of(guarded: RedisServer) -> Iterator[Callable[..., Line]]:
    lines = []

    def make(role: str, **changes: str) -> Line:
        lines.append(Line(replace(guarded.access(role), **changes)))
        return lines[-1]

    yield make
    for line in lines:
        line.close()


@pytest.fixture
def streams(line_of: Callable[..., Line]) -> None:
    """Make the streams and groups, by those who may."""
    for use in ALLOWED["site-room1"][:3]:
        use(line_of("site-room1"))
    line_of("classifier").join(JOBS, CLASSIFIERS)
    line_of("opinion").join(PICTURES, "opinion")


@pytest.mark.parametrize("role", ALLOWED)
@pytest.mark.usefixtures("streams")
def test_a_role_may_do_its_work(line_of: Callable[..., Line], role: str) -> None:
    line = line_of(role)
    for use in ALLOWED[role]:
        use(line)


@pytest.mark.parametrize("role", DENIED)
@pytest.mark.usefixtures("streams")
def test_a_role_may_do_nothing_else(line_of: Callable[..., Line], role: str) -> None:
    line = line_of(role)
    for use in DENIED[role]:
        with pytest.raises(Denied, match="no permissions"):
            use(line)


@pytest.mark.parametrize("role", [*ALLOWED, "operator"])
def test_no_role_may_configure_script_or_empty_it(line_of: Callable[..., Line], role: str) -> None:
    line = line_of(role)
    for command in DANGEROUS:
        with pytest.raises(Denied, match="no permissions"):
            line._do(line._redis.execute_command, *command.split())


def test_a_stranger_without_a_certificate_is_refused_before_anything_else(line_of: Callable[..., Line]) -> None:
    assert "\n" not in str(_denied(line_of("classifier", cert_file="", key_file="")))


def test_a_certificate_of_another_authority_is_refused(line_of: Callable[..., Line], tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path / "other").sign("client")
    _denied(line_of("classifier", cert_file=str(certificate), key_file=str(key)))


def test_a_server_that_our_authority_did_not_sign_is_not_believed(line_of: Callable[..., Line], tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    assert "certificate verify failed" in str(_denied(line_of("classifier", ca_file=str(other.certificate))))


def test_a_server_under_a_name_that_its_certificate_does_not_hold_is_not_believed(tmp_path: Path) -> None:
    server = RedisServer(tmp_path, Authority(tmp_path / "ca"), options=["--bind", "127.0.0.1", "127.0.0.2"])
    access = server.access("classifier")
    line = Line(replace(access, address=access.address.replace("127.0.0.1", "127.0.0.2")))
    assert "IP address mismatch" in str(_denied(line))
    line.close()
    server.stop()


@pytest.mark.parametrize(("user", "password"), [("classifier", "wrong"), ("nobody", "x"), ("", "")])
def test_a_wrong_password_or_user_is_refused(line_of: Callable[..., Line], user: str, password: str) -> None:
    _denied(line_of("classifier", user=user, password=password))


def test_there_is_no_way_in_without_tls(guarded: RedisServer) -> None:
    line = Line(Access(f"redis://127.0.0.1:{guarded.port}/0", "classifier", "classifier-password"))
    with pytest.raises(LineDown):
        line.now_ms()


def _denied(line: Line) -> Denied:
    with pytest.raises(Denied) as caught:
        line.now_ms()
    return caught.value

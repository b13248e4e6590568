"""`derma outbox`: see what waits, put back what was set aside, give up, and send without an exam."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support.outboxes import fill, make_database
from support.redis_server import MISSING, RedisServer, available
from support.runs import derma

from derma_common.cloud.streams import Line, findings_key
from derma_common.outbox import FINDINGS, PICTURE, Outbox


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    make_database(tmp_path / "data" / "derma.db")
    return tmp_path / "data"


def outbox(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return derma("outbox", *arguments, data_dir=data_dir, shm_dir=data_dir)


def test_ls_shows_what_waits_and_what_was_set_aside(data_dir: Path) -> None:
    fill(data_dir / "derma.db", [(FINDINGS, 2), (PICTURE, 0), (FINDINGS, 1)])
    with Outbox(data_dir / "derma.db") as box:
        box.refused(box.first(9)[1], "WRONGTYPE", 1)
    seen = outbox(data_dir, "ls")
    assert seen.returncode == 0 and "findings  1 waiting, 0 bytes, 1 set aside" in seen.stdout
    assert "set aside after 1: WRONGTYPE" in seen.stdout
    document = json.loads(outbox(data_dir, "ls", "--json").stdout)
    assert document["waiting"]["picture"]["entries"] == 1 and document["oldest_s"] > 0
    assert [row["error"] for row in document["quarantined"]] == ["WRONGTYPE"]
    assert outbox(data_dir, "retry", "--all").stdout == "1 entries back in line\n"
    assert json.loads(outbox(data_dir, "ls", "--json").stdout)["quarantined"] == []


def test_drop_gives_up_what_is_named_and_only_that(data_dir: Path) -> None:
    fill(data_dir / "derma.db", [(FINDINGS, 2), (PICTURE, 0), (PICTURE, 1)])
    assert outbox(data_dir, "drop").returncode == 2
    assert outbox(data_dir, "drop", "--all", "--kind", "crumbs").returncode == 2
    assert outbox(data_dir, "drop", "2").stdout == "1 entries given up\n"
    assert outbox(data_dir, "drop", "--all", "--kind", "picture").stdout == "1 entries given up\n"
    document = json.loads(outbox(data_dir, "ls", "--json").stdout)
    assert (document["waiting"]["findings"]["entries"], document["given_up"]) == (1, {"picture.by_hand": 2})


def test_without_a_database_or_a_cloud_there_is_one_clear_line(tmp_path: Path, data_dir: Path) -> None:
    nothing = outbox(tmp_path / "nothing", "ls")
    assert nothing.returncode == 5 and "nothing was examined yet" in nothing.stderr
    for verb in ("drain", "claim"):
        done = outbox(data_dir, verb)
        assert done.returncode == 2 and done.stderr.startswith("derma: cloud.redis"), done.stderr


@pytest.mark.skipif(not available(), reason=MISSING)
def test_drain_sends_what_waits_and_claim_takes_a_name_over(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(data_dir / "derma.db", [(FINDINGS, 0)] * 3, findings=True)
    server = RedisServer(tmp_path / "redis")
    monkeypatch.setenv("DERMA_CLOUD_REDIS", server.access().address)
    monkeypatch.setenv("DERMA_CLOUD_SITE", "room1")
    line = Line(server.access())
    try:
        line.take_site("room1", "another machine")
        assert outbox(data_dir, "claim").stdout == "room1 is this machine's\n"
        done = outbox(data_dir, "drain")
        assert (done.returncode, done.stdout) == (0, "3 entries sent\n"), done.stderr
        assert len(line.read({findings_key("room1", 0): "0-0"}, 9, 0)) == 3
    finally:
        line.close()
        server.stop()

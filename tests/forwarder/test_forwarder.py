"""From the outbox to a real Redis: everything, once, the urgent first; and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from support.outboxes import fill, make_database
from support.redis_server import MISSING, RedisServer, available

from derma_common.cloud.entries import FrameFindings, LesionPicture, Opinion, image_of, pack, unpack
from derma_common.cloud.streams import Line, findings_key, opinions_key, pictures_key
from derma_common.outbox import FINDINGS, PICTURE, Outbox
from derma_common.settings import CloudSettings, RunSettings, Settings
from derma_common.store import StoreReader
from derma_forwarder.forwarder import ATTEMPTS, FETCH_EVERY_S, Forwarder
from derma_forwarder.wiring import open_forwarder

pytestmark = pytest.mark.skipif(not available(), reason=MISSING)
SITE = "room1"


@pytest.fixture(scope="module")
def one_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def server(one_server: RedisServer) -> Iterator[RedisServer]:
    one_server.client().flushall()
    yield one_server


@pytest.fixture
def settings(server: RedisServer, tmp_path: Path) -> Settings:
    make_database(tmp_path / "derma.db")
    cloud = CloudSettings(redis=server.access().address, site=SITE, timeout_s=2.0)
    return Settings(run=RunSettings(data_dir=str(tmp_path)), cloud=cloud)


@pytest.fixture
def line(server: RedisServer) -> Iterator[Line]:
    line = Line(server.access())
    yield line
    line.close()


@pytest.fixture
def opened() -> Iterator[Callable[[Settings], tuple[Forwarder, Outbox]]]:
    with ExitStack() as closing:
        yield lambda settings: open_forwarder(settings, closing)


def everything(forwarder: Forwarder, outbox: Outbox) -> None:
    """Turn until nothing waits."""
    for _ in range(100):
        if not outbox.first(1):
            return
        forwarder.turn()
    raise AssertionError(f"{len(outbox.first(1000))} entries still wait: {forwarder.tally}")


def sent(line: Line, key: str, kind: type) -> list:
    return [unpack(d.data, kind) for d in line.read({key: "0-0"}, 100_000, 0)]


def test_everything_arrives_once_in_order(settings, line, opened) -> None:
    fill(settings.database, [(FINDINGS, 2), (FINDINGS, 0), (PICTURE, 0), (FINDINGS, 2)], findings=True)
    forwarder, outbox = opened(settings)
    everything(forwarder, outbox)
    assert line.sites() == [SITE]
    (urgent,) = sent(line, findings_key(SITE, 0), FrameFindings)
    assert (urgent.run, urgent.camera, urgent.seq, urgent.site) == ("run1", "cam0", 1, SITE)
    assert (urgent.width, urgent.height, urgent.wall_ns, urgent.detector, urgent.version) == (64, 48, 9, "det@1", "0.1")
    (lesion,) = urgent.lesions
    assert (lesion.box, lesion.probabilities["MEL"], lesion.classifier) == ((1.0, 2.0, 11.0, 12.0), 0.7, "cls@1")
    assert [f.seq for f in sent(line, findings_key(SITE, 2), FrameFindings)] == [0, 3]
    (picture,) = sent(line, pictures_key(SITE, 0), LesionPicture)
    assert (picture.seq, picture.number, picture.classifier) == (2, 0, "cls@1")
    assert image_of(picture.picture).shape == (8, 8, 3)
    assert forwarder.tally.sent == {FINDINGS: 3, PICTURE: 1}


def test_what_is_sent_again_after_a_lost_answer_is_there_once(settings, line, opened, monkeypatch) -> None:
    fill(settings.database, [(FINDINGS, 0)] * 5, findings=True)
    forwarder, outbox = opened(settings)
    monkeypatch.setattr(outbox, "sent", lambda rows: None)  # as if we had died before we could note it
    forwarder.turn()
    monkeypatch.undo()
    assert len(outbox.first(10)) == 5
    again, outbox = opened(settings)
    everything(again, outbox)
    assert [f.seq for f in sent(line, findings_key(SITE, 0), FrameFindings)] == [0, 1, 2, 3, 4]


def test_the_line_is_down_and_comes_back(settings, server, line, opened) -> None:
    fill(settings.database, [(FINDINGS, 0), (FINDINGS, 1)], findings=True)
    forwarder, outbox = opened(settings)
    server.stop()
    try:
        waits = [forwarder.turn() for _ in range(4)]
    finally:
        server.start()
    assert all(0.2 < wait < 8 for wait in waits) and sum(waits[2:]) > sum(waits[:2])  # it waits longer and longer
    assert not forwarder.tally.connected and len(outbox.first(10)) == 2
    everything(forwarder, outbox)
    assert forwarder.tally.connected and [f.seq for f in sent(line, findings_key(SITE, 0), FrameFindings)] == [0]


def test_one_entry_that_redis_refuses_does_not_stop_the_others(settings, server, line, opened) -> None:
    fill(settings.database, [(FINDINGS, 0), (FINDINGS, 1), (FINDINGS, 2)], findings=True)
    server.client().set(findings_key(SITE, 1), "no stream")
    forwarder, outbox = opened(settings)
    for _ in range(ATTEMPTS + 1):
        forwarder.turn()
    assert outbox.first(9) == []
    (aside,) = outbox.quarantined()
    assert (aside.seq, aside.attempts) == (1, ATTEMPTS) and "WRONGTYPE" in aside.error
    server.client().delete(findings_key(SITE, 1))
    assert outbox.retry(None) == 1
    everything(forwarder, outbox)
    assert [f.seq for f in sent(line, findings_key(SITE, 1), FrameFindings)] == [1]


def test_a_row_whose_content_is_gone_is_set_aside_at_once(settings, line, opened) -> None:
    fill(settings.database, [(FINDINGS, 0)])  # no frame of it
    fill(settings.database, [(PICTURE, 0), (FINDINGS, 0)], findings=True, first_seq=5)
    forwarder, outbox = opened(settings)
    everything(forwarder, outbox)
    assert [(row.seq, row.error) for row in outbox.quarantined()] == [(0, "its frame is not in the store")]
    assert forwarder.tally.quarantined == 1 and len(sent(line, pictures_key(SITE, 0), LesionPicture)) == 1


def test_a_fresh_database_does_not_hide_behind_the_ids_of_the_old_one(settings, line, opened, tmp_path) -> None:
    fill(settings.database, [(FINDINGS, 0)] * 3, findings=True)
    everything(*opened(settings))
    with Outbox(settings.database) as outbox:
        old_epoch_ms = outbox.epoch_ms
    for file in tmp_path.glob("derma.db*"):
        file.unlink()
    make_database(settings.database)
    with Outbox(settings.database) as outbox:
        outbox.begin_epoch(old_epoch_ms - 60_000)  # and the clock had been set back
    fill(settings.database, [(FINDINGS, 0)], findings=True, first_seq=7)
    forwarder, outbox = opened(settings)
    everything(forwarder, outbox)
    assert [f.seq for f in sent(line, findings_key(SITE, 0), FrameFindings)] == [0, 1, 2, 7]


def test_a_site_belongs_to_one_machine(settings, line, opened) -> None:
    fill(settings.database, [(FINDINGS, 0)], findings=True)
    assert line.owner(SITE, "somebody else") == "somebody else"
    forwarder, outbox = opened(settings)
    forwarder.turn()
    assert len(outbox.first(9)) == 1 and "derma outbox claim" in forwarder.tally.problem


def test_opinions_come_back_once_beside_the_edge_s_word(settings, line, opened, monkeypatch) -> None:
    monkeypatch.setattr("derma_forwarder.forwarder.FETCH_EVERY_S", 0.0)
    assert FETCH_EVERY_S > 0
    fill(settings.database, [(FINDINGS, 0)], findings=True)
    forwarder, outbox = opened(settings)
    everything(forwarder, outbox)
    opinion = Opinion(SITE, "run1", "cam0", 0, 0, {"MEL": 0.4, "NV": 0.6}, ("a@1", "b@1"), "mean", "w1", 5, 6)
    line.send([(opinions_key(SITE), "*", pack(opinion)), (opinions_key(SITE), "*", b"nonsense")])
    line.send([(opinions_key(SITE), "*", pack(replace(opinion, worker="the same, delivered again")))])
    forwarder.turn()
    assert (forwarder.tally.opinions, forwarder.tally.invalid_opinions) == (2, 1)
    with StoreReader(settings.database) as store:
        (finding,) = store.findings("run1")
    assert finding.probabilities == {"MEL": 0.7, "NV": 0.2, "UNK": 0.1}  # the edge's, untouched
    (second,) = finding.second_opinions
    assert (second.probabilities, second.models, second.worker) == ({"MEL": 0.4, "NV": 0.6}, ("a@1", "b@1"), "w1")
    again, _ = opened(settings)
    again.turn()
    assert again.tally.opinions == 0  # read on, not anew

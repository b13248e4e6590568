"""Exams whose findings leave and whose crops are classified elsewhere, while everything between breaks."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.place import Place
from support.redis_server import MISSING, Authority, RedisServer, available
from support.runs import Run, query, up, wait_for
from support.workers import worker

from derma_common.cloud.entries import PRIORITIES, FrameFindings, LesionPicture, image_of, unpack
from derma_common.cloud.streams import Line, findings_key, pictures_key, results_key

pytestmark = pytest.mark.skipif(not available(), reason=MISSING)
SEED = 20261121
SITE = "room1"


def settings(server: RedisServer, **cloud: object) -> list[str]:
    """Return `--set` flags of an edge that uses a server."""
    known = {k.removeprefix("DERMA_CLOUD_").lower(): v for k, v in server.settings(f"site-{SITE}").items()}
    return [word for k, v in (known | {"site": SITE} | cloud).items() for word in ("--set", f"cloud.{k}={v}")]


def arrived(line: Line, key_of: object, kind: type) -> list:
    keys = [key_of(SITE, priority) for priority in PRIORITIES]  # type: ignore[operator]
    return [unpack(d.data, kind) for key in keys for d in line.read({key: "0-0"}, 1_000_000, 0)]


def check_complete(run: Run, line: Line, frames: int, source: str = "cam0") -> None:
    """Every frame delivered once with both its lesions classified, and in the cloud once."""
    assert run.stored() == [(source, seq, "delivered", "") for seq in range(frames)]
    assert query(run.data_dir, "SELECT count(*), count(DISTINCT seq) FROM findings") == [(2 * frames, frames)]
    assert query(run.data_dir, "SELECT count(*) FROM findings WHERE missing <> '' OR probabilities = '{}'") == [(0,)]
    assert query(run.data_dir, "SELECT count(*) FROM outbox") == [(0,)]
    sent = arrived(line, findings_key, FrameFindings)
    assert Counter(f.seq for f in sent) == dict.fromkeys(range(frames), 1)
    assert all(len(f.lesions) == 2 and all(x.probabilities for x in f.lesions) for f in sent)


def drained(run: Run, server: RedisServer) -> None:
    """Let what is left leave, as `derma outbox drain` does after an exam."""
    for name, value in server.settings(f"site-{SITE}").items():
        os.environ[name] = value
    os.environ["DERMA_CLOUD_SITE"] = SITE
    try:
        done = run.derma("outbox", "drain")
    finally:
        for name in [n for n in os.environ if n.startswith("DERMA_CLOUD_")]:
            del os.environ[name]
    assert done.returncode == 0, done.stderr


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis", Authority(tmp_path / "ca"))
    yield server
    server.kill()


def test_findings_and_pictures_of_an_exam_reach_the_cloud(place: Place, tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "plain")
    flags = settings(server, pictures="all", picture_every_s=0, picture_px=64)
    try:
        with up("synthetic://?frames=12&width=320&height=240", *place.models, *flags, **place.dirs) as run:
            summary = run.finish()
        assert summary["outbox_waiting"] == 0, "what is left leaves before the end"
        line = Line(server.access())
        check_complete(run, line, 12)
        pictures = arrived(line, pictures_key, LesionPicture)
        line.close()
    finally:
        server.stop()
    assert sorted((p.seq, p.number) for p in pictures) == [(seq, n) for seq in range(12) for n in range(2)]
    assert {image_of(p.picture).shape for p in pictures} == {(64, 64, 3)}
    assert query(run.data_dir, "SELECT count(*) FROM outbox_given_up") == [(0,)]


@pytest.mark.slow
def test_everything_breaks_and_the_findings_are_complete_and_single(
    place: Place, server: RedisServer, tmp_path: Path
) -> None:
    rng = random.Random(SEED)
    frames = 600
    flags = settings(server, pictures="all", picture_every_s=0, picture_px=64, within_s=2.0, timeout_s=2.0)
    env = server.settings("classifier")
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                worker("derma_classifier.remote", "--model", str(place.classifier), env=env, log=tmp_path / f"w{i}.log")
            )
            for i in range(2)
        ]
        source = f"synthetic://?frames={frames}&width=320&height=240"
        run = stack.enter_context(
            up(
                source,
                *place.models,
                "--classify",
                "both",
                "--classifiers",
                "1",
                "--set",
                "classifier.room=1",
                *flags,
                **place.dirs,
            )
        )
        run.wait_ready("sink.0", "capture.cam0", "remote.0", "forwarder.0")
        broken: list[str] = []
        for event in rng.sample(["worker", "redis", "remote.0", "forwarder.0", "worker", "redis", "sink.0"], 7):
            before = query(run.data_dir, "SELECT count(*) FROM frames")[0][0]
            wait_for(lambda n=before: query(run.data_dir, "SELECT count(*) FROM frames")[0][0] > n + 10, "frames", 60)
            if event == "worker":
                victim = rng.choice(workers)
                victim.kill()
                victim.start()
            elif event == "redis":
                server.kill()
                server.start()
            else:
                os.kill(run.services()[event]["pid"], signal.SIGKILL)
            broken.append(event)
        assert run.process.poll() is None, "the recording must still play when the last thing breaks"
        summary = run.finish()
    assert (summary["captured"], summary["delivered"]) == (frames, frames), broken
    drained(run, server)
    ingest, site = Line(server.access("ingest")), Line(server.access(f"site-{SITE}"))
    check_complete(run, ingest, frames)
    assert site.last_id(results_key(SITE)) != "0-0", "no crop was classified by the other workers"
    ingest.close(), site.close()


def cuts_seen(run: Run) -> int:
    """Return how often the remote process found the line down."""
    return (run.data_dir / "logs/remote.0.log").read_text().count("the line is down")


class Hosts:
    """Two network namespaces with a cable between them."""

    def __init__(self) -> None:
        self.edge, self.cloud = f"derma-edge-{os.getpid()}", f"derma-cloud-{os.getpid()}"
        self._cable = f"dv{os.getpid() % 100000}"
        for name in (self.edge, self.cloud):
            _ip("netns", "add", name)
        _ip("link", "add", f"{self._cable}a", "type", "veth", "peer", "name", f"{self._cable}b")
        for end, name, address in (("a", self.edge, "10.77.0.1/24"), ("b", self.cloud, "10.77.0.2/24")):
            _ip("link", "set", f"{self._cable}{end}", "netns", name)
            _ip("-n", name, "addr", "add", address, "dev", f"{self._cable}{end}")
            _ip("-n", name, "link", "set", f"{self._cable}{end}", "up")
            _ip("-n", name, "link", "set", "lo", "up")

    def cut(self) -> None:
        """Pull the cable."""
        _ip("-n", self.edge, "link", "set", f"{self._cable}a", "down")

    def heal(self) -> None:
        """Plug it in."""
        _ip("-n", self.edge, "link", "set", f"{self._cable}a", "up")

    def close(self) -> None:
        """Remove both hosts."""
        for name in (self.edge, self.cloud):
            _ip("netns", "del", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[Hosts]:
    try:
        hosts = Hosts()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"needs the right to make network namespaces, and iproute2: {error}")
    yield hosts
    hosts.close()


@pytest.mark.slow
def test_crops_are_classified_on_another_host_whose_cable_is_pulled(place: Place, hosts: Hosts, tmp_path: Path) -> None:
    frames = 300
    in_cloud, in_edge = ("ip", "netns", "exec", hosts.cloud), ("ip", "netns", "exec", hosts.edge)
    server = RedisServer(tmp_path / "redis", Authority(tmp_path / "ca"), host="10.77.0.2", prefix=in_cloud)
    flags = settings(server, pictures="all", picture_every_s=0, picture_px=64, within_s=2.0, timeout_s=1.0)
    try:
        with (
            worker("derma_classifier.remote", "--model", str(place.classifier), env=server.settings("classifier"),
                   log=tmp_path / "worker.log", prefix=in_cloud),
            up(f"synthetic://?frames={frames}&width=320&height=240", *place.models, "--classify", "remote", *flags,
               prefix=in_edge, **place.dirs) as run,
        ):  # fmt: skip
            run.wait_ready("sink.0", "remote.0")
            assert not any(name.startswith("classifier") for name in run.services())
            for done in (60, 160):
                wait_for(lambda n=done: query(run.data_dir, "SELECT count(*) FROM frames")[0][0] > n, "frames")
                seen = cuts_seen(run)
                hosts.cut()
                wait_for(lambda n=seen: cuts_seen(run) > n, "the cut to be seen")
                hosts.heal()
            run.finish()
        assert run.stored() == [("cam0", seq, "delivered", "") for seq in range(frames)]
        assert query(run.data_dir, "SELECT count(*) FROM findings WHERE missing <> ''") == [(0,)]
        assert query(run.data_dir, "SELECT count(*), count(DISTINCT seq) FROM findings") == [(2 * frames, frames)]
    finally:
        server.kill()

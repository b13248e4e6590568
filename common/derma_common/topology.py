"""What runs and who talks to whom: the one table of services and the one table of topics.

A newcomer reads this first. A new service or a new message is one more line here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from derma_common import messages as m


class Service(StrEnum):
    """The kinds of processes."""

    CAPTURE = "capture"
    DETECTOR = "detector"
    CLASSIFIER = "classifier"
    SINK = "sink"
    FORWARDER = "forwarder"  # what leaves the machine, and what comes back
    REMOTE = "remote"  # hands crops to classifiers on other machines


PIPELINE = (Service.CAPTURE, Service.DETECTOR, Service.CLASSIFIER, Service.SINK)  # a frame's way


class Pattern(StrEnum):
    """How a topic moves."""

    PIPELINE = "pipeline"  # many push, one pulls: the owner binds
    WORK = "work"  # the owner hands work to whoever stated room for it
    BROADCAST = "broadcast"  # the owner publishes absolute state, whoever misses one gets the next
    REQUEST = "request"  # one question, one answer


@dataclass(frozen=True, slots=True)
class Topic:
    """A socket: who owns (binds) it, how messages move on it, and which."""

    name: str
    owner: str  # a service, or "supervisor"
    pattern: Pattern
    carries: tuple[type, ...]
    per_instance: bool = False  # one socket for each instance of the owner


FRAMES = Topic("frames", Service.DETECTOR, Pattern.PIPELINE, (m.Frame,), per_instance=True)
WORK = Topic("work", Service.DETECTOR, Pattern.WORK, (m.Crops, m.Capacity, m.Farewell), per_instance=True)
RESULTS = Topic("results", Service.SINK, Pattern.PIPELINE, (m.Detections, m.Classifications, m.Close, m.Ask, m.Torn))
ACKS = Topic("acks", Service.SINK, Pattern.BROADCAST, (m.Ack,))
FINDINGS = Topic("findings", Service.SINK, Pattern.BROADCAST, (m.Findings,))
ROSTER = Topic("roster", "supervisor", Pattern.BROADCAST, (m.Roster,))
CONTROL = Topic("control", "supervisor", Pattern.REQUEST, (m.Command, m.Reply))
TOPICS = (FRAMES, WORK, RESULTS, ACKS, FINDINGS, ROSTER, CONTROL)


@dataclass(frozen=True, slots=True)
class Role:
    """A service: its module, what it reads and writes, and whether the run ends without it."""

    module: str
    reads: tuple[Topic, ...]
    writes: tuple[Topic, ...]
    ends_by_itself: bool = False  # a recording's capture is finished at its end
    scales: bool = False  # `derma scale` may change the number of instances
    patience_s: float = 0.0  # of silence on top of the usual: a network's name may take long to resolve


ROLES: dict[Service, Role] = {
    Service.SINK: Role("derma_sink", (RESULTS,), (ACKS, FINDINGS)),
    Service.DETECTOR: Role("derma_detector", (FRAMES,), (WORK, RESULTS)),
    Service.CLASSIFIER: Role("derma_classifier", (WORK,), (RESULTS,), scales=True),
    Service.REMOTE: Role("derma_remote", (WORK,), (RESULTS,)),
    Service.FORWARDER: Role("derma_forwarder", (), (), patience_s=60.0),
    Service.CAPTURE: Role("derma_capture", (ACKS, ROSTER), (FRAMES, RESULTS), ends_by_itself=True),
}


def instance_name(service: Service, index: int | str) -> str:
    """Return the name of one process, such as `classifier.0` or `capture.cam0`."""
    return f"{service}.{index}"


def service_of(instance: str) -> Service:
    """Return the service of an instance's name."""
    return Service(instance.split(".", 1)[0])


def owner_name(instance: str, incarnation: int) -> str:
    """Return the name of one incarnation of a detector, as workers count what it sent them."""
    return f"{instance}/{incarnation}"


def instance_of(owner: str) -> str:
    """Return the instance of an owner's name."""
    return owner.rpartition("/")[0]


def detector_of(camera_index: int, detectors: int) -> str:
    """Return the detector that a camera belongs to, for the whole run."""
    return instance_name(Service.DETECTOR, camera_index % detectors)


def socket_path(directory: Path, topic: Topic, instance: str = "") -> Path:
    """Return the ipc socket of a topic in the run directory."""
    return directory / (f"{topic.name}-{instance}.sock" if topic.per_instance else f"{topic.name}.sock")

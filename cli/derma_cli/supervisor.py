"""The supervisor: desired state in, running processes out, one turn of a loop at a time.

Every turn reaps the dead, finds the hung, starts what should run, publishes the roster and answers
commands. Nothing here blocks longer than a turn, and nothing decides by anything but heartbeats and exit statuses.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from derma_cli.endpoints import Endpoints
from derma_cli.mps import Mps, gpu_environment
from derma_cli.process import Process
from derma_common.errors import RunError, error_of
from derma_common.messages import Command, Reply, Roster, ServiceState, Suspect
from derma_common.plan import RunPlan
from derma_common.settings import Settings
from derma_common.topology import CONTROL, ROLES, ROSTER, Service, detector_of, instance_name, service_of
from derma_common.tracing import TRACES_FILE
from derma_common.transport import Hub, answer

log = logging.getLogger(__name__)
TURN_S = 0.1
ROSTER_EVERY_S = 0.25
MAX_CLASSIFIERS = 64
# a classifier leaves when its detectors have confirmed that, so those go after it; the forwarder sends what is left
STOP_ORDER = (
    (Service.CAPTURE,), (Service.CLASSIFIER, Service.REMOTE), (Service.DETECTOR, Service.SINK), (Service.FORWARDER,)
)  # fmt: skip


class Supervisor:
    """Keeps the services of one run as they should be."""

    def __init__(self, plan: RunPlan, say: Callable[[str], None]) -> None:
        """`say` gets a line for the user when something noteworthy happens."""
        self.plan, self._tell = plan, say
        self.settings: Settings = plan.settings
        self._run_dir = Path(plan.run_dir)
        self._logs = self.settings.data_dir / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)
        for old in (*self._logs.glob("*.log"), self.settings.data_dir / TRACES_FILE):
            old.unlink(missing_ok=True)
        self._endpoints = Endpoints(self.settings)  # first of what is opened: its address may be a wrong one
        self._mps = Mps(self._run_dir, self._logs) if self.settings.gpu.mps else None
        self._environments = {service: gpu_environment(self.settings, service, self._mps) for service in Service}
        # children read this end; only we hold the other, so it closes with us
        self._alive_fd, self._alive_end = os.pipe()
        self.hub = Hub(self._run_dir)
        self._roster_link = self.hub.publish(ROSTER)
        self._control = self.hub.serve_requests(CONTROL)
        self.processes: dict[str, Process] = {}
        self.classifiers = 0 if self.settings.classifier.where == "remote" else self.settings.classifier.workers
        self.ended: set[str] = set()  # captures that reached their end
        self.losses: Counter[str] = Counter()
        self.restarts: Counter[str] = Counter()
        self._deaths: Counter[tuple[str, int]] = Counter()
        self._roster_at = 0.0
        self.asked_down = False
        self._finishing = False
        self.stopping = False

    def _say(self, line: str) -> None:
        log.warning("%s", line)
        self._tell(line)

    # -- desired state ------------------------------------------------------------------------------------

    def desired(self) -> list[str]:
        """Return the instances that should run now."""
        cameras = self.settings.camera
        detectors = {detector_of(i, self.settings.detector.workers) for i in range(len(cameras))}
        names = [instance_name(Service.SINK, 0), *sorted(detectors)]
        names += [instance_name(Service.CLASSIFIER, i) for i in range(self.classifiers)]
        if self.settings.classifier.where != "local":
            names.append(instance_name(Service.REMOTE, 0))
        if self.settings.cloud.redis:
            names.append(instance_name(Service.FORWARDER, 0))
        captures = [] if self._finishing else [instance_name(Service.CAPTURE, c.name) for c in cameras]
        return names + [name for name in captures if name not in self.ended]

    def turn(self) -> None:
        """Do one turn. Raises UserError when the run cannot go on."""
        self.hub.wait(TURN_S)
        answer(self._control, self._obey)
        now = time.monotonic()
        for process in list(self.processes.values()):
            self._look_after(process, now)
        if not self.stopping:
            self._ensure_running(now)
        if now - self._roster_at >= ROSTER_EVERY_S:
            self._publish_roster(now)
        self._endpoints.show(self.desired(), self.processes.values(), self.restarts, self.losses)

    def _ensure_running(self, now: float) -> None:
        desired = self.desired()
        for name in desired:
            process = self.processes.get(name)
            if process is None:
                process = self.processes[name] = Process(
                    name, self._run_dir, self._logs / f"{name}.log", self._alive_fd,
                    self._environments[service_of(name)],
                )  # fmt: skip
            if not process.running and now >= process.start_at:
                if process.incarnation >= 0:
                    self.restarts[name] += 1
                process.start()
                log.info("%s started (start %d, pid %d)", name, process.incarnation, process.pid)
        for name, process in list(self.processes.items()):
            if name not in desired and process.running and not process.leaving:
                process.leave()

    # -- deaths -------------------------------------------------------------------------------------------

    def _look_after(self, process: Process, now: float) -> None:
        process.beat()
        status = process.ended()
        if status is not None:
            self._buried(process, status, now)
            return
        if not process.running:
            return
        limits = self.settings.supervisor
        starting = process.last_beat is None or process.last_beat.state == "starting"
        limit = (limits.start_timeout_s if starting else limits.hang_after_s) + ROLES[process.service].patience_s
        if process.silent_s(now) > limit:
            self._say(f"{process.instance} gave no sign of life for {limit:g} s, replacing it")
            self._kill(process)

    def _kill(self, process: Process) -> None:
        """Kill a process, after MPS has let go of it."""
        if self._mps is not None and process.running:
            self._mps.release(process.pid)
        process.kill()

    def _buried(self, process: Process, status: int, now: float) -> None:
        """Decide what the end of a process means."""
        beat = process.last_beat
        if process.leaving or self.stopping:
            if process.instance not in self.desired():
                self.processes.pop(process.instance, None)
            return
        if status == 0 and ROLES[process.service].ends_by_itself:
            self.ended.add(process.instance)
            return
        mendable = error_of(status)
        if mendable is not None:  # to start it again would not help
            raise mendable(process.last_words() or f"{process.instance} ended with status {status}")
        self.losses[process.instance] += 1
        if beat is not None and beat.doing is not None:
            self._deaths[beat.doing] += 1
        useful = beat is not None and beat.handled > 0
        process.fruitless = 0 if useful else process.fruitless + 1
        self._say(f"{process.instance} ended ({_why(status)}), starting it again")
        limits = self.settings.supervisor
        if process.fruitless >= limits.fruitless_starts:
            raise RunError(
                f"{process.instance} died {process.fruitless} times before doing any work; its last words: "
                f"{process.last_words() or '(none)'}"
            )
        process.start_at = now + (limits.back_off_s * 2 ** (process.fruitless - 1) if process.fruitless else 0.0)
        self._roster_at = 0.0  # tell at once

    # -- what others are told -----------------------------------------------------------------------------

    def roster(self) -> Roster:
        """Return the present roster."""
        suspects = tuple(Suspect(camera, seq, n) for (camera, seq), n in self._deaths.most_common(64))
        ready = tuple(name for name, process in self.processes.items() if process.ready)
        return Roster(ready, dict(self.losses), self.classifiers, suspects)

    def _publish_roster(self, now: float) -> None:
        self._roster_at = now
        self._roster_link.send(self.roster())

    # -- commands -----------------------------------------------------------------------------------------

    def _obey(self, command: Command) -> Reply:
        match command.verb:
            case "ps":
                return Reply(services=self.states())
            case "down":
                self.asked_down = True
                return Reply(text="going down")
            case "scale":
                return self._scale(command.argument)
            case _:
                return Reply(error=f"unknown command {command.verb!r}")

    def _scale(self, argument: str) -> Reply:
        service, _, number = argument.partition("=")
        scaling = [s.value for s, role in ROLES.items() if role.scales]
        if service not in scaling:
            return Reply(error=f"{service or argument!r} does not scale; there is: {', '.join(scaling)}")
        if not number.isdigit() or not 0 <= int(number) <= MAX_CLASSIFIERS:
            return Reply(error=f"{service}={number}: the number must be 0 to {MAX_CLASSIFIERS}")
        self.classifiers = int(number)
        self._roster_at = 0.0
        return Reply(text=f"{service}={self.classifiers}")

    def states(self) -> tuple[ServiceState, ...]:
        """Return the rows of `derma ps`."""
        now = time.monotonic()
        rows = []
        for name, p in self.processes.items():
            state = p.last_beat.state if p.running and p.last_beat else ("starting" if p.running else "down")
            rows.append(
                ServiceState(
                    name, state, p.pid, self.restarts[name], round(now - p.started, 1), round(p.silent_s(now), 2),
                    p.last_beat.handled if p.last_beat else 0, p.last_beat.metrics_port if p.last_beat else 0,
                )
            )  # fmt: skip
        return tuple(rows)

    # -- the end ------------------------------------------------------------------------------------------

    @property
    def all_ended(self) -> bool:
        """Whether every camera reached its end."""
        return len(self.ended) == len(self.settings.camera)

    def finish_captures(self) -> None:
        """Ask the captures to take nothing more; they leave when all in flight is durable."""
        self._finishing = True

    @property
    def captures_running(self) -> bool:
        """Whether a capture still lives."""
        return any(p.running for p in self.processes.values() if p.service is Service.CAPTURE)

    def stop(self) -> None:
        """Stop everything, stage by stage from the source; what does not leave in time is killed."""
        self.stopping = True
        for services in STOP_ORDER:
            group = [p for p in self.processes.values() if p.service in services and p.running]
            for process in group:
                process.leave()
            deadline = time.monotonic() + self.settings.supervisor.stop_timeout_s
            for process in group:
                if not process.wait(max(0.0, deadline - time.monotonic())):
                    self._say(f"{process.instance} did not leave in time, killing it")
                    self._kill(process)
                    process.wait(5.0)

    def close(self) -> None:
        """Kill what is left and close the sockets."""
        for process in self.processes.values():
            self._kill(process)
        for process in self.processes.values():
            process.wait(5.0)
        if self._mps is not None:
            self._mps.close()
        self._endpoints.close()
        self.hub.close()
        os.close(self._alive_end)
        os.close(self._alive_fd)


def _why(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"

"""`derma up`: start all services, follow them to the end, print the summary."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from derma_cli.options import TILE, AsJson, ConfigFile, DataDir, parse_assignments, resolve
from derma_cli.progress import Progress
from derma_cli.rundir import RunDir, already_up, is_alive, make_data_dir, remove_dead, run_dir_of
from derma_cli.runners import settled
from derma_cli.sources import cameras_of
from derma_cli.summary import Flow, Summary, add_flows, summarise
from derma_cli.supervisor import Supervisor
from derma_common import logs
from derma_common.cloud.access import access_of
from derma_common.config import tile_px_of
from derma_common.errors import ConfigError, ModelError, RunError, error_of
from derma_common.heartbeat import read_beat
from derma_common.inference.card import ModelCard, read_card, verified_file
from derma_common.messages import Command
from derma_common.plan import RunPlan, write_plan
from derma_common.settings import Settings
from derma_common.shipped import model_dir
from derma_common.store import StoreReader
from derma_common.topology import CONTROL, Service, instance_name
from derma_common.transport import request

READY_WITHIN_S = 90.0


def up(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME=]SOURCE",
            help="Video files, pictures, folders, quoted patterns ('*.jpg'), camera numbers, rtsp:// or http:// "
            "addresses; sample, the shipped recording; synthetic://?frames=N&seed=S, drawn pictures.",
        ),
    ] = None,
    detach: Annotated[bool, typer.Option("-d", "--detach", help="Leave it running in the background.")] = False,
    classifiers: Annotated[int | None, typer.Option(help="Classifier processes at the start.")] = None,
    live: Annotated[
        bool, typer.Option("--live", help="Play recordings at their own speed, as a camera would.")
    ] = False,
    tile: Annotated[str | None, TILE] = None,
    detector: Annotated[str | None, typer.Option(help="Detector model: a shipped name or a folder.")] = None,
    classifier: Annotated[str | None, typer.Option(help="Classifier model: a shipped name or a folder.")] = None,
    classify: Annotated[
        str | None,
        typer.Option(metavar="local|remote|both", help="Where crops are classified; away from here by cloud.redis."),
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override any setting.")
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Examine sources: start all services, stop at the end of the recordings or on Ctrl-C, print the summary."""
    flags = parse_assignments(assignments or [])
    flags |= {
        "classifier.workers": classifiers,
        "detector.model": detector,
        "classifier.model": classifier,
        "classifier.where": classify,
    }
    settings = resolve(config, data_dir, flags)
    settings = replace(
        settings, camera=cameras_of(sources or [], live, None if tile is None else tile_px_of(tile), settings)
    )
    if detach:
        _detach(settings)
        return
    summary = run(settings)
    if as_json:
        print(json.dumps(summary.as_json()))
    else:
        print("\n".join(summary.lines()))
        if summary.findings:
            place = f" --data-dir {shlex.quote(data_dir)}" if data_dir else ""
            print(f"see `derma findings{place}`; `derma findings{place} --pictures DIR` draws them", file=sys.stderr)


def run(settings: Settings) -> Summary:
    """Run the services to the end of the run and return its summary. Raises UserError when the run failed."""
    plan = _plan(settings)
    make_data_dir(settings)
    asked = _Asked()
    with RunDir(Path(plan.run_dir)) as run_dir:
        write_plan(plan)
        progress = Progress(sys.stderr, Path(plan.run_dir), [c.name for c in settings.camera])
        supervisor = Supervisor(plan, progress.say)
        log_file = settings.data_dir / "logs" / "supervisor.log"
        try:
            with logs.into(log_file, settings, "supervisor", plan.run_id):
                with asked:
                    _follow(supervisor, progress, asked)
                flow = _final_flow(plan)
                supervisor.stop()
        finally:
            supervisor.close()
            progress.close()
        left = run_dir.bytes_left()
    with StoreReader(settings.database) as store:
        summary = summarise(plan.run_id, flow, dict(supervisor.restarts), left, store, bool(settings.cloud.redis))
    if (summary.delivered, summary.dropped) != (summary.stored["delivered"], summary.stored["dropped"]):
        raise RunError(
            f"run {plan.run_id}: the captures count delivered {summary.delivered} and dropped {summary.dropped}, "
            f"the database holds {summary.stored}; please report this with the logs"
        )
    return summary


def _plan(settings: Settings) -> RunPlan:
    if settings.cloud.redis:
        access_of(settings.cloud)
    elif settings.classifier.where != "local":
        raise ConfigError(f"classifier.where = {settings.classifier.where!r} needs a cloud.redis to send crops to")
    detector, classifier = model_dir(settings.detector.model), model_dir(settings.classifier.model)
    models: dict[str, tuple[Path, ModelCard]] = {}
    for directory, kind in ((detector, "detector"), (classifier, "classifier")):
        card = read_card(directory)
        if card.kind != kind:
            raise ModelError(f"{directory} is a {card.kind}, a {kind} is needed here")
        verified_file(card, directory)
        models[kind] = directory, card
    settings = settled(settings, models, lambda line: print(f"derma: {line}", file=sys.stderr))
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    return RunPlan(run_id, str(run_dir_of(settings)), settings, str(detector), str(classifier))


class _Asked:
    """Ctrl-C and SIGTERM, recorded for the loop; a second one does not wait for what is in flight."""

    def __init__(self) -> None:
        self.times = 0

    def _ask(self, *_: object) -> None:
        self.times += 1

    def __enter__(self) -> None:
        self._old = {s: signal.signal(s, self._ask) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)


def _follow(supervisor: Supervisor, progress: Progress, asked: _Asked) -> None:
    """Turn until every camera has ended or somebody wants the end."""
    finishing = False
    while not supervisor.all_ended:
        supervisor.turn()
        progress.show()
        wanted = asked.times > 0 or supervisor.asked_down
        if wanted and not finishing:
            finishing = True
            progress.say("finishing what is in flight")
            _finish(supervisor, progress, asked)
            return


def _finish(supervisor: Supervisor, progress: Progress, asked: _Asked) -> None:
    """Let the captures leave, with everything else still running."""
    supervisor.finish_captures()
    patience_s = supervisor.settings.supervisor.stop_timeout_s + supervisor.settings.capture.retry_after_s
    deadline = time.monotonic() + patience_s
    while supervisor.captures_running and asked.times < 2 and time.monotonic() < deadline:
        supervisor.turn()
        progress.show()


def _final_flow(plan: RunPlan) -> Flow:
    reports = []
    for camera in plan.settings.camera:
        beat = read_beat(Path(plan.run_dir), instance_name(Service.CAPTURE, camera.name))
        reports.append(beat.report if beat else {})
    return add_flows(reports)


def _detach(settings: Settings) -> None:
    """Start the same command in the background and wait until its services are at work."""
    run_dir = run_dir_of(settings)
    if not remove_dead(run_dir) and is_alive(run_dir):
        raise already_up(run_dir)
    arguments = [a for a in sys.argv[1:] if a not in ("-d", "--detach")]
    print("starting the services", file=sys.stderr)
    make_data_dir(settings)
    log_file = settings.data_dir / "up.log"
    with log_file.open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "derma_cli", *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline:
        if child.poll() is not None:
            text = log_file.read_text(errors="replace").strip()
            if child.returncode == 0:
                print(text)
                return
            raise (error_of(child.returncode) or RunError)(
                (text.splitlines() or ["it ended"])[-1].removeprefix("derma: ")
            )
        if is_alive(run_dir) and _all_ready(run_dir):
            print(f"up (pid {child.pid}); see `derma ps`, `derma logs -f`, end with `derma down`", file=sys.stderr)
            return
        time.sleep(0.1)
    os.killpg(child.pid, signal.SIGTERM)
    raise RunError(f"the services were not ready after {READY_WITHIN_S:.0f} s; see {log_file}")


def _all_ready(run_dir: Path) -> bool:
    reply = request(run_dir, CONTROL, Command("ps"), timeout_s=1.0)
    return reply is not None and bool(reply.services) and all(s.state == "ready" for s in reply.services)

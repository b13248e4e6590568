"""`derma top`: the run at a glance from its processes' /metrics; `--once`: the latency budget from the store."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated, Any

import typer

from derma_cli.budget import budget_of
from derma_cli.options import AsJson, ConfigFile, DataDir, resolve
from derma_cli.rundir import is_alive, run_dir_of
from derma_cli.scrapes import Change, scrape
from derma_common.contract import STAGES
from derma_common.errors import ResourceError
from derma_common.settings import Settings
from derma_common.store import StoreReader

CLEAR = "\x1b[H\x1b[J"


def top(
    once: Annotated[bool, typer.Option("--once", help="Print the latency budget of the present or last run.")] = False,
    interval: Annotated[float, typer.Option("--interval", "-n", min=0.2, help="Seconds between two looks.")] = 2.0,
    as_json: AsJson = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Show rates, latencies, what waits and the workers of the run, until Ctrl-C."""
    settings = resolve(config, data_dir)
    if once:
        _once(settings, as_json)
        return
    if not is_alive(run_dir_of(settings)):
        raise ResourceError(f"no run is up for {settings.data_dir}; `derma top --once` shows the last one's latencies")
    if not settings.metrics.enabled:
        raise ResourceError("metrics.enabled is false, so there is nothing to look at; see `derma ps`")
    try:
        _follow(settings, interval, as_json)
    except KeyboardInterrupt:
        return


def _once(settings: Settings, as_json: bool) -> None:
    with StoreReader(settings.database) as store:
        run = store.latest_run()
        if run is None:
            raise ResourceError("nothing was examined yet")
        budget = budget_of(store, run)
    print(json.dumps(budget.as_json()) if as_json else "\n".join(budget.lines()))


def _follow(settings: Settings, interval_s: float, as_json: bool) -> None:
    before = scrape(settings.data_dir)
    while is_alive(run_dir_of(settings)):
        time.sleep(interval_s)
        after = scrape(settings.data_dir)
        if after.by_instance:
            seen = glance(Change(before, after))
            if as_json:
                print(json.dumps(seen), flush=True)
            else:
                print((CLEAR if sys.stdout.isatty() else "") + "\n".join(lines(seen)) + "\n", flush=True)
        before = after
    print("the run has ended; `derma top --once` shows where its frames spent their time", file=sys.stderr)


def glance(change: Change) -> dict[str, Any]:
    """Return all that is shown, as plain data; times in ms, rates per second."""
    return {
        "seconds": round(change.seconds, 2),
        "end_to_end_ms": _ms(change, "derma_frame_latency_seconds"),
        "cameras": {labels["camera"]: _camera(change, labels["camera"])
                    for _, labels, _ in change.after.values("derma_credits")},
        "stages": {stage: _stage(change, stage) for stage in STAGES},
        "crops_waiting": round(change.after.total("derma_pending_crops")),
        "workers": {instance: _worker(change, instance) for instance in sorted(change.after.by_instance)},
    }  # fmt: skip


def _ms(change: Change, histogram: str, **labels: str) -> dict[str, float | None]:
    found = {f"p{q}": change.quantile(q / 100, histogram, **labels) for q in (50, 99)}
    return {name: None if value is None else round(1000 * value, 1) for name, value in found.items()}


def _camera(change: Change, camera: str) -> dict[str, Any]:
    now = change.after
    states = [labels["state"] for _, labels, value in now.values("derma_camera_state", camera=camera) if value]
    return {
        "state": states[0] if states else "?",
        "captured": round(change.rate("derma_frames", camera=camera, state="captured"), 1),
        "delivered": round(change.rate("derma_frame_outcomes_total", camera=camera, outcome="delivered"), 1),
        "dropped": round(change.rate("derma_frame_outcomes_total", camera=camera, outcome="dropped"), 1),
        "in_flight": round(now.total("derma_frames", camera=camera, state="in_flight")),
        "credits": round(now.total("derma_credits", camera=camera)),
        "age_ms": round(1000 * now.total("derma_picture_age_seconds", camera=camera)),
    }


def _stage(change: Change, stage: str) -> dict[str, Any]:
    ready = round(change.after.total("derma_workers", stage=stage, state="ready"))
    return {
        "ready": ready,
        "wanted": round(change.after.total("derma_workers", stage=stage, state="wanted")),
        "messages": round(change.rate("derma_stage_service_seconds_count", stage=stage), 1),
        "wait_ms": _ms(change, "derma_stage_wait_seconds", stage=stage),
        "service_ms": _ms(change, "derma_stage_service_seconds", stage=stage),
        "busy": round(change.rate("derma_stage_service_seconds_sum", stage=stage) / max(1, ready), 3),
    }


def _worker(change: Change, instance: str) -> dict[str, Any] | None:
    now = change.after
    if now.by_instance[instance] is None:
        return None
    beats = [age for _, labels, age in now.values("derma_worker_heartbeat_age_seconds", worker=instance)]
    return {
        "restarts": round(now.total("derma_worker_restarts_total", worker=instance)),
        "beat_s": round(beats[0], 2) if beats else None,
        "messages": round(change.rate("derma_stage_service_seconds_count", instance), 1),
        "cpu": round(change.rate("derma_process_cpu_seconds_total", instance), 2),
        "memory_mb": round(now.total("derma_process_resident_memory_bytes", instance) / 1e6),
        "files": round(now.total("derma_process_open_fds", instance)),
    }


def lines(seen: dict[str, Any]) -> list[str]:
    """Return the glance for a person."""
    whole = seen["end_to_end_ms"]
    out = [f"end to end p50 {_n(whole['p50'])} ms, p99 {_n(whole['p99'])} ms; {seen['crops_waiting']} crops wait", ""]
    out.append(f"{'camera':<18}{'state':<9}{'captured/s':>11}{'delivered/s':>12}{'dropped/s':>10}{'in flight':>11}"
               f"{'age ms':>8}")  # fmt: skip
    for name, c in seen["cameras"].items():
        flight = f"{c['in_flight']}/{c['credits']}"
        out.append(f"{name:<18}{c['state']:<9}{c['captured']:>11}{c['delivered']:>12}{c['dropped']:>10}{flight:>11}"
                   f"{c['age_ms']:>8}")  # fmt: skip
    out += ["", f"{'stage':<18}{'workers':<9}{'messages/s':>11}{'wait p50':>10}{'p99 ms':>8}{'work p50':>10}"
            f"{'p99 ms':>8}{'busy':>7}"]  # fmt: skip
    for name, s in seen["stages"].items():
        workers = f"{s['ready']}/{s['wanted']}"
        wait, service = s["wait_ms"], s["service_ms"]
        out.append(f"{name:<18}{workers:<9}{s['messages']:>11}{_n(wait['p50']):>10}{_n(wait['p99']):>8}"
                   f"{_n(service['p50']):>10}{_n(service['p99']):>8}{s['busy']:>7.0%}")  # fmt: skip
    out += ["", f"{'worker':<18}{'restarts':>9}{'beat s':>8}{'messages/s':>12}{'cores':>7}{'memory MB':>11}"
            f"{'files':>7}"]  # fmt: skip
    for name, w in seen["workers"].items():
        if w is None:
            out.append(f"{name:<18} does not answer")
            continue
        out.append(f"{name:<18}{w['restarts']:>9}{_n(w['beat_s']):>8}{w['messages']:>12}{w['cpu']:>7}{w['memory_mb']:>11}"
                   f"{w['files']:>7}")  # fmt: skip
    return out


def _n(value: float | None) -> str:
    return "–" if value is None else f"{value:g}"

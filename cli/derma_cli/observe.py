"""`derma observe`: Prometheus, and Grafana where it is installed, for the runs of this data directory.

Both listen on the loopback only, keep their own data in the data directory, and end with this command. Configuration,
rules, dashboards and runbooks are the shipped ones.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from derma_cli.endpoints import TARGETS_FILE
from derma_cli.options import AsJson, ConfigFile, DataDir, resolve
from derma_cli.rundir import is_alive, run_dir_of
from derma_common.errors import ConfigError, ResourceError
from derma_common.shipped import shipped

HOST = "127.0.0.1"
READY_WITHIN_S = 60.0
STOP_WITHIN_S = 10.0
GRAFANA_HOMES = (Path("/usr/share/grafana"),)
NO_PROMETHEUS = (
    "prometheus is not installed; on Debian: apt install prometheus. For the dashboards also Grafana: "
    "https://grafana.com/grafana/download"
)
NO_GRAFANA = "grafana is not installed, so there are no dashboards (https://grafana.com/grafana/download)"
_LIBC = ctypes.CDLL(None)  # opened here: between fork and exec little may be done
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the loopback needs no proxy


class Server:
    """A server of somebody else, started by us, its output in a file."""

    def __init__(self, name: str, command: Sequence[str], log: Path, more: Mapping[str, str], url: str) -> None:
        self.name, self.url, self._log = name, url, log
        with log.open("wb") as output:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=os.environ | more, process_group=0,
                preexec_fn=_end_with_us,
            )  # fmt: skip

    def check(self) -> None:
        """Raise ResourceError with its last words when it has ended."""
        if self._child.poll() is not None:
            last = (self._log.read_text(errors="replace").strip().splitlines() or ["(no output)"])[-1]
            raise ResourceError(f"{self.name} ended with status {self._child.returncode}: {last} (see {self._log})")

    def answers(self, path: str) -> bool:
        """Say whether it answers on `path`. Raises ResourceError when it has ended."""
        self.check()
        try:
            with _DIRECT.open(self.url + path, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def close(self) -> None:
        """Ask it to end; kill it when it does not."""
        self._child.terminate()
        try:
            self._child.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def observe(
    port: Annotated[int, typer.Option(help="Prometheus' port on the loopback.")] = 9090,
    grafana_port: Annotated[int, typer.Option(help="Grafana's port on the loopback.")] = 3000,
    interval: Annotated[int, typer.Option(min=1, max=60, help="Seconds between two scrapes.")] = 5,
    as_json: AsJson = False,
    config: ConfigFile = None,
    data_dir: DataDir = None,
) -> None:
    """Watch runs with Prometheus and Grafana, until Ctrl-C."""
    settings = resolve(config, data_dir)
    program = shutil.which("prometheus")
    if program is None:
        raise ResourceError(NO_PROMETHEUS)
    home = settings.data_dir / "observe"
    home.mkdir(parents=True, exist_ok=True)
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: asked.set())
    servers = [start_prometheus(program, home, settings.data_dir / TARGETS_FILE, port, interval)]
    try:
        grafana = grafana_command()
        if grafana is None:
            print(NO_GRAFANA, file=sys.stderr)
        else:
            servers.append(start_grafana(grafana, home, servers[0].url, grafana_port, interval))
        if _ready(servers, asked):
            if not is_alive(run_dir_of(settings)):
                print("no run is up yet; it is watched as soon as one is", file=sys.stderr)
            urls = {server.name: server.url for server in servers}
            for name, url in urls.items():
                print(f"{name}: {url}", file=sys.stderr)
            if as_json:
                print(json.dumps(urls), flush=True)
        while not asked.wait(0.25):
            for server in servers:
                server.check()
    finally:
        for server in reversed(servers):
            server.close()


def _ready(servers: list[Server], asked: threading.Event) -> bool:
    """Wait until all answer; False when the end was asked for before. Raises ResourceError."""
    paths = {"prometheus": "/-/ready", "grafana": "/api/health"}
    for _ in range(round(READY_WITHIN_S / 0.1)):
        if all(server.answers(paths[server.name]) for server in servers):
            return True
        if asked.wait(0.1):
            return False
    raise ResourceError(f"prometheus or grafana did not answer within {READY_WITHIN_S:.0f} s")


def start_prometheus(program: str, home: Path, targets: Path, port: int, interval_s: int) -> Server:
    """Write the configuration of this data directory and start Prometheus. Raises ConfigError for a taken port."""
    _check_free(port, "--port")
    url = f"http://{HOST}:{port}"
    shutil.copytree(shipped("deploy/prometheus") / "rules", home / "rules", dirs_exist_ok=True)
    text = (shipped("deploy/prometheus") / "prometheus.yml").read_text(encoding="utf-8")
    text = text.replace("[prometheus-targets.json]", json.dumps([str(targets)]))
    text = re.sub(r"(scrape_interval|evaluation_interval): \w+", rf"\1: {interval_s}s", text)
    text = re.sub(r"scrape_timeout: \w+", f"scrape_timeout: {min(4, interval_s)}s", text)
    (home / "prometheus.yml").write_text(text, encoding="utf-8")
    command = [
        program, f"--config.file={home / 'prometheus.yml'}", f"--storage.tsdb.path={home / 'prometheus'}",
        "--storage.tsdb.retention.time=15d", "--storage.tsdb.retention.size=1GB", f"--web.listen-address={HOST}:{port}",
        f"--web.external-url={url}", f"--web.user-assets={shipped('docs/runbooks')}", "--log.level=warn",
    ]  # fmt: skip
    return Server("prometheus", command, home / "prometheus.log", {}, url)


def grafana_command() -> list[str] | None:
    """Return how to start the Grafana that is installed, None when there is none."""
    for name, arguments in (("grafana", ["server"]), ("grafana-server", [])):
        program = shutil.which(name)
        if program is not None:
            homes = (*GRAFANA_HOMES, Path(program).resolve().parents[1])
            home = next((h for h in homes if (h / "conf" / "defaults.ini").is_file()), homes[-1])
            return [program, *arguments, "--homepath", str(home)]
    return None


def start_grafana(command: list[str], home: Path, prometheus_url: str, port: int, interval_s: int) -> Server:
    """Start Grafana with the shipped dashboards; whoever reaches the loopback may look, nobody may change."""
    _check_free(port, "--grafana-port")
    deploy = shipped("deploy/grafana")
    settings = {
        "SERVER_HTTP_ADDR": HOST, "SERVER_HTTP_PORT": str(port), "PATHS_DATA": str(home / "grafana"),
        "PATHS_LOGS": str(home / "grafana" / "log"), "PATHS_PLUGINS": str(home / "grafana" / "plugins"),
        "PATHS_PROVISIONING": str(deploy / "provisioning"), "AUTH_ANONYMOUS_ENABLED": "true",
        "AUTH_ANONYMOUS_ORG_ROLE": "Viewer", "AUTH_DISABLE_LOGIN_FORM": "true", "AUTH_BASIC_ENABLED": "false",
        "ANALYTICS_REPORTING_ENABLED": "false", "ANALYTICS_CHECK_FOR_UPDATES": "false",
        "ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false", "NEWS_NEWS_FEED_ENABLED": "false",
        "DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": str(deploy / "dashboards" / "derma-latency.json"),
    }  # fmt: skip
    more = {f"GF_{key}": value for key, value in settings.items()}
    more |= {"DERMA_PROMETHEUS_URL": prometheus_url, "DERMA_DASHBOARDS": str(deploy / "dashboards")}
    more |= {"DERMA_SCRAPE_INTERVAL": f"{interval_s}s"}
    return Server("grafana", command, home / "grafana.log", more, f"http://{HOST}:{port}")


def _check_free(port: int, flag: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise ConfigError(f"port {port} cannot be used ({error.strerror}); choose another with {flag}") from error


def _end_with_us() -> None:
    """Let the kernel end the server when this command is killed."""
    _LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG

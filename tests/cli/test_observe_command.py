"""`derma observe` without the programs that it starts, and with ones that only say how they were started."""

from __future__ import annotations

import json
import socket
import sys

import pytest
from support.observing import free_port

from derma_cli import observe
from derma_common.errors import ConfigError, ResourceError

SAYS = """#!{python}
import json, os, pathlib, sys, time
said = {{"arguments": sys.argv[1:], "environment": dict(os.environ)}}
pathlib.Path({file!r}).write_text(json.dumps(said))
"""


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A folder that is the whole PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder, name):
    """Make a program that writes how it was started; return the file that it writes."""
    said = folder / f"{name}.said"
    path = folder / name
    path.write_text(SAYS.format(python=sys.executable, file=str(said)))
    path.chmod(0o755)
    return said


def test_without_prometheus_it_says_what_to_install(programs, tmp_path):
    with pytest.raises(ResourceError, match="apt install prometheus") as error:
        observe.observe(data_dir=str(tmp_path))
    assert error.value.exit_code == 5


def test_prometheus_listens_on_the_loopback_with_the_shipped_rules_and_this_data_directory(programs, tmp_path, until):
    said, port = program(programs, "prometheus"), free_port()
    targets = tmp_path / 'data "quoted"' / "prometheus-targets.json"
    server = observe.start_prometheus(str(programs / "prometheus"), tmp_path, targets, port, 1)
    until(said.exists)
    until(lambda: said.read_text().endswith("}"))
    server.close()
    arguments = json.loads(said.read_text())["arguments"]
    assert f"--web.listen-address=127.0.0.1:{port}" in arguments
    assert f"--storage.tsdb.path={tmp_path / 'prometheus'}" in arguments
    written = (tmp_path / "prometheus.yml").read_text()
    assert json.dumps(str(targets)) in written and "scrape_interval: 1s" in written and "scrape_timeout: 1s" in written
    assert {path.name for path in (tmp_path / "rules").iterdir()} == {"alerts.yml", "recording.yml"}


def test_a_server_that_ends_is_reported_with_its_last_words(programs, tmp_path, until):
    program(programs, "prometheus")
    server = observe.start_prometheus(str(programs / "prometheus"), tmp_path, tmp_path / "t.json", free_port(), 5)
    until(lambda: server._child.poll() is not None)
    with pytest.raises(ResourceError, match="prometheus ended with status 0"):
        server.check()


def test_a_taken_port_is_said_with_the_flag_that_changes_it(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(ConfigError, match="--port"):
            observe.start_prometheus("prometheus", tmp_path, tmp_path / "t.json", other.getsockname()[1], 5)


@pytest.mark.parametrize(("name", "arguments"), [("grafana", ["server"]), ("grafana-server", [])])
def test_grafana_is_found_under_both_names_with_its_home(programs, name, arguments):
    program(programs, name)
    (programs.parent / "conf").mkdir()
    (programs.parent / "conf" / "defaults.ini").write_text("")
    assert observe.grafana_command() == [str(programs / name), *arguments, "--homepath", str(programs.parent)]


def test_without_grafana_there_is_none(programs):
    assert observe.grafana_command() is None


def test_grafana_gets_the_shipped_dashboards_and_nobody_may_change_them(programs, tmp_path, until):
    said, port = program(programs, "grafana"), free_port()
    command = observe.grafana_command()
    server = observe.start_grafana(command, tmp_path, "http://127.0.0.1:9090", port, 5)
    until(lambda: said.exists() and said.read_text().endswith("}"))
    server.close()
    environment = json.loads(said.read_text())["environment"]
    assert (environment["GF_SERVER_HTTP_ADDR"], environment["GF_SERVER_HTTP_PORT"]) == ("127.0.0.1", str(port))
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer" and environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert environment["DERMA_PROMETHEUS_URL"] == "http://127.0.0.1:9090"
    dashboards = list(observe.Path(environment["DERMA_DASHBOARDS"]).glob("*.json"))
    assert len(dashboards) == 4
    provisioning = observe.Path(environment["GF_PATHS_PROVISIONING"])
    used = "".join(path.read_text() for path in provisioning.glob("*/*.yml"))
    assert all(f"${name}" in used for name in environment if name.startswith("DERMA_") and "RUN" not in name)

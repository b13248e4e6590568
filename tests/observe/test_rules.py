"""Prometheus' own tool judges configuration, rules and the rules' tests."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from support.observing import DEPLOY, alerts

PROMETHEUS = DEPLOY / "prometheus"
pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (apt install prometheus)")


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, cwd=PROMETHEUS, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_configuration_is_valid():
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")


def test_the_rules_are_valid_and_warn_of_nothing():
    files = [str(path) for path in sorted(PROMETHEUS.glob("rules/*.yml"))]
    said = promtool("check", "rules", "--lint=all", "--lint-fatal", *files)
    assert "WARNING" not in said


def test_the_rules_do_what_their_tests_say():
    promtool("test", "rules", *(str(path) for path in sorted(PROMETHEUS.glob("tests/*.yml"))))


def test_every_alert_has_a_test_in_which_it_fires():
    text = "\n".join(path.read_text() for path in PROMETHEUS.glob("tests/*.yml"))
    fires = {block.split()[0] for block in text.split("alertname: ") if "exp_alerts:" in block.split("- ")[0]}
    assert fires == set(alerts())

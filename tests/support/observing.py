"""The expressions of the shipped dashboards and rules, as Prometheus can be asked for them."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

DEPLOY = Path(__file__).parents[2] / "deploy"
_VARIABLES = {"$__rate_interval": "30s", "$camera": ".*"}
_COMPARISON = re.compile(r"\s(?:>=|<=|==|!=|>|<)\s")
_SET_OPERATION = re.compile(r"\b(?:and|or|unless)\b(?:\s+on\s+\([^)]*\))?")


def free_port() -> int:
    """Return a port of the loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def board(name: str) -> dict[str, Any]:
    """Return a committed dashboard."""
    return dict(json.loads((DEPLOY / "grafana" / "dashboards" / f"{name}.json").read_text()))


def board_expressions(name: str) -> list[tuple[str, str]]:
    """Return panel title and expression of every query of a dashboard, with its variables filled in."""
    found = []
    for panel in board(name)["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for variable, value in _VARIABLES.items():
                expression = expression.replace(variable, value)
            found.append((panel["title"], expression))
    return found


def _rules(file: str, key: str) -> dict[str, str]:
    """Return name → expression of the rules of a file, read without a YAML library: `>-` folds lines."""
    text = (DEPLOY / "prometheus" / "rules" / file).read_text()
    found = {}
    for block in re.split(rf"^\s+- {key}: ", text, flags=re.MULTILINE)[1:]:
        match = re.search(r"^ +expr: (?:>-\n)?(.*?)(?=^ +(?:for|labels):|^\s*$|\Z)", block, re.DOTALL | re.MULTILINE)
        assert match, block
        found[block.split()[0]] = " ".join(match[1].split())
    return found


def recorded() -> list[str]:
    """Return the names of the recorded series."""
    return list(_rules("recording.yml", "record"))


def alerts() -> dict[str, str]:
    """Return alert → expression."""
    return _rules("alerts.yml", "alert")


def alert_operands() -> list[str]:
    """Return what alerts compare: a healthy run fires none, but the series that they look at must exist."""
    operands = set()
    for expression in alerts().values():
        for condition in _SET_OPERATION.split(expression):
            for side in _COMPARISON.split(condition):
                operand = _balanced(side.strip())
                if not re.fullmatch(r"[\d.\s*]*", operand):
                    operands.add(operand)
    return sorted(operands)


def _balanced(text: str) -> str:
    """Strip the parentheses that belong to what was cut away."""
    while text.count("(") > text.count(")") and text.startswith("("):
        text = text[1:].strip()
    while text.count(")") > text.count("(") and text.endswith(")"):
        text = text[:-1].strip()
    return text

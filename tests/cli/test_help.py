"""Every command and every option says what it is for, in words that reach the screen."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import derma_common
from derma_cli.__main__ import app


def commands(command: Any, name: str = "derma") -> Iterator[tuple[str, Any]]:
    """Yield a command and all below it by their whole names."""
    yield name, command
    for word, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {word}")


ALL = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", ALL)
def test_a_command_and_its_options_say_what_they_are_for(name):
    assert ALL[name].help, f"{name} has no help"
    for parameter in ALL[name].params:
        text = getattr(parameter, "help", None)
        assert text, f"{name}: {parameter.name} has no help"
        assert not re.search(r"\[[a-z]+\]", text), f"{name}: {parameter.name}: rich takes [words] for colours"


def test_the_version_is_printed():
    said = CliRunner().invoke(app, ["--version"])
    assert (said.exit_code, said.output) == (0, f"{derma_common.__version__}\n")

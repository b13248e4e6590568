"""What runs the networks of a run, settled before its services start, so that they need not build engines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from derma_common.errors import ResourceError, UserError, error_of
from derma_common.inference.card import ModelCard
from derma_common.inference.choice import AUTO, ONNX, TENSORRT, RunnerChoice, choice_of, resolve
from derma_common.inference.probe import Report, probe
from derma_common.settings import Settings


def settled(settings: Settings, models: Mapping[str, tuple[Path, ModelCard]], say: Callable[[str], None]) -> Settings:
    """Return the settings with the runners that they come to; engines that lack are built, which takes minutes.

    models: "detector" and "classifier" -> folder and card. Raises ResourceError, or the builder's error, when a runner
    that was named cannot run; where the choice is "auto" the CPU takes over and a line is said.
    """
    for name, (directory, card) in models.items():
        section = getattr(settings, name)
        if section.runner == ONNX or card.runner != "onnx":
            continue
        runner = _settled(choice_of(section, settings.run), directory, probe(), say)
        settings = replace(settings, **{name: replace(section, runner=runner)})
    return settings


def _settled(choice: RunnerChoice, directory: Path, report: Report, say: Callable[[str], None]) -> str:
    chosen, said = resolve(choice, report)
    if said:
        say(said)
    if chosen.runner == ONNX:
        return ONNX
    if chosen.runner == TENSORRT:
        try:
            _build(directory, chosen)
        except UserError as error:
            if choice.runner != AUTO:
                raise
            say(f"{error}; it runs on the CPU")
            return ONNX
    return choice.runner  # "auto" stays: a service whose GPU is lost finds its way to the CPU


def _build(directory: Path, choice: RunnerChoice) -> None:
    """Find or build the engine in a child process, which may crash as it likes. Raises the child's kind of error."""
    command = [
        sys.executable, "-m", "derma_cli", "models", "build", str(directory), "--gpu", str(choice.gpu),
        "--precision", choice.precision, "--engines", str(choice.engine_dir),
        *(["--pictures", str(choice.pictures)] if choice.pictures else []),
    ]  # fmt: skip
    status = subprocess.run(command, stdout=sys.stderr).returncode
    if status:
        raise (error_of(status) or ResourceError)(
            f"{directory.name} has no engine for this GPU: `derma models build` ended with {status}, see above"
        )

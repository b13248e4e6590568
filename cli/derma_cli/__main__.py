"""`derma`: the commands, one file per noun, and the one place where errors become exit statuses."""

from __future__ import annotations

import contextlib
import sys
import traceback
from typing import Annotated

import typer

import derma_common
from derma_cli import (
    archive,
    classify,
    doctor,
    findings,
    logs,
    models,
    observe,
    outbox,
    serve,
    services,
    top,
    training,
    up,
)
from derma_common.errors import UserError
from derma_common.logs import Redactor

EXAMINE, WATCH, MODELS, BEYOND = "Examine", "Watch a run", "Models", "Beyond this machine"

app = typer.Typer(
    name="derma",
    help="A real-time skin examination pipeline: camera, lesion detector, classifier, stored findings. "
    "Research software, not a medical device.",
    epilog="First steps: derma doctor · derma classify lesion.jpg --explain · derma up video.mp4 · derma findings",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(rich_help_panel=EXAMINE)(up.up)
app.command(rich_help_panel=EXAMINE)(services.down)
app.command(rich_help_panel=EXAMINE)(findings.findings)
app.command(rich_help_panel=EXAMINE)(classify.classify)
app.command(rich_help_panel=EXAMINE)(doctor.doctor)
app.command(rich_help_panel=WATCH)(services.ps)
app.command(rich_help_panel=WATCH)(logs.logs)
app.command(rich_help_panel=WATCH)(top.top)
app.command(rich_help_panel=WATCH)(services.scale)
app.command(rich_help_panel=WATCH)(observe.observe)
app.add_typer(models.app, name="models", rich_help_panel=MODELS)
app.add_typer(training.data, name="data", rich_help_panel=MODELS)
app.add_typer(training.train, name="train", rich_help_panel=MODELS)
app.add_typer(training.evaluate, name="evaluate", rich_help_panel=MODELS)
app.add_typer(outbox.app, name="outbox", rich_help_panel=BEYOND)
app.add_typer(serve.serve, name="serve", rich_help_panel=BEYOND)
app.command(rich_help_panel=BEYOND, context_settings=archive.PASS_ON)(archive.archive)


def _print_version(asked: bool) -> None:
    if asked:
        print(derma_common.__version__)
        raise typer.Exit


@app.callback()
def derma(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Options of the whole program; each command has its own."""


def _tell(text: str) -> None:
    with contextlib.suppress(
        OSError
    ):  # stderr may lie on the full disk that it is to tell of; the status still says it
        print(Redactor()(text), file=sys.stderr)


def main() -> int:
    """Run a command; an error that a user can mend is one line on stderr and a named exit status."""
    try:
        app()
    except UserError as error:
        _tell(f"derma: {error}")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception:  # a bug: all that is known of it, but nobody's password
        _tell(traceback.format_exc())
        sys.exit(1)
    return 0


if __name__ == "__main__":
    main()

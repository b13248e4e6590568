"""`derma`: the commands, one file per noun, and the one place where errors become exit statuses."""

from __future__ import annotations

import sys
import traceback

import typer

import derma_common
from derma_cli import classify, doctor, findings, models, observe, outbox, services, top, training, up
from derma_common.errors import UserError
from derma_common.logs import Redactor

app = typer.Typer(
    name="derma",
    help="A real-time skin examination pipeline: camera, lesion detector, classifier, stored findings. "
    "Research software, not a medical device.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(up.up)
app.command()(classify.classify)
app.command()(services.down)
app.command()(services.ps)
app.command()(services.logs)
app.command()(services.scale)
app.command()(top.top)
app.command()(observe.observe)
app.command()(doctor.doctor)
app.command("findings")(findings.findings)
app.add_typer(models.app, name="models")
app.add_typer(outbox.app, name="outbox")
app.add_typer(training.data, name="data")
app.add_typer(training.train, name="train")
app.add_typer(training.evaluate, name="evaluate")


@app.command()
def version() -> None:
    """Print the version."""
    print(derma_common.__version__)


def main() -> int:
    """Run a command; an error that a user can mend is one line on stderr and a named exit status."""
    try:
        app()
    except UserError as error:
        print(Redactor()(f"derma: {error}"), file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception:  # a bug: all that is known of it, but nobody's password
        print(Redactor()(traceback.format_exc()), file=sys.stderr)
        sys.exit(1)
    return 0


if __name__ == "__main__":
    main()

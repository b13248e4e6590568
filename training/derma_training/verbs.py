"""Hand a command line over to the module of its verb, and turn what a user can mend into one line."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence

from derma_common.errors import DermaError, UserError


def run_verb(package: str, arguments: Sequence[str]) -> int:
    """Run `package.commands.VERB.main(arguments)` and return the exit status.

    Only the module asked for is imported: what needs no torch runs without it.
    """
    commands = importlib.import_module(f"{package}.commands")
    verbs = [module.name for module in pkgutil.iter_modules(commands.__path__)]
    if not arguments or arguments[0] not in verbs:
        print(f"usage: python -m {package} VERB …, where VERB is one of {', '.join(verbs)}", file=sys.stderr)
        return 2
    command = importlib.import_module(f"{package}.commands.{arguments[0]}")
    try:
        command.main(list(arguments[1:]))
        sys.stdout.flush()
    except DermaError as error:
        print(f"derma: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, UserError) else 1
    except BrokenPipeError:  # whoever read the results has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0

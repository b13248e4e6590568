"""What `derma data`, `derma train` and `derma evaluate` hand over to when it is about a detector."""

from __future__ import annotations

import sys

from derma_training.verbs import run_verb


def main(arguments: list[str] | None = None) -> int:
    """Run one verb and return its exit status."""
    return run_verb("derma_training.detector", sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    sys.exit(main())

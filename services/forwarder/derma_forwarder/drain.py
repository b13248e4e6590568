"""`python -m derma_forwarder.drain`, behind `derma outbox drain`: send what waits with no exam running.

The settings come as JSON on stdin, so that nothing of them stands in the process list.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack

from derma_common.config import settings_from
from derma_common.errors import RunError, UserError
from derma_forwarder.wiring import open_forwarder

PATIENCE_S = 15.0  # without any progress


def drain() -> int:
    """Send until nothing waits; return how many entries were sent. Raises RunError when the line stays down."""
    settings = settings_from(json.load(sys.stdin), "the settings")
    with ExitStack() as closing:
        forwarder, outbox = open_forwarder(settings, closing)
        moved_at, before = time.monotonic(), -1
        while sum(t.rows for t in outbox.totals().values()):
            wait_s = forwarder.turn()
            sent = sum(forwarder.tally.sent.values())
            if sent != before:
                moved_at, before = time.monotonic(), sent
                print(f"\r{sent} sent", end="", file=sys.stderr, flush=True)
            elif time.monotonic() - moved_at > PATIENCE_S:
                print(file=sys.stderr)
                raise RunError(f"nothing could be sent for {PATIENCE_S:g} s: {forwarder.tally.problem}")
            time.sleep(wait_s)
        forwarder.turn()  # the opinions that have come
        if before >= 0:
            print(file=sys.stderr)
        return sum(forwarder.tally.sent.values())


def main() -> int:
    """Run it as a command."""
    try:
        print(f"{drain()} entries sent")
    except UserError as error:
        print(f"derma: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

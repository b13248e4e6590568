"""Live progress on stderr: one line that moves on a terminal, a quiet line now and then elsewhere."""

from __future__ import annotations

import contextlib
import shutil
import time
from pathlib import Path
from typing import TextIO

from derma_cli.summary import Flow, add_flows
from derma_common.heartbeat import read_beat
from derma_common.topology import Service, instance_name

TERMINAL_EVERY_S = 0.25
QUIET_EVERY_S = 10.0
FIRST_QUIET_S = 2.0


class Progress:
    """Reads the heartbeats of captures and sink and shows how the run goes."""

    def __init__(self, stream: TextIO, run_dir: Path, cameras: list[str]) -> None:
        self._stream, self._run_dir = stream, run_dir
        self._captures = [instance_name(Service.CAPTURE, name) for name in cameras]
        self._notes: dict[str, str] = {}
        self._moves = stream.isatty()
        self._started = time.monotonic()
        self._shown = self._started + (0 if self._moves else FIRST_QUIET_S - QUIET_EVERY_S)
        self._before: tuple[float, int] = (self._started, 0)

    def show(self) -> None:
        """Show the present state if it is time to."""
        now = time.monotonic()
        self.tell_notes()
        if now - self._shown < (TERMINAL_EVERY_S if self._moves else QUIET_EVERY_S):
            return
        self._shown = now
        line = self._line(now)
        if self._moves:
            width = shutil.get_terminal_size().columns - 1
            self._write("\r\x1b[K" + line[:width])
        else:
            self._write(line + "\n")

    def _write(self, text: str) -> None:
        # a full disk under a redirected stream must not end the run, nor hide why it ends
        with contextlib.suppress(OSError):
            self._stream.write(text)
            self._stream.flush()

    def _line(self, now: float) -> str:
        flow = self.flow()
        sink = read_beat(self._run_dir, instance_name(Service.SINK, 0))
        report = sink.report if sink else {}
        since, before = self._before
        fps = (flow.delivered - before) / (now - since) if now > since else 0.0
        if now - since > 2.0:
            self._before = (now, flow.delivered)
        dropped = sum((flow.dropped or {}).values())
        return (
            f"{now - self._started:6.1f} s  frames {flow.delivered}/{flow.captured}  {fps:5.1f} fps  "
            f"findings {report.get('findings', 0)}  latency p50 {report.get('p50_ms', 0):.0f} ms "
            f"p99 {report.get('p99_ms', 0):.0f} ms  dropped {dropped}"
        )

    def flow(self) -> Flow:
        """Return the conservation terms over all cameras."""
        beats = [read_beat(self._run_dir, name) for name in self._captures]
        return add_flows([beat.report for beat in beats if beat is not None])

    def tell_notes(self) -> None:
        """Print what the captures have to say of their sources, once."""
        for capture in self._captures:
            beat = read_beat(self._run_dir, capture)
            note = str(beat.report.get("note", "")) if beat else ""
            if note and note != self._notes.get(capture):
                self.say(f"{capture}: {note}")
            self._notes[capture] = note

    def say(self, line: str) -> None:
        """Print a line of its own."""
        self._write(("\r\x1b[K" if self._moves else "") + line + "\n")

    def close(self) -> None:
        """Tell what is left to tell and clear the moving line."""
        self.tell_notes()
        if self._moves:
            self._write("\r\x1b[K")

"""A real RTSP camera in a process of its own, which can be frozen, killed and started again on the same port."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from support.observing import free_port

SERVER = Path(__file__).with_name("rtsp_server.py")
SYSTEM_PYTHON = "/usr/bin/python3"
_IMPORTS = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


class RtspCamera:
    """GStreamer's RTSP server; entering it skips the test where that is not installed."""

    def __init__(self) -> None:
        self._port = free_port()
        self._server: subprocess.Popen[str] | None = None
        self.url = f"rtsp://127.0.0.1:{self._port}/camera"

    def start(self, width: int = 320, height: int = 240) -> None:
        """Serve pictures of this size."""
        command = [SYSTEM_PYTHON, str(SERVER), str(self._port), str(width), str(height)]
        self._server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._server.stdout is not None and self._server.stdout.readline().strip() == "ready"

    def freeze(self) -> None:
        """Stop it in the middle of everything; connections stay open."""
        assert self._server is not None
        self._server.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._server is not None
        self._server.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a word."""
        if self._server is not None:
            self._server.kill()
            self._server.communicate()
            self._server = None

    def __enter__(self) -> Self:
        known = Path(SYSTEM_PYTHON).exists()
        if not known or subprocess.run([SYSTEM_PYTHON, "-c", _IMPORTS], capture_output=True).returncode:
            pytest.skip("needs GStreamer's RTSP server (apt install gir1.2-gst-rtsp-server-1.0 python3-gi)")
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

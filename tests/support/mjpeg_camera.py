"""A network camera that can be made to stop: JPEG pictures over HTTP, as cheap IP cameras send them."""

from __future__ import annotations

import http.server
import threading
from base64 import b64encode
from types import TracebackType
from typing import Any, Self

import cv2
import numpy as np

FPS = 15.0


class MjpegCamera:
    """Sends pictures until `freeze`; then it holds the connection and sends nothing."""

    def __init__(self, credentials: str = "", port: int = 0) -> None:
        """`credentials`: user:password, without which nothing is sent; `port` 0: any."""
        self._frozen, self._closing = threading.Event(), threading.Event()
        good, jpeg = cv2.imencode(".jpg", np.full((240, 320, 3), 128, dtype=np.uint8))
        assert good
        part = (
            b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % jpeg.size + jpeg.tobytes() + b"\r\n"
        )
        frozen, closing = self._frozen, self._closing
        wanted = f"Basic {b64encode(credentials.encode()).decode()}"

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if credentials and self.headers["Authorization"] != wanted:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                while not closing.wait(1 / FPS):
                    if not frozen.is_set():
                        try:
                            self.wfile.write(part)
                        except OSError:
                            return

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/camera.mjpg"

    def freeze(self) -> None:
        """Send no more pictures."""
        self._frozen.set()

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

"""Structured logs: one line an event, for people or as JSON, with run, instance and frame, and without secrets.

Services log plainly (`log.warning("…", …)`). What a line belongs to comes from here: instance and run are the
process's, camera, seq and attempt are those of the frame in hand. Secrets are removed in the formatter, from messages
and from the texts of exceptions, so no caller has to think of it; so are the names of recordings and of the data
folder, which may tell who was examined.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TextIO
from urllib.parse import unquote

from derma_common.addresses import fixed_part, redacted, secret_values
from derma_common.errors import UserError
from derma_common.settings import Settings

FRAME: ContextVar[tuple[str, int, int] | None] = ContextVar("frame in hand", default=None)  # camera, seq, attempt
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")  # rather too much than a part of a password too little
_FILE_WITHIN = r"(?:/.*\.\w{2,5}\b)?"  # names have spaces: up to the last thing that looks like a suffix
_SHORTEST_SECRET = 4  # a shorter one is removed from addresses only: taken away everywhere it would garble numbers
_CONTROL = {i: repr(chr(i))[1:-1] for i in (*range(32), 127, 0x85, 0x2028, 0x2029)}  # shown, so that a line stays one
_CONTROL_OF_LINES = {i: shown for i, shown in _CONTROL.items() if i != ord("\n")}
log = logging.getLogger(__name__)


class Redactor:
    """Removes users, passwords and queries of addresses from texts, and the secrets of the configured sources."""

    def __init__(self, sources: Iterable[str] = (), places: Iterable[str] = ()) -> None:
        """`sources` are the cameras' addresses: they and their secret parts are removed in any context.

        `places` are absolute paths that are removed too, with the file in them that a text goes on to name.
        """
        known = sorted({form for place in places for form in _forms(place)}, key=len, reverse=True)
        self._places = re.compile(f"(?:{'|'.join(map(re.escape, known))}){_FILE_WITHIN}") if known else None
        replacements: dict[str, str] = {}
        for source in sources:
            shown = redacted(source)
            if shown != source:
                replacements |= dict.fromkeys(_forms(source), shown)
                replacements |= {form: "…" for part in _secrets(source) for form in _forms(part)}
        # the longest first: a whole address before the password within it
        self._replacements = sorted(replacements.items(), key=lambda pair: -len(pair[0]))

    def __call__(self, text: str) -> str:
        """Return the text as it may be logged."""
        return self.secrets(self._places.sub("…", text) if self._places else text)

    def secrets(self, text: str) -> str:
        """Return the text as it may be shown to the person at the terminal: with the names of places."""
        for secret, shown in self._replacements:
            text = text.replace(secret, shown)
        return _URL.sub(lambda found: redacted(found[0]), text) if "://" in text else text


def _forms(secret: str) -> set[str]:
    """Return how a text may appear: as it is, percent-decoded, or with the escapes of a quoted text."""
    return {form for text in (secret, unquote(secret)) for form in (text, repr(text)[1:-1], json.dumps(text)[1:-1])}


def _secrets(source: str) -> list[str]:
    """Return the parts of an address that nobody may read: its password, and its query as a whole and by value."""
    rest, shown = source.partition("://")[2], redacted(source)
    user = rest.rpartition("@")[0]
    query = rest.partition("?")[2]
    values = [pair.partition("=")[2] for pair in query.split("&")]
    parts = [user, user.partition(":")[2], query, *values, *secret_values(source)]
    return [part for part in parts if len(part) >= _SHORTEST_SECRET and part not in shown]


class Formatter(logging.Formatter):
    """Formats a record for people; exceptions on the lines that follow."""

    def __init__(self, instance: str, run: str, camera: str, redact: Redactor) -> None:
        """`camera` is of the lines that belong to no frame: a capture process has one."""
        super().__init__()
        self.instance, self.run, self.camera, self.redact = instance, run, camera, redact

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line."""
        camera, seq, attempt = FRAME.get() or (self.camera, None, None)
        frame = f" {camera}" if camera else ""
        frame += f" seq {seq} attempt {attempt}" if seq is not None else ""
        text = self.redact(record.getMessage()).translate(_CONTROL)
        line = f"{_time(record)} {record.levelname} {self.instance} {self.run}{frame}: {text}"
        exception = self._exception(record)
        return f"{line}\n{exception}" if exception else line

    def _exception(self, record: logging.LogRecord) -> str:
        if record.exc_info and record.exc_info[0] is not None:
            text = "".join(traceback.format_exception(*record.exc_info)).rstrip("\n")
            return self.redact(text).translate(_CONTROL_OF_LINES)
        return ""


class JsonFormatter(Formatter):
    """Formats a record as one line of JSON; what is not known is left out."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line."""
        camera, seq, attempt = FRAME.get() or (self.camera, None, None)
        fields = {
            "time": _time(record), "level": record.levelname.lower(), "instance": self.instance, "run": self.run,
            "camera": camera or None, "seq": seq, "attempt": attempt, "logger": record.name,
            "message": self.redact(record.getMessage()), "exception": self._exception(record) or None,
        }  # fmt: skip
        return json.dumps({name: value for name, value in fields.items() if value is not None})


def _time(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def formatter(settings: Settings, instance: str, run: str, camera: str = "") -> Formatter:
    """Return the formatter that the settings choose."""
    chosen = JsonFormatter if settings.logging.format == "json" else Formatter
    sources = [c.source for c in settings.camera]
    paths = {path for source in sources if source.startswith("/") for path in (source, str(fixed_part(Path(source))))}
    places = paths - {"/"} | {str(settings.data_dir), str(settings.database)}
    return chosen(instance, run, camera, Redactor(sources, places))


def install(settings: Settings, instance: str, run: str, stream: TextIO, camera: str = "") -> None:
    """Let everything that this process logs, warns of, or dies of go to `stream` in the chosen format."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(settings, instance, run, camera))
    logging.basicConfig(level=settings.logging.level.upper(), handlers=[handler], force=True)
    logging.raiseExceptions = False  # a log that cannot be written neither stops the work nor fills the terminal
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    log.critical("uncaught %s: %s", kind.__name__, error, exc_info=(kind, error, trace))


def _uncaught_in_thread(found: threading.ExceptHookArgs) -> None:
    if found.exc_type is SystemExit:
        return
    name = found.thread.name if found.thread else "a thread"
    error = found.exc_value or found.exc_type()
    log.critical(
        "uncaught %s in %s: %s",
        found.exc_type.__name__,
        name,
        error,
        exc_info=(type(error), error, found.exc_traceback),
    )


def _unraisable(found: sys.UnraisableHookArgs) -> None:
    error = found.exc_value or found.exc_type()
    log.error(
        "%s that nobody could catch: %s",
        type(error).__name__,
        error,
        exc_info=(type(error), error, found.exc_traceback),
    )


@contextmanager
def into(path: Path, settings: Settings, instance: str, run: str) -> Iterator[None]:
    """Log into a file for the length of the block, and what ends it too."""
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    with ExitStack() as closing:
        stream = path.open("a", encoding="utf-8")
        closing.callback(_close, stream)
        install(settings, instance, run, stream)
        try:
            yield
        except UserError as error:
            log.error("%s", error)
            raise
        except Exception as error:
            log.critical("uncaught %s: %s", type(error).__name__, error, exc_info=True)
            raise
        finally:
            sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
            logging.captureWarnings(False)
            logging.basicConfig(level=logging.WARNING, handlers=[logging.NullHandler()], force=True)


def _close(stream: TextIO) -> None:
    with suppress(OSError):  # a full disk: what there was room for is written
        stream.close()


def say_last(line: str) -> str:
    """Log a process's last line, as it is or as a JSON record; return it for whoever started it, without secrets."""
    current = next((h.formatter for h in logging.getLogger().handlers if isinstance(h.formatter, Formatter)), None)
    redact = current.redact if current else Redactor()
    if isinstance(current, JsonFormatter):
        log.error("%s", line)
    else:
        with suppress(OSError):  # a full disk must not turn an error with a remedy into a crash
            print(redact(line), file=sys.stderr, flush=True)
    return redact.secrets(line)


def message_of(line: str) -> str:
    """Return the message of a line of JSON, any other line as it is."""
    try:
        record = json.loads(line)
    except ValueError:
        return line
    return str(record["message"]) if isinstance(record, dict) and "message" in record else line

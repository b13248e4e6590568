"""What the text of a source means: a camera, a network stream, a recording or the drawn source."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from glob import has_magic
from itertools import takewhile
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, urlsplit

from derma_common.errors import SourceError

NETWORK_SCHEMES = ("rtsp", "rtsps", "http", "https")
_NUMBER = re.compile(r"[0-9]{1,4}\Z")
_DEVICE = re.compile(r"/dev/video[0-9]{1,4}\Z")
_SECRET = re.compile(r"(?<=[?&/;])((?:pass|pwd|psw|token|secret|auth|key|api_?key)[a-z_]*=)([^?&/;#]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Synthetic:
    """The parameters of `synthetic://?frames=N&seed=S&width=W&height=H&fps=F`; fps makes it live, frames=0 endless."""

    frames: int = 300
    seed: int = 0
    width: int = 640
    height: int = 480
    fps: int = 0


def synthetic_of(source: str) -> Synthetic | None:
    """Return the parameters of a `synthetic://` source, None for another. Raises SourceError for a wrong one."""
    if not source.startswith("synthetic:"):
        return None
    known = [f.name for f in fields(Synthetic)]
    values: dict[str, int] = {}
    for key, text in parse_qsl(_split(source).query, keep_blank_values=True):
        if key not in known:
            raise SourceError(f"{source}: unknown parameter {key!r}; there are: {', '.join(known)}")
        if not (text.isascii() and text.isdigit()) or len(text) > 9:
            raise SourceError(f"{source}: {key} must be a whole number, got {text!r}")
        values[key] = int(text)
    parameters = Synthetic(**values)
    if not (64 <= parameters.width <= 7680 and 64 <= parameters.height <= 4320):
        raise SourceError(f"{source}: width must be 64 to 7680 px and height 64 to 4320 px")
    if parameters.frames == 0 and parameters.fps == 0:
        raise SourceError(f"{source}: frames=0 has no end, so it needs fps=F")
    return parameters


def camera_of(source: str) -> int | str | None:
    """Return the camera's index, device or URL for OpenCV, None when `source` is a recording.

    Raises SourceError for a URI scheme that is not allowed: only these ever reach FFmpeg.
    """
    if _NUMBER.match(source):
        return int(source)
    if _DEVICE.match(source):
        return source
    scheme = _split(source).scheme if "://" in source else ""
    if scheme in NETWORK_SCHEMES:
        return source
    if scheme and scheme != "synthetic":
        allowed = ", ".join((*NETWORK_SCHEMES, "synthetic"))
        raise SourceError(f"{redacted(source)}: scheme {scheme!r} is not allowed; there are: {allowed}")
    return None


def names_secret(source: str) -> bool:
    """Say whether a network address holds a user or password, or a query that looks like one."""
    if "://" not in source or source.startswith("synthetic:"):
        return False
    return "@" in source or bool(secret_values(source))


def secret_values(address: str) -> list[str]:
    """Return the values of what looks like a password or token in an address's path or query."""
    return [value for _, value in _SECRET.findall(address)]


def with_credentials(source: str, user: str, password: str) -> str:
    """Return the network address `scheme://host…` with a user and a password, as FFmpeg takes them."""
    scheme, _, rest = source.partition("://")
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{rest}"


def is_live(source: str, asked: bool | None) -> bool:
    """Say whether a source is live: cameras are, recordings are when asked, `synthetic://` is with fps."""
    if camera_of(source) is not None:
        return True
    if asked is not None:
        return asked
    drawn = synthetic_of(source)
    return drawn is not None and drawn.fps > 0


def redacted(source: str) -> str:
    """Return a source without user, password, query and what looks like a secret in its path, as it may be shown."""
    if "://" not in source or source.startswith("synthetic:"):
        return source.encode(errors="replace").decode()  # a path that is no UTF-8
    scheme, _, rest = source.partition("://")
    authority, *tail = re.split(r"(?=[/?#])", rest, maxsplit=1)
    after = tail[0] if tail else ""
    if "@" in after:  # a password that holds one of / ? # ends nobody knows where
        return f"{scheme}://…"
    path = _SECRET.sub(r"\1…", re.split("[?#]", after, maxsplit=1)[0])
    return f"{scheme}://{authority.rpartition('@')[2]}{path}"


def fixed_part(pattern: Path) -> Path:
    """Return the folder that all files of a pattern lie in: the parts before the first with a wildcard."""
    return Path(*takewhile(lambda part: not has_magic(part), pattern.parts))


def _split(source: str) -> SplitResult:
    try:
        return urlsplit(source)
    except ValueError:
        raise SourceError(f"{redacted(source)} is not an address that can be read") from None

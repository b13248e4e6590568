"""From the settings to an address and who we are there; what cannot be right is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from derma_common.cloud.entries import SITE
from derma_common.cloud.streams import Access
from derma_common.errors import ConfigError
from derma_common.secret_files import read_secret
from derma_common.settings import CloudSettings

OTHERS = 0o037  # a group may read: so Kubernetes mounts secrets
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def access_of(cloud: CloudSettings) -> Access:
    """Return the access that the settings describe, with the password read from its file. Raises ConfigError."""
    parts = urlsplit(cloud.redis)
    if parts.scheme not in ("rediss", "redis", "unix"):
        raise ConfigError(
            f"cloud.redis must be rediss://HOST:PORT/DB (TLS) or unix:///SOCKET, got {parts.scheme!r}://…"
        )
    if parts.username or parts.password or parts.query:
        raise ConfigError("cloud.redis must be an address only: set cloud.user and cloud.password_file")
    if parts.scheme == "redis" and parts.hostname not in _LOOPBACK:
        raise ConfigError(
            f"cloud.redis: {parts.hostname} is another machine, and redis:// would send findings and the password "
            "in the clear; use rediss:// with cloud.ca_file"
        )
    if not SITE.match(cloud.site):
        raise ConfigError(
            f"cloud.site {cloud.site!r} must be 1 to 32 of a-z 0-9 _ - with a letter or digit first; no person's name"
        )
    for key in ("ca_file", "cert_file", "key_file", "password_file"):
        path = getattr(cloud, key)
        if path and not Path(path).expanduser().is_file():
            raise ConfigError(f"cloud.{key}: there is no file {path}")
    if bool(cloud.cert_file) != bool(cloud.key_file):
        raise ConfigError("cloud.cert_file and cloud.key_file belong together: set both or none")
    return Access(
        cloud.redis, cloud.user, read_secret(cloud.password_file, "cloud.password_file", OTHERS), _path(cloud.ca_file),
        _path(cloud.cert_file), _path(cloud.key_file), cloud.timeout_s,
    )  # fmt: skip


def _path(text: str) -> str:
    return str(Path(text).expanduser()) if text else ""

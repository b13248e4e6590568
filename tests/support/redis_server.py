"""A real redis-server of a test's own: with the shipped redis.conf and users.acl over TLS, or bare on a UNIX socket.

Everything lies in one directory. `stop`, `kill` and `start` again keep the data, as the append-only file has it.
"""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import redis

from derma_common.cloud.streams import Access, Line, LineDown

DEPLOY = Path(__file__).parents[2] / "deploy" / "redis"
ROLES = ("classifier", "opinion", "ingest", "scaler", "operator")
MISSING = "needs redis-server and openssl (apt install redis-server openssl)"


def available() -> bool:
    """Say whether this machine can run the server."""
    return all(shutil.which(program) for program in ("redis-server", "openssl"))


class Authority:
    """A certificate authority in `directory`: `ca.crt`, and what it signs."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.certificate = directory, directory / "ca.crt"
        _openssl("req", "-x509", *_NEW_KEY, "-keyout", directory / "ca.key", "-out", self.certificate, "-days", "2",
                 "-subj", "/CN=derma test authority", "-addext", "keyUsage=critical,keyCertSign")  # fmt: skip

    def sign(self, name: str, hosts: Sequence[str] = ()) -> tuple[Path, Path]:
        """Return the certificate and key of `name`, valid for the host names and IPv4 addresses `hosts`."""
        certificate, key = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        names = [f"IP:{host}" if host[0].isdigit() else f"DNS:{host}" for host in hosts]
        more = ["-addext", f"subjectAltName={','.join(names)}"] if names else []
        _openssl("req", "-x509", *_NEW_KEY, "-CA", self.certificate, "-CAkey", self.directory / "ca.key", "-days", "2",
                 "-keyout", key, "-out", certificate, "-subj", f"/CN={name}", "-addext",
                 "basicConstraints=critical,CA:FALSE", *more)  # fmt: skip
        key.chmod(0o600)
        return certificate, key


class RedisServer:
    """A redis-server process; TLS and users when an authority is given, else a UNIX socket without users."""

    def __init__(
        self, directory: Path, authority: Authority | None = None, host: str = "127.0.0.1",
        sites: Sequence[str] = ("room1", "room2"), prefix: Sequence[str] = (), options: Sequence[str] = (),
    ) -> None:  # fmt: skip
        """Start it. `prefix` runs it elsewhere (`ip netns exec NAME`); `options` go to redis-server last."""
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.host, self.authority = directory, host, authority
        self._prefix, self._process = list(prefix), None
        self.port = _free_port() if authority else 0
        self._command = ["redis-server", "--daemonize", "no", "--dir", str(directory)]
        if authority is None:
            self._command += ["--port", "0", "--unixsocket", str(directory / "redis.sock"), "--appendonly", "yes"]
            # with everysec, a kill during an fsync loses what came since
            self._command += ["--appendfsync", "always", "--save", ""]
        else:
            self._command[1:1] = [str(self._configured(authority, sites))]
            self._client = authority.sign("client")
        self._command += options
        self.start()

    def _configured(self, authority: Authority, sites: Sequence[str]) -> Path:
        """Write the shipped configuration with this test's address, certificates and passwords."""
        certificate, key = authority.sign("redis", [self.host, "localhost"])
        users = []
        for line in (DEPLOY / "users.acl").read_text().splitlines():
            users += [line.replace("@SITE@", site) for site in sites] if "@SITE@" in line else [line]
        text = "\n".join(users)
        for role in ("site", *ROLES):
            text = text.replace(f"@{role.upper()}_SHA256@", hashlib.sha256(password(role).encode()).hexdigest())
        (self.directory / "users.acl").write_text(text + "\n")
        for role in ("site", *ROLES):
            file = self.directory / f"{role}.password"
            file.write_text(password(role) + "\n")
            file.chmod(0o600)
        conf = (DEPLOY / "redis.conf").read_text()
        for name, value in {
            "tls-port 6379": f"tls-port {self.port}", "bind 0.0.0.0": f"bind {self.host}",
            "/etc/redis/derma/ca.crt": str(authority.certificate), "/etc/redis/derma/redis.crt": str(certificate),
            "/etc/redis/derma/redis.key": str(key), "/etc/redis/derma/users.acl": str(self.directory / "users.acl"),
        }.items():  # fmt: skip
            assert name in conf, f"redis.conf has no {name}"
            conf = conf.replace(name, value)
        file = self.directory / "redis.conf"
        file.write_text(conf)
        return file

    # -- its life --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start it (again, with the data that it had) and wait until it answers."""
        with (self.directory / "redis.log").open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen([*self._prefix, *self._command], stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while not self._answers():
            assert self._process.poll() is None and time.monotonic() < deadline, self._said()[-2000:]
            time.sleep(0.02)

    def _answers(self) -> bool:
        if self._prefix:  # from here it cannot be reached
            return "Ready to accept connections" in self._said()
        line = Line(self.access("scaler"))
        try:
            line.now_ms()
        except LineDown as error:
            return "NOPERM" in str(error) or "no permissions" in str(error)  # it answers
        finally:
            line.close()
        return True

    def _said(self) -> str:
        """Return what it logged since its last start."""
        return (self.directory / "redis.log").read_bytes()[self._log_start :].decode(errors="replace")

    def stop(self) -> None:
        """End it as an administrator does."""
        self._end(kill=False)

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(kill=True)

    def _end(self, kill: bool) -> None:
        assert self._process is not None
        if kill:
            self._process.kill()
        else:
            self._process.terminate()
        self._process.wait(20)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()

    # -- ways in ---------------------------------------------------------------------------------------------------

    def access(self, role: str = "", timeout_s: float = 5.0) -> Access:
        """Return the access of a role: `site-room1`, one of ROLES; without users any name will do."""
        if self.authority is None:
            return Access(f"unix://{self.directory / 'redis.sock'}", timeout_s=timeout_s)
        certificate, key = self._client
        return Access(
            f"rediss://{self.host}:{self.port}/0", role, password(role), str(self.authority.certificate),
            str(certificate), str(key), timeout_s,
        )  # fmt: skip

    def settings(self, role: str) -> dict[str, str]:
        """Return the environment variables that give a derma process this access."""
        access = self.access(role)
        found = {"DERMA_CLOUD_REDIS": access.address}
        if self.authority is not None:
            file = self.directory / f"{role.partition('-')[0]}.password"
            found |= {
                "DERMA_CLOUD_USER": role, "DERMA_CLOUD_PASSWORD_FILE": str(file), "DERMA_CLOUD_CA_FILE": access.ca_file,
                "DERMA_CLOUD_CERT_FILE": access.cert_file, "DERMA_CLOUD_KEY_FILE": access.key_file,
            }  # fmt: skip
        return found

    def client(self) -> redis.Redis:
        """Return a bare client, on a UNIX socket only: there everybody may do everything."""
        assert self.authority is None
        return redis.Redis(unix_socket_path=str(self.directory / "redis.sock"))


def password(role: str) -> str:
    """Return the password of a role; all sites have the same one."""
    return f"{role.partition('-')[0]}-password"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

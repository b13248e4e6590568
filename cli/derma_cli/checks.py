"""What `derma doctor` looks at: whether this machine and these settings make a run, each thing in a small function."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2

from derma_cli import machine
from derma_cli.machine import GB, Check, State, disk_type
from derma_cli.models import licence_of
from derma_common.addresses import names_secret
from derma_common.cloud.access import access_of
from derma_common.cloud.streams import Denied, Line, LineDown, findings_key
from derma_common.errors import DermaError
from derma_common.inference.card import read_card, verified_file
from derma_common.inference.opening import open_runner
from derma_common.settings import Settings
from derma_common.shipped import model_dir

MB = 1e6
PICTURE_BYTES = 1920 * 1080 * 3  # of a camera whose size is not known before it opens
LEAST_DISK, LITTLE_DISK = 100 * MB, 2 * GB
NETWORK_DISKS = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "ceph")


def all_checks(settings: Settings, settings_file: Path | None) -> Iterator[Check]:
    """Look at everything, in the order in which a person would mend it."""
    yield machine.python()
    yield machine.cpu(settings)
    yield machine.memory()
    yield machine.gpu()
    yield from machine.runners(settings)
    yield machine.mps(settings)
    yield from machine.placement(settings)
    yield machine.open_files()
    yield machine.clock()
    yield from machine.cameras()
    yield shared_memory(settings)
    yield disk(settings)
    yield from models(settings)
    yield videos()
    yield metrics(settings)
    yield private(settings_file, settings)
    yield redis(settings)


def shared_memory(settings: Settings) -> Check:
    """Room for the pictures under way."""
    path = Path(settings.run.shm_dir)
    captures = max(1, len(settings.camera))
    needed = captures * max(settings.capture.window, settings.capture.window_live) * PICTURE_BYTES
    try:
        with tempfile.NamedTemporaryFile(dir=path):
            free = shutil.disk_usage(path).free
    except OSError as error:
        return Check(
            "shared memory", "bad", f"{path} cannot be used: {error.strerror}",
            "set run.shm_dir to a folder in memory (tmpfs) that this user may write",
        )  # fmt: skip
    says = f"{free / MB:.0f} MB free in {path}, {needed / MB:.0f} MB wanted ({captures} camera(s) of 1080p)"
    if free < needed:
        remedy = f"docker run --shm-size=1g, or mount -o remount,size=1g {path}, or lower capture.window"
        return Check("shared memory", "bad", says, remedy)
    if disk_type(path) not in ("tmpfs", "ramfs", ""):
        return Check("shared memory", "note", f"{says}; it is a disk", "set run.shm_dir to a folder in memory (tmpfs)")
    return Check("shared memory", "good", says)


def models(settings: Settings) -> Iterator[Check]:
    """The two networks that a run would use."""
    for kind, name in (("detector", settings.detector.model), ("classifier", settings.classifier.model)):
        try:
            directory = model_dir(name)
            card = read_card(directory)
            verified_file(card, directory)
            open_runner(directory, kind, threads=1)[1].close()
        except DermaError as error:
            yield Check(kind, "bad", str(error), f"set {kind}.model, or see `derma models list`")
            continue
        yield Check(kind, "good", f"{card.id}, its file is whole; {licence_of(card)}")


def videos() -> Check:
    """OpenCV and the decoders that it was built with."""
    backends = {cv2.videoio_registry.getBackendName(b) for b in cv2.videoio_registry.getBackends()}
    says = f"OpenCV {cv2.__version__} with {', '.join(sorted(backends & {'FFMPEG', 'V4L2'})) or 'no video'}"
    if "FFMPEG" not in backends or int(cv2.__version__.partition(".")[0]) >= 5:
        remedy = "pip install --force-reinstall 'opencv-python-headless>=4.10,<5'"
        return Check("video", "bad", f"{says}: files and network cameras need FFMPEG of OpenCV 4", remedy)
    return Check("video", "good", says)


def metrics(settings: Settings) -> Check:
    """The address of the metrics."""
    address = settings.metrics.address
    if not settings.metrics.enabled:
        return Check("metrics", "good", "switched off")
    try:
        family, kind, _, _, where = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(where)
    except OSError as error:
        remedy = "set metrics.address to an address of this machine, such as 127.0.0.1"
        return Check("metrics", "bad", f"no port can be opened on {address}: {error.strerror}", remedy)
    if not address.startswith("127.") and address not in ("localhost", "::1"):
        remedy = "use the loopback, unless everybody in that network may read them"
        return Check("metrics", "note", f"served on {address}, without a password", remedy)
    return Check("metrics", "good", f"ports can be opened on {address}")


def disk(settings: Settings) -> Check:
    """Room for the database, on a disk that SQLite can use."""
    path = settings.database.parent
    while not path.exists():
        path = path.parent
    free, kind = shutil.disk_usage(path).free, disk_type(path)
    says = f"{free / GB:.1f} GB free for {settings.database}"
    if kind in NETWORK_DISKS:
        remedy = "set sink.database or --data-dir to a local disk: SQLite's log does not work over a network"
        return Check("disk", "bad", f"{path} is a network disk ({kind})", remedy)
    if not os.access(path, os.W_OK):
        return Check("disk", "bad", f"{path} may not be written by this user", "choose another place with --data-dir")
    if free < LITTLE_DISK:
        state: State = "bad" if free < LEAST_DISK else "note"
        return Check("disk", state, says, "make room, or choose another place with --data-dir")
    return Check("disk", "good", says)


def private(settings_file: Path | None, settings: Settings) -> Check:
    """Who may read what a run writes, and the passwords in the settings."""
    mask = os.umask(0o077)
    os.umask(mask)
    if settings_file and any(names_secret(c.source) for c in settings.camera) and settings_file.stat().st_mode & 0o077:
        remedy = f"chmod 600 {settings_file}"
        return Check("privacy", "bad", f"{settings_file} holds a camera's password and can be read by others", remedy)
    if not mask & 0o002:
        return Check("privacy", "bad", f"umask {mask:04o}: everybody may change what is stored", "umask 077")
    if not mask & 0o004:
        remedy = "umask 077, or keep the data folder in one that is yours alone"
        return Check("privacy", "note", f"umask {mask:04o}: other users of this machine may read findings", remedy)
    return Check("privacy", "good", f"umask {mask:04o}: what is stored is yours alone")


def redis(settings: Settings) -> Check:
    """The line out of the house, if there is to be one."""
    if not settings.cloud.redis:
        return Check("redis", "good", "not used: nothing leaves this machine")
    try:
        line = Line(access_of(settings.cloud))
        line.last_id(findings_key(settings.cloud.site, 0))
        line.close()
    except Denied as error:
        return Check(
            "redis", "bad", f"it answers, but not to us: {error}", "check [cloud] user, password_file, ca_file"
        )
    except (LineDown, DermaError) as error:
        remedy = "check cloud.redis and the network; until then findings wait in the database and nothing is lost"
        return Check("redis", "bad", str(error), remedy)
    return Check("redis", "good", "it answers")

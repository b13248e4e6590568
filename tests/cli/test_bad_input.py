"""Bad input and bad luck that are found before any process starts: the command, its one line, its exit status.

What shows only while a run goes on is in tests/integration/test_bad_days.py.
"""

from __future__ import annotations

import os
import shutil
import struct
import sys
import zlib

import cv2
import numpy as np
import pytest

from derma_cli.__main__ import main
from derma_common.shipped import shipped

CONFIG, SOURCE, MODEL, RESOURCE = 2, 3, 4, 5  # exit statuses


def announce(width, height):
    """Return a PNG of a few bytes that announces a picture of width × height px."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def video(path):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 25, (160, 120))
    for i in range(25):
        writer.write(np.random.default_rng(i).integers(0, 255, (120, 160, 3), dtype=np.uint8))
    writer.release()


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """A folder with everything that a command should not be given."""
    folder = tmp_path_factory.mktemp("things")
    video(folder / "good.mp4")
    whole = (folder / "good.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "zero.mp4").touch()
    (folder / "text.mp4").write_text("this is no video")
    (folder / "text.jpg").write_text("this is no picture")
    (folder / "zero.png").touch()
    (folder / "giant.png").write_bytes(announce(10_000, 10_000))
    (folder / "empty").mkdir()
    (folder / "good").mkdir()
    cv2.imwrite(str(folder / "good" / "1.png"), np.zeros((32, 32, 3), np.uint8))
    for name in ("changed", "no-file", "no-card"):
        shutil.copytree(shipped("models") / "efficientnet-b0-skin", folder / name)
    network = bytearray((folder / "changed" / "model.onnx").read_bytes())
    network[len(network) // 2] ^= 1
    (folder / "changed" / "model.onnx").write_bytes(network)
    (folder / "no-file" / "model.onnx").unlink()
    (folder / "no-card" / "card.json").unlink()
    (folder / "typo.toml").write_text("[detector]\nthread = 2\n")
    (folder / "broken.toml").write_text("[detector\n")
    (folder / "value.toml").write_text("[capture]\nwindow = 'eight'\n")
    return folder


@pytest.fixture
def derma(things, monkeypatch, capfd, tmp_path):
    """Run the command in the folder of bad things; return its exit status, stdout and stderr."""
    monkeypatch.chdir(things)
    monkeypatch.setenv("DERMA_RUN_DATA_DIR", str(tmp_path / "data"))

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["derma", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capfd.readouterr()
        return left.value.code, out, err

    return run


TABLE = [
    # sources
    (["nowhere.mp4"], SOURCE, "there is no file or folder nowhere.mp4"),
    (["empty"], SOURCE, "empty holds no pictures (.jpg"),
    (["good/*.jpg"], SOURCE, "good/*.jpg holds no pictures"),
    (["cut.mp4"], SOURCE, "cut.mp4 is not a video that FFmpeg can open"),
    (["zero.mp4"], SOURCE, "zero.mp4 is empty (0 bytes)"),
    (["text.mp4"], SOURCE, "is not a video that FFmpeg can open"),
    (["text.jpg"], SOURCE, "text.jpg is not a picture that OpenCV can decode"),
    (["zero.png"], SOURCE, "zero.png is not a picture"),
    (["giant.png"], SOURCE, "it may have 50 million pixels; scale it down"),
    (["ftp://host/x"], SOURCE, "scheme 'ftp' is not allowed; there are: rtsp"),
    (["file:///etc/passwd"], SOURCE, "scheme 'file' is not allowed"),
    (["concat:good.mp4|good.mp4"], SOURCE, "there is no file or folder"),
    (["synthetic://?frame=3"], SOURCE, "unknown parameter 'frame'"),
    (["rtsp://[host/x"], SOURCE, "is not an address that can be read"),
    (["rtsp://u:canary@host/x"], CONFIG, "shown to everybody in the process list"),
    (["a=0", "a=1"], CONFIG, "two sources have the same name"),
    (["0"] * 33, CONFIG, "put the pattern in quotes"),
    ([], CONFIG, "nothing to examine: give a SOURCE"),
    # models
    (["good", "--classifier", "no-such"], MODEL, "there is no model 'no-such'"),
    (["good", "--classifier", "changed"], MODEL, "is not the file of its card"),
    (["good", "--classifier", "no-file"], MODEL, "cannot be read: No such file"),
    (["good", "--classifier", "no-card"], MODEL, "there is no model 'no-card'"),
    (["good", "--classifier", "yolov4-tiny-mole"], MODEL, "is a detector, a classifier is needed here"),
    # settings
    (["good", "--config", "none.toml"], CONFIG, "there is no settings file none.toml"),
    (["good", "--config", "broken.toml"], CONFIG, "broken.toml cannot be read"),
    (["good", "--config", "typo.toml"], CONFIG, "unknown setting detector.thread; did you mean 'threads'?"),
    (["good", "--config", "value.toml"], CONFIG, "capture.window must be a whole number, got 'eight'"),
    (["good", "--set", "capture.window=0"], CONFIG, "capture.window must be at least 1"),
    (["good", "--set", "captrue.window=1"], CONFIG, "did you mean 'capture'?"),
    (["good", "--set", "capture.window"], CONFIG, "write section.key=value"),
    (["good", "--set", "detector.runner=onnx-cuda"], RESOURCE, "the runner onnx-cuda cannot run here"),
    (["good", "--classifiers", "999"], CONFIG, "at most 64"),
    # the machine
    (["good", "--data-dir", "good.mp4"], RESOURCE, "choose another with --data-dir"),
    (["good", "--data-dir", "/proc/nowhere"], RESOURCE, "choose another with --data-dir"),
    (["good", "--set", "run.shm_dir=/proc/nowhere"], RESOURCE, "cannot make the run directory"),
    (["good", "--set", "run.shm_dir=good.mp4"], RESOURCE, "set run.shm_dir"),
    (["good", "--set", "metrics.address=203.0.113.7"], RESOURCE, "set metrics.address to an address of this machine"),
]


@pytest.mark.parametrize(("arguments", "status", "words"), TABLE, ids=[" ".join(row[0])[:50] for row in TABLE])
def test_a_run_that_cannot_be_is_one_line_with_its_remedy_and_leaves_no_database(
    derma, tmp_path, arguments, status, words
):
    code, out, err = derma("up", *arguments)
    assert code == status and words in err
    assert out == "" and err.startswith("derma: ") and len(err.splitlines()) == 1
    assert "canary" not in err
    assert not (tmp_path / "data" / "derma.db").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["classify", "giant.png"], SOURCE, "it may have 50 million pixels"),
        (["classify", "text.jpg"], SOURCE, "is not a picture"),
        (["classify", "good.mp4"], SOURCE, "`derma up good.mp4` examines recordings"),
        (["classify", "rtsp://u:canary@host/x"], SOURCE, "there is no file or folder"),
        (["classify", "good/1.png", "--classifier", "changed"], MODEL, "is not the file of its card"),
        (["models", "verify", "changed"], MODEL, "is not the file of its card"),
        (["models", "show", "no-card"], MODEL, "there is no model 'no-card'"),
        (["findings"], RESOURCE, "nothing was examined yet"),
        (["findings", "--view", "no-such"], CONFIG, "there is no view 'no-such'"),
        (["ps"], RESOURCE, "no run is up"),
        (["scale", "classifier=2"], RESOURCE, "no run is up"),
        (["logs"], RESOURCE, "there are no logs"),
        (["top"], RESOURCE, "no run is up"),
        (["outbox", "ls"], RESOURCE, ""),
    ],
    ids=lambda value: " ".join(value)[:50] if isinstance(value, list) else None,
)
def test_other_commands_say_what_is_wrong_too(derma, arguments, status, words):
    code, _, err = derma(*arguments)
    last = err.splitlines()[-1]
    assert code == status and last.startswith("derma: ") and words in last
    assert "Traceback" not in err and "canary" not in err


def test_a_place_where_one_may_not_look_is_one_line(derma):
    try:
        os.stat("/proc/1/root")
    except PermissionError:
        code, _, err = derma("up", "/proc/1/root/exam.mp4")
        assert (code, err) == (SOURCE, "derma: /proc/1/root/exam.mp4 cannot be read: Permission denied\n")
    else:
        pytest.skip("this user may look everywhere")

"""Recordings: the same picture for the same seq, whatever is skipped, and one clear line for what cannot be read."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from derma_common.errors import SourceError
from derma_common.messages import Close
from derma_common.recordings import PictureFiles, SyntheticRecording, VideoFile, open_recording, read_picture
from derma_common.seqset import SeqSet
from derma_common.wire import decode, encode

NOTHING = SeqSet()


def paint(level, height=48, width=64):
    return np.full((height, width, 3), level, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "pictures"
    (path / "sub").mkdir(parents=True)
    for name, level in (("a10.png", 10), ("a9.png", 9), ("b.PNG", 20), ("sub/c.png", 30)):
        cv2.imwrite(str(path / name.lower()), paint(level))
    (path / "b.png").rename(path / "b.PNG")
    (path / "notes.txt").write_text("no picture")
    return path


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "exam.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (64, 48))
    for i in range(6):
        writer.write(paint(40 * i))
    writer.release()
    return path


def read(recording, skip=NOTHING):
    return list(recording.pictures(skip))


def test_a_folder_is_read_by_name_with_numbers_in_their_order(folder):
    pictures = read(open_recording(str(folder)))
    assert [(p.seq, p.origin) for p in pictures] == [(0, "a9.png"), (1, "a10.png"), (2, "b.PNG"), (3, "sub/c.png")]
    assert [int(p.image[0, 0, 0]) for p in pictures] == [9, 10, 20, 30]


def test_one_picture_is_a_recording(folder):
    (picture,) = read(open_recording(str(folder / "a9.png")))
    assert (picture.seq, picture.origin, picture.image.shape) == (0, "a9.png", (48, 64, 3))


def test_skipped_pictures_are_left_out_and_the_others_keep_their_seq(folder):
    assert [p.seq for p in read(open_recording(str(folder)), SeqSet([(0, 1), (3, 3)]))] == [2]


def test_a_skip_set_is_asked_anew_for_each_picture(folder):
    skip = SeqSet()
    pictures = open_recording(str(folder)).pictures(skip)
    assert next(pictures).seq == 0
    skip.add(1, 2)
    assert [p.seq for p in pictures] == [3]


def test_a_bad_file_among_others_says_what_is_wrong_and_the_others_are_read(folder):
    (folder / "a9.png").write_bytes(b"no picture")
    (folder / "a10.png").write_bytes(b"")
    pictures = read(open_recording(str(folder)))
    assert [p.image is None for p in pictures] == [True, True, False, False]
    assert "a9.png is not a picture that OpenCV can decode" in pictures[0].error
    assert "a10.png is not a picture that OpenCV can decode" in pictures[1].error


def test_a_bad_file_alone_is_one_line(folder):
    (folder / "a9.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match="is not a picture that OpenCV can decode"):
        read(open_recording(str(folder / "a9.png")))


def test_a_folder_without_pictures_is_one_line(tmp_path):
    with pytest.raises(SourceError, match="holds no pictures"):
        open_recording(str(tmp_path))


@pytest.mark.parametrize(
    "name",
    [b"\xff\xfe.png", "1²2.png".encode(), "٣.png".encode(), b" .png"],
    ids=["bytes", "superscript", "digit", "space"],
)
def test_any_file_name_becomes_an_origin_that_can_be_sent(folder, name):
    with open(os.path.join(os.fsencode(folder), name), "wb") as file:
        file.write((folder / "a9.png").read_bytes())
    origins = [p.origin for p in read(open_recording(str(folder)))]
    assert len(origins) == 5
    for origin in origins:
        message = Close("cam0", ((0, 0),), "unreadable", origin)
        assert decode(encode(message)) == message


def giant_png(width, height):
    """Return a PNG of a few bytes that announces a huge picture."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(1 << 20, 1 << 20), (60_000, 60_000), (1 << 31, 1)])
def test_a_small_file_that_announces_a_huge_picture_is_one_line(tmp_path, size):
    (tmp_path / "bomb.png").write_bytes(giant_png(*size))
    with pytest.raises(SourceError):
        read_picture(tmp_path / "bomb.png")


def test_a_video_is_read_frame_by_frame(video):
    pictures = read(open_recording(str(video)))
    assert [(p.seq, p.origin) for p in pictures] == [(i, "") for i in range(6)]
    assert [round(float(p.image.mean()) / 40) for p in pictures] == list(range(6))


def test_a_video_read_again_without_some_frames_gives_the_same_pictures(video):
    recording = open_recording(str(video))
    everything = {p.seq: p.image for p in read(recording)}
    rest = read(recording, SeqSet([(0, 1), (3, 3)]))
    assert [p.seq for p in rest] == [2, 4, 5]
    for picture in rest:
        np.testing.assert_array_equal(picture.image, everything[picture.seq])


def test_a_video_knows_its_pace(video):
    assert VideoFile(video).fps == pytest.approx(12)


def test_an_empty_video_is_one_line(tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(SourceError, match=r"is empty \(0 bytes\)"):
        open_recording(str(tmp_path / "empty.mp4"))


def test_a_file_that_is_no_video_is_one_line(tmp_path):
    (tmp_path / "exam.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(SourceError, match="is not a video"):
        open_recording(str(tmp_path / "exam.mp4"))


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(SourceError, match="there is no file or folder"):
        open_recording(str(tmp_path / "none.mp4"))


def test_a_drawn_recording_is_the_same_again_and_known_by_its_seed():
    one = open_recording("synthetic://?frames=3&seed=4&width=64&height=64")
    assert isinstance(one, SyntheticRecording)
    again = open_recording("synthetic://?frames=3&seed=4&width=64&height=64")
    other = open_recording("synthetic://?frames=3&seed=5&width=64&height=64")
    first = [p.image for p in read(one)]
    assert len(first) == 3
    np.testing.assert_array_equal(first, [p.image for p in read(again)])
    assert any((a != p.image).any() for a, p in zip(first, read(other), strict=True))


def test_a_drawn_recording_without_some_frames_gives_the_same_pictures():
    recording = open_recording("synthetic://?frames=4&seed=4&width=64&height=64")
    everything = {p.seq: p.image for p in read(recording)}
    (picture,) = read(recording, SeqSet([(0, 1), (3, 3)]))
    np.testing.assert_array_equal(picture.image, everything[2])


def test_a_picture_turned_by_its_camera_is_turned_upright(tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), paint(9, 48, 64))
    plain = (tmp_path / "a.jpg").read_bytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    turned = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    (tmp_path / "a.jpg").write_bytes(turned)
    assert read_picture(tmp_path / "a.jpg").shape == (64, 48, 3)


def test_a_folder_of_one_picture_is_read_as_a_folder(tmp_path):
    cv2.imwrite(str(tmp_path / "only.png"), paint(5))
    assert isinstance(open_recording(str(tmp_path)), PictureFiles)
    assert [p.origin for p in read(open_recording(str(tmp_path)))] == ["only.png"]


def test_a_pattern_is_one_recording_in_the_order_of_its_names(folder):
    recording = open_recording(str(folder / "a*.png"))
    assert [(p.seq, p.origin) for p in read(recording)] == [(0, "a9.png"), (1, "a10.png")]
    everywhere = read(open_recording(str(folder / "**" / "*.png")))
    assert [p.origin for p in everywhere] == ["a9.png", "a10.png", "sub/c.png"]


def test_a_pattern_without_a_folder_is_of_this_one(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert [p.origin for p in read(open_recording("*.png"))] == ["a9.png", "a10.png"]


def test_a_pattern_that_nothing_matches_is_one_line(folder):
    with pytest.raises(SourceError, match=r"x\*\.png holds no pictures"):
        open_recording(str(folder / "x*.png"))


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(folder):
    (folder / "a9.png").rename(folder / "scan[1].png")
    assert [p.origin for p in read(open_recording(str(folder / "scan[1].png")))] == ["scan[1].png"]


def test_a_name_that_the_system_refuses_is_one_line():
    with pytest.raises(SourceError, match="File name too long"):
        open_recording("x" * 5000)


BLUE_GREEN_RED = (50, 100, 200)


@pytest.mark.parametrize(
    ("name", "stored", "wanted"),
    [
        ("16.png", np.full((8, 8, 3), BLUE_GREEN_RED, np.uint16) * 257, BLUE_GREEN_RED),
        ("16.tif", np.full((8, 8, 3), BLUE_GREEN_RED, np.uint16) * 257, BLUE_GREEN_RED),
        ("grey.png", np.full((8, 8), 90, np.uint8), (90, 90, 90)),
        ("grey16.tif", np.full((8, 8), 90, np.uint16) * 257, (90, 90, 90)),
        ("alpha.png", np.full((8, 8, 4), (*BLUE_GREEN_RED, 128), np.uint8), BLUE_GREEN_RED),
        ("plain.webp", np.full((8, 8, 3), BLUE_GREEN_RED, np.uint8), BLUE_GREEN_RED),
        ("plain.bmp", np.full((8, 8, 3), BLUE_GREEN_RED, np.uint8), BLUE_GREEN_RED),
    ],
)
def test_pictures_of_all_depths_and_channels_are_8_bit_colour(tmp_path, name, stored, wanted):
    cv2.imwrite(str(tmp_path / name), stored)
    image = read_picture(tmp_path / name)
    assert (image.shape, image.dtype) == ((8, 8, 3), np.uint8)
    np.testing.assert_allclose(image[4, 4].astype(int), wanted, atol=4)


@pytest.mark.parametrize("name", ["print.jpg", "print.tif"])
def test_pictures_for_printing_are_colour_too(tmp_path, name):
    images = pytest.importorskip("PIL.Image", reason="only Pillow writes CMYK")
    picture = images.fromarray(np.full((8, 8, 3), BLUE_GREEN_RED[::-1], np.uint8))
    picture.convert("CMYK").save(tmp_path / name)
    np.testing.assert_allclose(read_picture(tmp_path / name)[4, 4].astype(int), BLUE_GREEN_RED, atol=4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_every_orientation_is_undone_once(tmp_path, name, orientation):
    images = pytest.importorskip("PIL.Image", reason="Pillow writes and undoes orientations for comparison")
    from PIL import ImageOps

    stored = np.zeros((24, 40, 3), np.uint8)
    stored[:8, :8] = 255  # a corner tells all eight apart
    exif = images.Exif()
    exif[0x112] = orientation
    images.fromarray(stored).save(tmp_path / name, exif=exif)
    with images.open(tmp_path / name) as file:
        wanted = np.asarray(ImageOps.exif_transpose(file))[..., ::-1]
    np.testing.assert_allclose(read_picture(tmp_path / name).astype(int), wanted, atol=40)


def test_a_kind_of_picture_that_is_not_read_says_what_to_do(tmp_path):
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(SourceError, match="convert them to PNG or JPEG"):
        open_recording(str(tmp_path / "IMG_1.HEIC"))


@pytest.fixture
def ffmpeg(tmp_path):
    """`ffmpeg(arguments, name)` makes a video in the test's folder; skips where ffmpeg is not installed."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")

    def make(arguments, name):
        command = ["ffmpeg", "-y", "-loglevel", "error", *arguments, str(tmp_path / name)]
        subprocess.run(command, check=True)
        return tmp_path / name

    return make


def drawn(rate, seconds):
    return ["-f", "lavfi", "-i", f"testsrc=size=64x48:rate={rate}:duration={seconds}"]


def test_a_video_of_varying_pace_knows_the_time_of_each_frame(ffmpeg):
    both = ["-filter_complex", "[0][1]concat=n=2:v=1", "-fps_mode", "vfr"]
    pictures = read(VideoFile(ffmpeg([*drawn(10, 1), *drawn(40, 1), *both], "vary.mp4")))
    times = [p.at_s for p in pictures]
    assert times[:10] == pytest.approx([i / 10 for i in range(10)], abs=0.02)
    assert np.diff(times[-10:]) == pytest.approx(np.full(9, 1 / 40), abs=0.005)


def test_an_odd_pace_is_kept(ffmpeg):
    video = VideoFile(ffmpeg(drawn("30000/1001", 1), "ntsc.mp4"))
    assert video.fps == pytest.approx(30000 / 1001)
    assert read(video)[29].at_s == pytest.approx(29 * 1001 / 30000, abs=1e-3)


def test_a_video_that_was_filmed_upright_is_upright(ffmpeg):
    flat = ffmpeg(drawn(5, 1), "flat.mp4")
    turned = ffmpeg(["-i", str(flat), "-c", "copy", "-metadata:s:v:0", "rotate=90"], "turned.mp4")
    if b"\0\0\0\0\0\1\0\0" not in turned.read_bytes():
        pytest.skip("this ffmpeg writes no rotation")
    assert read(VideoFile(turned))[0].image.shape == (64, 48, 3)


def test_a_video_that_is_cut_off_says_so_when_it_was_read(tmp_path):
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(tmp_path / "whole.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (64, 48))
    for _ in range(30):
        writer.write(rng.integers(0, 255, (48, 64, 3), dtype=np.uint8))
    writer.release()
    data = (tmp_path / "whole.avi").read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) * 2 // 3])
    whole, cut = VideoFile(tmp_path / "whole.avi"), VideoFile(tmp_path / "cut.avi")
    assert 0 < len(read(cut)) < len(read(whole)) == 30
    assert (whole.note, "announces 30 pictures" in cut.note) == ("", True)


def test_a_relative_name_is_no_protocol_of_ffmpeg(tmp_path, video, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video.rename(tmp_path / "concat:exam.avi")
    assert len(read(VideoFile(Path("concat:exam.avi")))) == 6


def test_a_video_whose_name_is_no_utf_8_is_one_line_and_no_crash(tmp_path, video):
    os.rename(video, os.path.join(os.fsencode(tmp_path), b"exam\xff.avi"))
    with pytest.raises(SourceError, match="rename the file"):
        open_recording(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"exam\xff.avi")))


def test_a_pipe_is_no_recording_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(SourceError, match="neither a file nor a folder"):
        open_recording(str(tmp_path / "pipe.mp4"))


def test_a_file_that_one_may_not_read_says_so(video, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may read whatever its mode says
    with pytest.raises(SourceError, match="may not be read by this user"):
        open_recording(str(video))

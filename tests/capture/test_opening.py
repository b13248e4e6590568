"""How each kind of live source is opened: what is asked of drivers, whose clock is believed, what an error says."""

from __future__ import annotations

import time

import cv2
import numpy as np
import pytest

from derma_capture import sources
from derma_capture.sources import driver_time_ns, open_live
from derma_common.settings import Camera, CaptureSettings


def live(source, **options):
    return open_live(Camera("cam0", source, **options), CaptureSettings())


def test_a_damaged_picture_played_live_is_one_error(tmp_path, until):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    grabber = live(str(tmp_path / "bad.png"))
    until(lambda: grabber.ended)
    assert "is not a picture" in str(grabber.error)
    grabber.close()


def test_a_drawn_source_plays_to_its_end(until):
    grabber = live("synthetic://?frames=3&fps=1000&width=64&height=64")
    until(lambda: grabber.ended)
    assert (grabber.grabbed, grabber.error) == (3, None)
    assert grabber.newest().number == 2
    grabber.close()


def test_a_camera_that_does_not_exist_says_what_to_check(until):
    grabber = live("/dev/video9999")
    until(lambda: grabber.ended)
    said = str(grabber.error)
    assert said.startswith("camera /dev/video9999 does not open; check that it is plugged in")
    assert "/dev/video9999 is not there" in said
    grabber.close()


class Webcam:
    """A V4L2 camera as OpenCV shows it, which offers 1280 × 720 px at most."""

    def __init__(self, device, backend):
        assert backend == cv2.CAP_V4L2
        self.device, self.asked, self.left = device, [], 3
        self.stamp_ms = time.monotonic_ns() / 1e6
        Webcam.latest = self

    def isOpened(self):
        return True

    def set(self, key, value):
        self.asked.append((key, value))
        return True

    def get(self, key):
        return {cv2.CAP_PROP_FRAME_WIDTH: 1280, cv2.CAP_PROP_FRAME_HEIGHT: 720, cv2.CAP_PROP_FPS: 30}.get(
            key, self.stamp_ms
        )

    def read(self):
        self.left -= 1
        return self.left >= 0, np.zeros((720, 1280, 3), np.uint8)

    def release(self):
        pass


@pytest.fixture
def webcam(monkeypatch):
    monkeypatch.setattr(sources.cv2, "VideoCapture", Webcam)
    return Webcam


def test_a_webcam_is_asked_for_its_format_before_its_size_and_rate(webcam, until):
    grabber = live("0", width_px=1920, height_px=1080, fps=25.0, pixel_format="MJPG")
    until(lambda: grabber.grabbed == 3)
    assert Webcam.latest.device == 0
    assert Webcam.latest.asked == [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")), (cv2.CAP_PROP_FRAME_WIDTH, 1920),
        (cv2.CAP_PROP_FRAME_HEIGHT, 1080), (cv2.CAP_PROP_FPS, 25.0),
    ]  # fmt: skip
    grabber.close()


def test_a_webcam_that_offers_another_size_is_used_and_says_so(webcam, until, caplog):
    grabber = live("/dev/video3", width_px=1920)
    until(lambda: grabber.grabbed == 3)
    assert Webcam.latest.device == "/dev/video3"
    assert "the driver offers others" in caplog.text
    grabber.close()


def test_without_wishes_the_driver_chooses(webcam, until):
    grabber = live("0")
    until(lambda: grabber.grabbed == 3)
    assert Webcam.latest.asked == []
    grabber.close()


def test_a_webcams_picture_has_the_time_of_its_driver(webcam, until):
    grabber = live("0")
    until(lambda: grabber.grabbed == 3)
    assert grabber.newest().captured_ns == round(Webcam.latest.stamp_ms * 1e6)
    grabber.close()


@pytest.mark.parametrize(
    ("stamp_ms", "believed"),
    [(5000.0, True), (5500.0, True), (0.0, False), (5600.0, False), (1.7e12, False), (-1.0, False)],
)
def test_a_drivers_time_is_believed_only_if_it_is_of_the_monotonic_clock(stamp_ms, believed):
    now_ns = 5_500_000_000
    assert driver_time_ns(stamp_ms, now_ns) == (round(stamp_ms * 1e6) if believed else now_ns)


def test_a_webcam_without_permission_says_what_to_do(monkeypatch, tmp_path):
    (tmp_path / "video0").touch()
    monkeypatch.setattr(sources.os, "access", lambda path, mode: False)
    assert "usermod -aG video" in sources._why_not(str(tmp_path / "video0"))

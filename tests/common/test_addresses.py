"""What a source is, and that nobody reads its password."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from derma_common.addresses import Synthetic, camera_of, is_live, redacted, synthetic_of
from derma_common.errors import SourceError


@pytest.mark.parametrize(
    ("source", "camera"),
    [
        ("0", 0),
        ("12", 12),
        ("/dev/video3", "/dev/video3"),
        ("rtsp://h/1", "rtsp://h/1"),
        ("RTSPS://u:p@h:554/1?x=1", "RTSPS://u:p@h:554/1?x=1"),
        ("https://h/mjpeg", "https://h/mjpeg"),
        ("exam.mp4", None),
        ("/data/folder", None),
        ("/dev/video", None),
        ("synthetic://?frames=3", None),
        ("-1", None),
        ("²", None),
    ],
)
def test_a_camera_is_a_number_a_device_or_an_address(source, camera):
    assert camera_of(source) == camera


@pytest.mark.parametrize(
    "scheme", ["file", "concat", "ftp", "subfile", "data", "rtmp", "gopher", "smb", "FILE", "unix"]
)
def test_another_scheme_never_reaches_ffmpeg(scheme):
    with pytest.raises(SourceError, match="is not allowed; there are: rtsp, rtsps, http, https, synthetic"):
        camera_of(f"{scheme}://u:secret@host/etc/passwd")


@pytest.mark.parametrize("source", ["rtsp://[host/1", "http://[::1", "rtsp://\u2100.com/x", "synthetic://[?frames=1"])
def test_an_address_that_is_none_is_one_line(source):
    with pytest.raises(SourceError) as caught:
        is_live(source, None)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=30) | st.text("rtsphyneic:/[]@?#=&%0", max_size=30).map(lambda t: "rtsp://" + t))
def test_any_text_is_a_source_or_one_clear_error(text):
    try:
        assert is_live(text, None) in (True, False)
    except SourceError:
        return


@pytest.mark.parametrize(
    ("source", "asked", "live"),
    [
        ("0", None, True),
        ("0", False, True),
        ("rtsp://h", None, True),
        ("a.mp4", None, False),
        ("a.mp4", True, True),
        ("synthetic://?frames=3", None, False),
        ("synthetic://?frames=3&fps=5", None, True),
        ("synthetic://?frames=3&fps=5", False, False),
    ],
)
def test_cameras_are_live_and_recordings_when_asked(source, asked, live):
    assert is_live(source, asked) is live


def test_a_drawn_source_has_its_parameters():
    assert synthetic_of("synthetic://?frames=7&seed=3&width=320&height=240&fps=5") == Synthetic(7, 3, 320, 240, 5)
    assert synthetic_of("synthetic://") == Synthetic()
    assert synthetic_of("exam.mp4") is None


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("frame=3", "unknown parameter 'frame'; there are: frames, seed"),
        ("frames=three", "frames must be a whole number, got 'three'"),
        ("frames=-1", "frames must be a whole number"),
        ("frames=", "frames must be a whole number"),
        ("frames=1e3", "frames must be a whole number"),
        ("seed=999999999999", "seed must be a whole number"),
        ("width=10", "width must be 64 to 7680"),
        ("height=99999", "height 64 to 4320"),
        ("frames=0", "frames=0 has no end, so it needs fps=F"),
    ],
)
def test_a_wrong_drawn_source_is_one_line(query, says):
    with pytest.raises(SourceError) as caught:
        synthetic_of(f"synthetic://?{query}")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("rtsp://user:secret@host:554/stream1", "rtsp://host:554/stream1"),
        ("rtsp://user@host/stream", "rtsp://host/stream"),
        ("http://host/video?token=secret#secret", "http://host/video"),
        ("rtsp://host/stream", "rtsp://host/stream"),
        ("rtsp://host/user=admin&password=secret&channel=1", "rtsp://host/user=admin&password=…&channel=1"),
        ("/data/exam.mp4", "/data/exam.mp4"),
        ("synthetic://?frames=3&seed=1", "synthetic://?frames=3&seed=1"),
    ],
)
def test_an_address_is_shown_without_user_password_and_query(source, shown):
    assert redacted(source) == shown


PASSWORDS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=12)


@given(PASSWORDS, st.sampled_from(("rtsp", "http", "rtsps")))
@example("pa/ss", "rtsp")
@example("pa#ss", "rtsp")
@example("pa?ss", "rtsp")
@example("p@ss/w", "rtsp")
@example("[x", "rtsp")
@example("x]/@y", "http")
def test_a_password_is_never_shown_whatever_it_holds(password, scheme):
    marked = f"SECRET{password}SECRET"
    for source in (f"{scheme}://user:{marked}@host.example:554/stream", f"{scheme}://host/path?key={marked}"):
        assert "SECRET" not in redacted(source)
        assert redacted(source).startswith(f"{scheme}://")


@given(PASSWORDS)
def test_an_address_that_is_refused_is_refused_without_its_password(password):
    assume("SECRET" not in password)
    with pytest.raises(SourceError) as caught:
        camera_of(f"ftp://user:SECRET{password}@host/x")
    assert "SECRET" not in str(caught.value)

"""Where the cloud is and who we are there: what would send secrets in the clear, or cannot be right, is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from derma_common.cloud.access import access_of
from derma_common.errors import ConfigError
from derma_common.settings import CloudSettings


@pytest.mark.parametrize("address", ["rediss://host:6379/0", "redis://127.0.0.1:1/0", "redis://localhost", "unix:///r"])
def test_encrypted_or_on_this_machine(address):
    assert access_of(CloudSettings(redis=address)).address == address


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"redis": "redis://10.0.0.1:6379"}, "10.0.0.1 is another machine"),
        ({"redis": "rediss://me:secret@host"}, "an address only"),
        ({"redis": "rediss://host/0?password=secret"}, "an address only"),
        ({"redis": "http://host"}, "must be rediss"),
        ({"redis": "rediss://host", "site": "Room 1"}, "cloud.site"),
        ({"redis": "rediss://host", "ca_file": "/no/ca.pem"}, "there is no file /no/ca.pem"),
    ],
)
def test_what_cannot_be_right_is_one_line_without_the_secret(settings, why):
    with pytest.raises(ConfigError, match=why) as caught:
        access_of(CloudSettings(**settings))
    assert "secret" not in str(caught.value)


def test_a_password_is_read_from_a_private_file_and_shown_nowhere(tmp_path: Path):
    file = tmp_path / "password"
    file.write_text("canary-5d1\n")
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        access_of(CloudSettings(redis="rediss://host", password_file=str(file)))
    file.chmod(0o600)
    access = access_of(CloudSettings(redis="rediss://host", user="site-room1", password_file=str(file)))
    assert access.password == "canary-5d1"
    assert "canary" not in repr(access) and "canary" not in str(access)


def test_a_certificate_needs_its_key(tmp_path: Path):
    (tmp_path / "cert").write_text("x")
    with pytest.raises(ConfigError, match="belong together"):
        access_of(CloudSettings(redis="rediss://host", cert_file=str(tmp_path / "cert")))

"""Which cameras are looked at in tiles: a setting of each, off unless it is asked for."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from derma_common.config import load_settings, settings_from
from derma_common.errors import ConfigError


def load(tmp_path, text):
    file = tmp_path / "derma.toml"
    file.write_text("[[camera]]\nname = 'wide'\nsource = 'folder'\n" + text)
    return load_settings(file, {})


def test_tiles_are_off_unless_a_camera_asks_for_them(tmp_path):
    assert load(tmp_path, "").camera[0].tile_px == 0
    assert load(tmp_path, "tile_px = 352").camera[0].tile_px == 352
    assert load(tmp_path, "tile_px = 'auto'").camera[0].tile_px == "auto"


@pytest.mark.parametrize(("text", "side"), [("352", 352), ("'auto'", "auto")])
def test_the_tile_side_reaches_the_services_through_the_plan(tmp_path, text, side):
    settings = load(tmp_path, f"tile_px = {text}\n[detector]\nlive_tiles = 5")
    table = json.loads(json.dumps(asdict(settings)))
    again = settings_from(table, "the run's plan")
    assert (again.camera[0].tile_px, again.detector.live_tiles) == (side, 5)


@pytest.mark.parametrize("value", ["63", "-1", "352.0", "'352'", "'Auto'", "true"])
def test_a_tile_side_that_makes_no_sense_is_one_line(tmp_path, value):
    with pytest.raises(ConfigError, match=r'camera wide: tile_px must be "auto", 0 or a whole number'):
        load(tmp_path, f"tile_px = {value}")


def test_fewer_than_no_tiles_of_a_live_camera_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"detector\.live_tiles must be at least 0"):
        load(tmp_path, "[detector]\nlive_tiles = -1")

"""`derma up --tile auto|PX`: for every source of the run."""

from __future__ import annotations

import pytest

from derma_cli.sources import cameras_of
from derma_common.config import tile_px_of
from derma_common.errors import ConfigError
from derma_common.settings import Camera, Settings


def test_the_flag_is_for_every_source_and_wins_over_the_settings():
    settings = Settings(camera=(Camera("left", "synthetic://?seed=1", None, 512), Camera("right", "0")))
    assert [c.tile_px for c in cameras_of([], False, None, settings)] == [512, 0]
    assert [c.tile_px for c in cameras_of([], False, 352, settings)] == [352, 352]
    assert [c.tile_px for c in cameras_of([], False, 0, settings)] == [0, 0]
    assert [c.tile_px for c in cameras_of([], False, "auto", settings)] == ["auto", "auto"]
    assert [c.tile_px for c in cameras_of(["synthetic://?frames=1", "0"], False, 352, Settings())] == [352, 352]


@pytest.mark.parametrize(("text", "side"), [("auto", "auto"), ("0", 0), ("352", 352)])
def test_the_flag_is_a_side_or_auto(text, side):
    assert tile_px_of(text) == side


@pytest.mark.parametrize("text", ["12", "-64", "3e2", "", "wide"])
def test_a_side_that_makes_no_sense_is_one_line(text):
    with pytest.raises(ConfigError, match='--tile must be "auto", 0 or a whole number of at least 64 px, got '):
        tile_px_of(text)

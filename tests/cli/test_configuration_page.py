"""docs/configuration.md says of every setting what deploy/derma.toml says of it, and is current."""

from __future__ import annotations

import runpy
from dataclasses import fields
from pathlib import Path

from derma_common.settings import Camera, Settings

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "deploy" / "configuration_page.py"))


def test_the_page_is_current():
    wanted = SCRIPT["page"]((ROOT / "deploy" / "derma.toml").read_text())
    said = (ROOT / "docs" / "configuration.md").read_text()
    assert said == wanted, "run: python deploy/configuration_page.py > docs/configuration.md"


def test_every_setting_is_on_the_page_with_its_environment_variable():
    said = (ROOT / "docs" / "configuration.md").read_text()
    for section in fields(Settings):
        if section.name == "camera":
            continue
        for setting in fields(section.default_factory):
            assert f"`DERMA_{section.name}_{setting.name}`".upper() in said


def test_every_setting_of_a_camera_is_on_the_page():
    said = (ROOT / "docs" / "configuration.md").read_text().partition("## [[camera]]")[2]
    assert [f.name for f in fields(Camera) if f"\n{f.name} = " not in said] == []


def test_values_that_share_a_comment_share_an_entry():
    text = "# Top.\n\n[a]\n# The table.\n#\n# Both.\nx = 1\ny = 2\n# Of z.\nz = 3\n\n# Cameras.\n#\n"
    text += "# [[camera]]\n# # N.\n# n = 1\n"
    assert SCRIPT["page"](text).partition("-->\n\n")[2] == (
        "Top.\n\n## [a]\n\nThe table.\n\n```toml\nx = 1\ny = 2\n```\n\nBoth.\n`DERMA_A_X`, `DERMA_A_Y`\n\n"
        "```toml\nz = 3\n```\n\nOf z.\n`DERMA_A_Z`\n\n## [[camera]]\n\nCameras.\n\n```toml\nn = 1\n```\n\nN.\n"
    )

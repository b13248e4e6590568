"""The images' files: what a build needs goes to the builder and nothing else, and containers have few rights."""

from __future__ import annotations

import fnmatch
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "deploy" / "docker"
DOCKERFILES = sorted(DOCKER.glob("Dockerfile*"))
IGNORE = (ROOT / ".dockerignore").read_text().splitlines()


def sent(path: str) -> bool:
    """Whether the builder gets a path: the last line of .dockerignore that matches it or a folder of it decides."""
    parts = Path(path).parts
    candidates = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    found = False
    for line in IGNORE:
        pattern = line.removeprefix("!").removeprefix("**/")
        names = [Path(c).name for c in candidates] if line.startswith("**/") else candidates
        if line and not line.startswith("#") and any(fnmatch.fnmatchcase(name, pattern) for name in names):
            found = line.startswith("!")
    return found


def instructions(file: Path) -> list[list[str]]:
    """Return a Dockerfile's instructions as words."""
    text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", file.read_text(), flags=re.MULTILINE))
    return [line.split() for line in text.splitlines() if line]


def test_the_builder_gets_all_that_a_wheel_is_made_of():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*wheel["packages"], *wheel["force-include"], "pyproject.toml", "README.md", "LICENSE"]
    assert [path for path in needed if not sent(path)] == []


@pytest.mark.parametrize(
    "path",
    [
        ".git/config", ".venv/bin/python", "tests/conftest.py", "derma-data/derma.db", "derma.toml",
        "cli/derma_cli/__pycache__/up.pyc", "deploy/docker/Dockerfile",
    ],
)  # fmt: skip
def test_the_builder_gets_nothing_else(path):
    assert not sent(path)


def test_the_builder_gets_few_megabytes():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is no git checkout")
    files = [ROOT / name for name in listed.stdout.splitlines() if sent(name)]
    assert 0 < sum(file.stat().st_size for file in files if file.is_file()) < 100e6


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.name)
def test_an_image_has_a_fixed_base_and_no_rights(file):
    words = instructions(file)
    last = {line[0]: line[1:] for line in words}
    assert last["USER"] == ["10001:10001"]
    assert last["ENTRYPOINT"] == ['["derma"]']
    (base,) = [line[1].partition("=")[2] for line in words if line[0] == "ARG" and line[1].startswith("BASE=")]
    tag = base.rpartition(":")[2]
    assert tag != base and tag != "latest"


def test_services_of_the_compose_file_have_few_rights_and_room_for_pictures():
    yaml = pytest.importorskip("yaml")
    compose = yaml.safe_load((DOCKER / "compose.yaml").read_text())
    assert len(compose["services"]) == 2
    for service in compose["services"].values():
        assert service["read_only"] is True and service["user"] == "10001:10001" and service["init"] is True
        assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"]
        assert service["shm_size"] == "1gb" and service["tmpfs"] == ["/tmp"]
        assert (DOCKER / service["build"]["context"]).resolve() == ROOT
        assert (ROOT / service["build"]["dockerfile"]).is_file()

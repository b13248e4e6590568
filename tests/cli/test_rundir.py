"""The run directory: one run at a time, judged by its lock, readable by its user alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest

from derma_cli.rundir import LOCK_FILE, RunDir, is_alive, remove_dead, run_dir_of
from derma_common.errors import ResourceError
from derma_common.settings import RunSettings, Settings


@pytest.fixture
def path(tmp_path):
    return tmp_path / "derma-0" / "run"


def files(path):
    return sorted(p.name for p in path.iterdir())


def test_a_run_directory_is_private_and_gone_afterwards(path):
    with RunDir(path):
        assert path.stat().st_mode & 0o777 == 0o700
        assert path.parent.stat().st_mode & 0o777 == 0o700
        (path / "ring-cam0-0").write_bytes(b"x")
    assert not path.exists()


def test_a_run_directory_is_gone_after_a_failure_too(path):
    with pytest.raises(KeyError), RunDir(path):
        raise KeyError
    assert not path.exists()


def test_a_second_run_is_refused_and_leaves_the_first_alone(path):
    with RunDir(path):
        (path / "beat-sink.0").touch()
        with pytest.raises(ResourceError, match="a run is already up here"), RunDir(path):
            pytest.fail("the body must not run")
        assert files(path) == ["beat-sink.0", LOCK_FILE]
    with RunDir(path):
        assert is_alive(path)


def test_a_run_is_alive_as_long_as_its_lock_is_held(path):
    assert not is_alive(path)
    with RunDir(path):
        assert is_alive(path)
    assert not is_alive(path)


def test_a_living_run_is_not_removed(path):
    with RunDir(path):
        assert not remove_dead(path)
        assert is_alive(path)


KILLED_AT_WORK = """
import os, signal, sys
from pathlib import Path
from derma_cli.rundir import RunDir
with RunDir(Path(sys.argv[1])) as run:
    (run.path / "ring-cam0-0").write_bytes(bytes(100_000))
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def dead(path):
    """The directory of a run whose supervisor was killed."""
    child = subprocess.run([sys.executable, "-c", KILLED_AT_WORK, str(path)], check=False)
    assert child.returncode == -signal.SIGKILL
    assert files(path) == [LOCK_FILE, "ring-cam0-0"]
    return path


def test_a_killed_run_is_dead_and_can_be_removed(dead):
    assert not is_alive(dead)
    assert remove_dead(dead)
    assert not dead.exists()
    assert not remove_dead(dead)


def test_the_next_run_empties_what_a_killed_one_left(dead):
    with RunDir(dead):
        assert files(dead) == [LOCK_FILE]


def test_a_directory_that_others_can_read_is_refused(path):
    path.parent.mkdir(mode=0o700)
    path.mkdir()
    path.chmod(0o755)
    with pytest.raises(ResourceError, match=r"must be a directory of this user alone \(0700\)"), RunDir(path):
        pytest.fail("the body must not run")


def test_a_link_in_place_of_the_directory_is_refused(path, tmp_path):
    path.parent.mkdir(mode=0o700)
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    path.symlink_to(target)
    with pytest.raises(ResourceError, match="must be a directory of this user alone"), RunDir(path):
        pytest.fail("the body must not run")
    assert files(target) == []


def test_a_link_in_place_of_the_users_directory_is_refused(path, tmp_path):
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    path.parent.symlink_to(target)
    with pytest.raises(ResourceError, match="must be a directory of this user alone"), RunDir(path):
        pytest.fail("the body must not run")
    assert files(target) == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(path):
    path.parent.mkdir(mode=0o700)
    os.chown(path.parent, 12345, 12345)
    with pytest.raises(ResourceError, match="must be a directory of this user alone"), RunDir(path):
        pytest.fail("the body must not run")


def test_a_file_in_place_of_the_directory_is_one_line(path):
    path.parent.mkdir(mode=0o700)
    path.write_text("")
    with pytest.raises(ResourceError, match="cannot make the run directory"), RunDir(path):
        pytest.fail("the body must not run")


def test_a_place_that_does_not_exist_is_one_line(tmp_path):
    with pytest.raises(ResourceError, match=r"cannot make the run directory .*; set run.shm_dir"):
        RunDir(tmp_path / "no" / "such" / "place").__enter__()


def test_what_rings_still_take_is_known(path):
    with RunDir(path) as run:
        assert run.bytes_left() == 0
        (path / "ring-cam0-0").write_bytes(bytes(10_000))
        assert run.bytes_left() >= 10_000


def test_a_data_directory_has_one_run_directory_of_its_own(tmp_path):
    def place(data_dir):
        return run_dir_of(replace(Settings(), run=RunSettings(str(data_dir), str(tmp_path))))

    assert place(tmp_path / "a") == place(tmp_path / "a")
    assert place(tmp_path / "a") != place(tmp_path / "b")
    assert place(tmp_path / "a").parent.name == f"derma-{os.getuid()}"

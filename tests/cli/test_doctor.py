"""`derma doctor`: what is wrong is told with its remedy, and the exit status says so."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
from dataclasses import replace

import pytest

from derma_cli import checks, machine, tuning
from derma_cli.doctor import doctor
from derma_cli.tuning import Share, Tuned, measure, shares
from derma_common.config import load_settings
from derma_common.errors import ResourceError
from derma_common.settings import Camera, MetricsSettings, RunSettings


@pytest.fixture
def settings(tmp_path, detector_dir, classifier_dir):
    flags = {"run.data_dir": str(tmp_path / "data"), "run.shm_dir": "/dev/shm"}
    return load_settings(
        None, {}, flags | {"detector.model": str(detector_dir), "classifier.model": str(classifier_dir)}
    )


@pytest.fixture
def here(tmp_path, monkeypatch, settings):
    """A folder with a settings file that chooses fake networks."""
    monkeypatch.chdir(tmp_path)
    models = f"[detector]\nmodel = '{settings.detector.model}'\n[classifier]\nmodel = '{settings.classifier.model}'\n"
    (tmp_path / "derma.toml").write_text(models)
    return tmp_path


def test_a_machine_that_is_well_has_nothing_bad_and_every_remark_has_its_remedy(settings):
    found = list(checks.all_checks(settings, None))
    assert {c.name for c in found} >= {
        "python", "cpu", "memory", "gpu", "clock", "shared memory", "disk", "detector", "classifier", "video",
        "metrics", "privacy", "open files", "redis",
    }  # fmt: skip
    assert [c for c in found if c.state == "bad"] == []


def test_the_report_is_for_people_or_for_programs(here, capsys):
    doctor()
    assert "detector@" in capsys.readouterr().out
    doctor(as_json=True)
    said = json.loads(capsys.readouterr().out)
    assert said["tuned"] is None and all(set(c) == {"name", "state", "says", "remedy"} for c in said["checks"])


def test_a_bad_thing_is_the_exit_status_and_its_remedy_is_printed(here, capsys, classifier_dir):
    (classifier_dir / "behaviour.json").write_text("{}")
    with pytest.raises(ResourceError, match="classifier: mend what is marked bad") as caught:
        doctor(tune=True)
    assert caught.value.exit_code == 5 and "nothing was tuned" in str(caught.value)
    out = capsys.readouterr().out
    assert "is not the file of its card" in out and "-> set classifier.model" in out


def test_a_network_that_is_none_of_its_kind_is_bad(settings):
    swapped = replace(settings, detector=replace(settings.detector, model=settings.classifier.model))
    assert [(c.name, c.state) for c in checks.models(swapped)] == [("detector", "bad"), ("classifier", "good")]


def test_a_place_for_rings_that_is_too_small_or_none_is_bad(settings, monkeypatch):
    nowhere = checks.shared_memory(replace(settings, run=RunSettings(shm_dir="/proc/nowhere")))
    assert nowhere.state == "bad" and "run.shm_dir" in nowhere.remedy
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**7, 0, 10**7))
    small = checks.shared_memory(settings)
    assert small.state == "bad" and "--shm-size" in small.remedy


def test_more_cameras_want_more_shared_memory(settings):
    def wanted(cameras):
        return int(checks.shared_memory(replace(settings, camera=cameras)).says.split(", ")[1].split()[0])

    one, three = (tuple(Camera(f"c{i}", "0") for i in range(n)) for n in (1, 3))
    assert wanted(three) == pytest.approx(3 * wanted(one), abs=2)


@pytest.mark.parametrize(("free", "state"), [(10**7, "bad"), (10**9, "note"), (10**11, "good")])
def test_little_room_on_the_disk_is_told(settings, monkeypatch, free, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(free, 0, free))
    assert checks.disk(settings).state == state


def test_a_network_disk_is_no_place_for_the_database(settings, tmp_path):
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nhost:/x {tmp_path.resolve()} nfs4 rw 0 0\n")
    assert machine.disk_type(tmp_path / "data", mounts) == "nfs4"
    assert machine.disk_type(tmp_path.parent, mounts) == "ext4"
    assert "nfs4" in checks.NETWORK_DISKS


def test_an_address_of_another_machine_cannot_serve_metrics(settings):
    def at(address):
        return checks.metrics(replace(settings, metrics=MetricsSettings(True, address)))

    assert at("203.0.113.7").state == at("no.such.host.invalid").state == "bad"
    assert at("127.0.0.1").state == "good"
    assert at("0.0.0.0").state == "note"
    assert checks.metrics(replace(settings, metrics=MetricsSettings(False, "203.0.113.7"))).state == "good"


def test_a_camera_without_permission_is_bad_and_says_which_group(tmp_path, monkeypatch):
    for name in ("video0", "video1"):
        (tmp_path / name).touch()
    monkeypatch.setattr(os, "access", lambda path, mode: path.name == "video0")
    good, bad = machine.cameras(tmp_path)
    assert (good.state, bad.state) == ("good", "bad") and "usermod -aG video" in bad.remedy


def test_a_settings_file_with_a_password_must_be_private(settings, tmp_path):
    file = tmp_path / "derma.toml"
    file.touch(0o644)
    with_password = replace(settings, camera=(Camera("a", "rtsp://u:canary@h/1"),))
    bad = checks.private(file, with_password)
    assert bad.state == "bad" and bad.remedy == f"chmod 600 {file}" and "canary" not in bad.says
    file.chmod(0o600)
    assert checks.private(file, with_password).state != "bad"


@pytest.mark.parametrize(("mask", "state"), [(0o077, "good"), (0o027, "good"), (0o022, "note"), (0o000, "bad")])
def test_a_mask_that_lets_others_write_is_bad(settings, mask, state):
    before = os.umask(mask)
    try:
        assert checks.private(None, settings).state == state
        assert os.umask(mask) == mask, "the mask is only looked at"
    finally:
        os.umask(before)


def test_a_slow_cpu_and_little_memory_are_told(settings, tmp_path):
    (tmp_path / "cpuinfo").write_text("flags : sse2 ssse3\n")
    assert machine.cpu(settings, tmp_path / "cpuinfo").state == "note"
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   300000 kB\n")
    assert machine.memory(tmp_path / "meminfo").state == "bad"


def test_few_open_files_are_bad(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (64, 4096))
    assert machine.open_files().state == "bad" and "ulimit -n" in machine.open_files().remedy


def test_a_redis_that_does_not_answer_is_bad_and_nothing_is_lost(settings):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cloud = replace(settings.cloud, redis=f"redis://127.0.0.1:{port}/0", timeout_s=0.5)
    found = checks.redis(replace(settings, cloud=cloud))
    assert found.state == "bad" and "nothing is lost" in found.remedy


@pytest.mark.parametrize("cores", [1, 2, 4, 8, 16, 64])
def test_candidates_share_the_cores(cores):
    candidates = shares(cores)
    assert 1 <= len(candidates) <= 12 and len(set(candidates)) == len(candidates)
    for share in candidates:
        assert min(share.detector_threads, share.workers, share.classifier_threads) >= 1
        assert share.detector_threads <= cores and share.workers * share.classifier_threads <= cores
        assert share.workers <= tuning.MOST_WORKERS


def test_the_best_share_is_the_fastest_or_a_smaller_one_that_is_as_fast():
    a, b, c = Share(1, 1, 1), Share(2, 1, 2), Share(4, 2, 2)
    assert Tuned({a: 10.0, b: 20.0, c: 20.3}).best == b
    assert Tuned({a: 10.0, b: 20.0, c: 25.0}).best == c


def test_tuning_measures_the_networks_of_the_settings_at_work_together(settings):
    # two lesions' boxes cost the fake detector 15 ms and three crops its classifier 8 ms: 66 frames/s at most
    tuned = measure(settings, 2, lambda line: None, seconds=0.5)
    assert set(tuned.rates) == set(shares(2)) and all(rate > 0 for rate in tuned.rates.values())


def test_what_was_tuned_is_written_into_the_settings_file(here, capsys, monkeypatch):
    monkeypatch.setattr(tuning, "SECONDS", 0.2)
    monkeypatch.setattr("derma_cli.doctor.measure", lambda *a: Tuned({Share(3, 2, 1): 5.0}))
    doctor(tune=True)
    assert "written into derma.toml: detector.threads = 3, classifier.workers = 2" in capsys.readouterr().out
    settings = load_settings(here / "derma.toml", {})
    assert (settings.detector.threads, settings.classifier.workers, settings.classifier.threads) == (3, 2, 1)

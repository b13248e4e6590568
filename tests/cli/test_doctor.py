"""`derma doctor`: what is wrong is told with its remedy, and the exit status says so."""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from derma_cli import checks, machine, side_by_side, tuning
from derma_cli.doctor import doctor
from derma_cli.side_by_side import Share
from derma_cli.tuning import Tuned, Tuning, best_of, shares
from derma_common.config import load_settings
from derma_common.errors import ModelError, ResourceError
from derma_common.inference.card import read_card
from derma_common.inference.fake import fake_detector
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
    assert best_of({a: 10.0, b: 20.0, c: 20.3}) == b
    assert best_of({a: 10.0, b: 20.0, c: 25.0}) == c


def tuned(settings, seconds=2.0):
    return Tuning(settings, sorted(os.sched_getaffinity(0)), lambda line: None, seconds).run()


def test_tuning_measures_the_networks_of_the_settings_at_work_together(settings):
    found = tuned(settings)
    cores = len(os.sched_getaffinity(0))
    assert {share for _, share, _ in found.measured} >= set(shares(cores))
    assert all(rate > 0 for _, _, rate in found.measured)
    assert found.settings["detector.threads"] == found.share.detector_threads
    assert "detector.model" not in found.settings, "a model of somebody's own stays"
    assert "no shipped variant" in found.why[0]


def quantised(directory, of, difference):
    """Make the folder of a faster build of a detector; its card says by how much its AP50 differs."""
    fake_detector(directory, service_ms=1)
    card = json.loads((directory / "card.json").read_text())
    card["figures"] = {"quantised_from": read_card(of).id, "ap50": {"difference": {"value": difference}}}
    (directory / "card.json").write_text(json.dumps(card))
    return directory


@pytest.fixture
def family(tmp_path, monkeypatch, settings):
    """`family(difference)` gives settings whose detector has a faster build in a folder of shipped models."""

    def make(difference):
        shipped = tmp_path / "shipped"
        plain = fake_detector(shipped / "plain", service_ms=40)
        quantised(shipped / "small", plain, difference)
        monkeypatch.setattr(tuning, "shipped_models", lambda: [shipped / "plain", shipped / "small"])
        names = {"plain": shipped / "plain", "small": shipped / "small"}
        for module in (tuning, side_by_side):
            monkeypatch.setattr(module, "model_dir", lambda name: names.get(name, Path(name)))
        return replace(settings, detector=replace(settings.detector, model="plain"))

    return make


def test_a_faster_variant_that_loses_nothing_is_chosen_and_it_is_said_why(family):
    found = tuned(family(-0.0004))
    assert found.settings["detector.model"] == "small"
    assert found.why[0].startswith("small: faster, and loses 0.0004 of AP50 by its card (frames/s: plain ")


@pytest.mark.parametrize("difference", [-0.02, float("nan")])
def test_a_faster_variant_that_loses_much_or_nobody_knows_how_much_is_not_even_measured(family, difference):
    found = tuned(family(difference))
    assert "detector.model" not in found.settings and {model for model, _, _ in found.measured} == {"plain"}


def test_the_variants_of_the_shipped_detector_are_one_network(settings):
    for name in ("yolov4-tiny-mole", "yolov4-tiny-mole-int8"):
        chosen = replace(settings, detector=replace(settings.detector, model=name))
        assert tuning.variants(chosen) == ["yolov4-tiny-mole", "yolov4-tiny-mole-int8"]


def test_stages_on_cores_of_their_own_have_different_ones():
    share = Share(2, 3, 1, pinned=True)
    assert share.cores([1, 3, 5, 7, 9, 11]) == ([1, 3], [5, 7, 9])
    assert Share(2, 3, 1).cores([1, 3, 5, 7, 9, 11]) == ([], [])


def test_a_pinned_network_runs_on_its_cores_only():
    core = min(os.sched_getaffinity(0))
    seen = []

    def open_work(closing):
        return lambda: seen.append(os.sched_getaffinity(0))

    side_by_side._side_by_side([(open_work, [core])], 0.0)
    assert seen and all(cores == {core} for cores in seen)
    assert os.sched_getaffinity(0) != {core} or len(os.sched_getaffinity(0)) == 1


def test_a_network_that_does_not_open_ends_the_measuring_with_its_error(settings):
    broken = replace(settings, classifier=replace(settings.classifier, model=settings.detector.model))
    with pytest.raises(ModelError):
        tuned(broken)


@pytest.fixture
def measured(monkeypatch):
    """Tuning as if it had been measured."""
    values = {"detector.model": "yolov4-tiny-mole-int8", "detector.threads": 3, "detector.cores": [0, 1, 2]}
    found = Tuned("yolov4-tiny-mole-int8", Share(3, 2, 1, True), values, ["int8: faster"], [("x", Share(3, 2, 1), 5.0)])
    monkeypatch.setattr("derma_cli.doctor.Tuning", lambda *_: SimpleNamespace(run=lambda: found))


@pytest.mark.usefixtures("measured")
def test_what_was_tuned_is_written_into_the_settings_file_and_nothing_else_changes(here, capsys):
    mine = "[detector]  # of room 1\n# mine\nscore_threshold = 0.5  # low\n"
    (here / "derma.toml").write_text((here / "derma.toml").read_text().replace("[detector]\n", mine))
    before = load_settings(here / "derma.toml", {})
    doctor(tune=True)
    out = capsys.readouterr().out
    assert "int8: faster" in out
    assert 'written into derma.toml: detector.model = "yolov4-tiny-mole-int8", detector.threads = 3' in out
    after = load_settings(here / "derma.toml", {})
    assert (after.detector.model, after.detector.threads) == ("yolov4-tiny-mole-int8", 3)
    assert after.detector.cores == (0, 1, 2)
    assert "# mine\nscore_threshold = 0.5  # low\n" in (here / "derma.toml").read_text()
    assert replace(after, detector=before.detector) == before


@pytest.mark.usefixtures("measured")
def test_what_was_tuned_is_in_the_json_too(here, capsys):
    doctor(tune=True, as_json=True)
    found = json.loads(capsys.readouterr().out)["tuned"]
    assert found["settings"]["detector.cores"] == [0, 1, 2] and found["why"] == ["int8: faster"]
    assert found["measured"][0]["frames_per_s"] == 5.0

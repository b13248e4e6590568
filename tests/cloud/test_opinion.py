"""Second opinions: what the ensemble says, and that it reaches the right site and no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import redis
from support.crops import crop, lesion
from support.metrics import values

from derma_cloud.ensemble import Ensemble
from derma_cloud.opinion import GROUP, GiveOpinions
from derma_common.cloud.entries import Opinion, unpack
from derma_common.cloud.streams import DEAD, Line, opinions_key, pictures_key
from derma_common.errors import ModelError
from derma_common.inference.card import ModelCard, read_card
from derma_common.inference.classification import Classifier
from derma_common.inference.fake import fake_classifier
from derma_common.shipped import model_dir
from derma_common.workers.consumer import Consumer, Terms
from derma_common.workers.metrics import WorkerMetrics


def opened(directory: Path, logits: list[float], **card: object) -> Classifier:
    """Return a fake classifier with these logits and a changed card."""
    classifier = Classifier.open(fake_classifier(directory, logits=logits))
    return Classifier(replace(classifier.card, **card), classifier.runner)  # type: ignore[arg-type]


def softmax(logits: list[float]) -> np.ndarray:
    e = np.exp(np.array(logits, dtype=np.float64))
    return e / e.sum()


def test_the_ensemble_is_the_mean_of_its_members_whatever_the_order_of_their_classes(tmp_path: Path) -> None:
    a = opened(tmp_path / "a", [1, 2, 0])
    b = opened(tmp_path / "b", [0, 3, 1], classes=("melanoma", "unknown", "benign"))
    ensemble = Ensemble([a, b])
    p_b = softmax([0, 3, 1])
    expected = (softmax([1, 2, 0]) + p_b[[2, 0, 1]]) / 2
    np.testing.assert_allclose(ensemble.probabilities(crop()), expected, rtol=1e-6)
    assert ensemble.classes == ("benign", "melanoma", "unknown")
    assert "no prior rescaling" in ensemble.method and "mean of 2 models" in ensemble.method
    assert ensemble.models == (a.card.id, b.card.id)


def test_priors_are_rescaled_when_every_member_states_its_counts(tmp_path: Path) -> None:
    counts = {"benign": 900, "melanoma": 90, "unknown": 10}
    member = opened(tmp_path / "a", [1, 2, 0], class_counts=counts)
    weighed = softmax([1, 2, 0]) / np.array([900, 90, 10])
    ensemble = Ensemble([member])
    np.testing.assert_allclose(ensemble.probabilities(crop()), weighed / weighed.sum(), rtol=1e-6)
    assert "equally frequent" in ensemble.method
    mixed = Ensemble([member, opened(tmp_path / "b", [1, 2, 0])])
    np.testing.assert_allclose(mixed.probabilities(crop()), softmax([1, 2, 0]), rtol=1e-6)
    assert "no prior rescaling" in mixed.method


def test_members_that_know_other_classes_are_refused_by_name(tmp_path: Path) -> None:
    other = opened(tmp_path / "b", [1, 2, 0], classes=("benign", "melanoma", "other"))
    with pytest.raises(ModelError, match="must share them"):
        Ensemble([opened(tmp_path / "a", [1, 2, 0]), other])


def test_an_opinion_does_not_depend_on_how_the_picture_is_turned() -> None:
    ensemble = Ensemble.open([model_dir("efficientnet-b0-skin")], threads=1)
    image = crop(3, 144)
    turned = np.ascontiguousarray(np.rot90(image)[:, ::-1])
    np.testing.assert_allclose(ensemble.probabilities(image), ensemble.probabilities(turned), atol=1e-6)


@pytest.fixture
def worker(line: Line, classifier_dir: Path) -> Iterator[Consumer[object]]:
    ensemble = Ensemble.open([classifier_dir], 1)
    metrics = WorkerMetrics("picture")
    yield Consumer(line, "w1", GiveOpinions(ensemble, "w1", metrics), Terms(GROUP, 4, 60.0), metrics)  # type: ignore[arg-type]


def opinions(line: Line, site: str) -> list[Opinion]:
    return [unpack(d.data, Opinion) for d in line.read({opinions_key(site): "0-0"}, 100, 0)]


def test_each_site_gets_the_opinions_on_its_own_lesions_suspicious_ones_first(
    line: Line, worker: Consumer[object], classifier_dir: Path
) -> None:
    for site in ("room1", "room2"):
        line.register(site)
        for priority in (2, 0):
            for seq in (10 * priority + 1, 10 * priority + 2):
                line.send([(pictures_key(site, priority), f"7-{seq}", lesion(seq, site, priority))])
    while worker.step(0):
        pass
    card: ModelCard = read_card(classifier_dir)
    for site in ("room1", "room2"):
        got = opinions(line, site)
        assert [o.seq for o in got] == [1, 2, 21, 22]
        assert {(o.site, o.run, o.camera, o.number, o.models, o.worker) for o in got} == {
            (site, "run-1", "cam0", 0, (card.id,), "w1")
        }
        np.testing.assert_allclose(list(got[0].probabilities.values()), softmax([1, 2, 0]), rtol=1e-6)
        assert all(o.service_ns > 0 and o.wall_ns > 0 for o in got)


def test_a_site_that_appears_later_is_found(line: Line, worker: Consumer[object]) -> None:
    worker.step(0)
    line.register("room9")
    line.send([(pictures_key("room9", 0), "1-1", lesion(1, "room9"))])
    worker._due["find"] = 0.0
    worker.step(0)
    assert [o.seq for o in opinions(line, "room9")] == [1]


def test_hostile_pictures_and_names_hurt_nobody(line: Line, worker: Consumer[object], bare: redis.Redis) -> None:
    bare.sadd("derma:sites", b"\xff\xfe", "../../etc", "room1", "a" * 500, "x:y")
    other = lesion(5, "room2")  # speaks for another site
    damaged = lesion(6).replace(b"IDAT", b"JUNK")
    bomb = lesion(7).replace((64).to_bytes(4) + (64).to_bytes(4), (60000).to_bytes(4) + (60000).to_bytes(4), 1)
    entries = [other, damaged, bomb, b"\x00" * 5000, lesion(8)]
    line.send([(pictures_key("room1", 1), f"1-{i + 1}", data) for i, data in enumerate(entries)])
    while worker.step(0):
        pass
    assert [o.seq for o in opinions(line, "room1")] == [8]
    assert opinions(line, "room2") == []
    assert values(worker._metrics, "derma_entries_total")["picture", "invalid"] == 4
    assert bare.xlen(DEAD) == 4
    assert line.backlog(pictures_key("room1", 1), GROUP).pending == 0

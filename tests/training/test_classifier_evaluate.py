"""Evaluations of painted pictures, whose figures are known beforehand."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from support.painted import CLASSES, SIZE_PX, STEP, grey_network, paint_table

from derma_common.errors import ConfigError, SourceError
from derma_common.inference.classification import Classifier
from derma_common.preprocess import CROP_MARGIN, cut, resize, square_around
from derma_common.settings import ClassifierSettings
from derma_common.shipped import model_dir
from derma_training.classifier.evaluation import measure
from derma_training.classifier.evaluation.document import document_of
from derma_training.classifier.evaluation.measure import Request, judge
from derma_training.classifier.evaluation.models import Network, open_network
from derma_training.classifier.evaluation.predict import lesion_crop, look_at, looks
from derma_training.classifier.evaluation.table import Labelled


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Network]:
    """Networks that can be asked for by name."""
    known = {
        "grey": grey_network(),
        "counted": grey_network(class_counts=dict.fromkeys(CLASSES, 10) | {"NV": 1000}, sharpness=0.1),
        "three": grey_network(("benign", "melanoma", "unknown"), "three"),
    }
    monkeypatch.setattr(measure, "open_network", lambda name, threads: known[name])
    return known


def measured(table: Path, *models: str, **asked: Any) -> dict[str, Any]:
    with ExitStack() as opened:
        judged = judge(Request(table, models or ("grey",), **{"draws": 20, **asked}), opened)
        return document_of(judged)


def test_the_figures_are_those_of_what_was_painted(tmp_path: Path, networks: dict[str, Network]) -> None:
    shown = ["MEL", "MEL", "NV", "NV", "NV", "NV", "BCC", "BKL"]
    labels = ["MEL", "NV", "NV", "NV", "NV", "MEL", "BCC", "BCC"]
    table = paint_table(tmp_path, shown, [{"label": label} for label in labels])
    document = measured(table)
    assert document["n"] == 8 and document["model"] == "grey"
    assert document["accuracy"] == pytest.approx(5 / 8)
    assert document["bma"] == pytest.approx((1 / 2 + 3 / 4 + 1 / 2) / 3, abs=1e-4)
    assert {name: row["n"] for name, row in document["classes"].items() if row["n"]} == {"MEL": 2, "NV": 4, "BCC": 2}
    melanoma = document["classes"]["MEL"]
    assert (melanoma["called"], melanoma["recall"], melanoma["ppv"], melanoma["specificity"]) == (2, 0.5, 0.5, 0.8333)
    assert document["classes"]["DF"]["auc"] is None and document["classes"]["DF"]["called"] == 0
    assert document["mean"]["sensitivity"] == document["bma"]  # the network is sure, so both thresholds say the same
    assert document["confusion"]["counts"][0] == [1, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    assert document["suspicious"]["classes"] == ["MEL", "BCC", "AK", "SCC"]
    low, high = document["interval_95"]["accuracy"]
    assert low < 5 / 8 < high
    json.dumps(document, allow_nan=False)


def test_the_bootstrap_takes_the_figures_that_are_shown(tmp_path: Path, networks: dict[str, Network]) -> None:
    labels = ["MEL", "NV", "NV", "NV", "BCC", "BKL", "DF", "MEL"]
    rows = [{"label": label, "lesion_id": "1"} for label in labels]  # one group: every draw is the whole
    document = measured(paint_table(tmp_path, ["MEL", "NV", "NV", "MEL", "BCC", "NV", "BKL", "DF"], rows), draws=2)
    intervals = document["interval_95"]
    for name in ("accuracy", "bma", "macro_auc"):
        assert intervals[name] == [document[name]] * 2
    assert intervals["suspicious_auc"] == [document["suspicious"]["auc"]] * 2
    for name in ("MEL", "NV", "BCC", "BKL", "DF"):
        assert intervals["auc"][name] == [document["classes"][name]["auc"]] * 2
        assert intervals["recall"][name] == [document["classes"][name]["recall"]] * 2


def test_labels_of_ham10000_are_scored_in_its_classes(tmp_path: Path, networks: dict[str, Network]) -> None:
    labels = [{"label": word} for word in ("akiec", "akiec", "nv", "nv")]
    document = measured(paint_table(tmp_path, ["AK", "SCC", "NV", "UNK"], labels))
    assert document["classes"]["AKIEC"]["recall"] == 1.0
    assert document["classes"]["NV"]["recall"] == 0.5
    assert document["settings"]["view"] == "common"


def test_groups_are_tabled_and_drawn_together(tmp_path: Path, networks: dict[str, Network]) -> None:
    rows = [{"label": "NV", "sex": sex, "lesion_id": lesion} for sex, lesion in zip("mmff", "1123", strict=True)]
    document = measured(paint_table(tmp_path, ["NV", "NV", "NV", "DF"], rows))
    assert document["groups"] == 3 and document["settings"]["groups_drawn"] == "lesion_id"
    assert {name: (row["n"], row["accuracy"]) for name, row in document["by"]["sex"].items()} == {
        "m": (2, 1.0),
        "f": (2, 0.5),
    }
    assert measured(tmp_path / "labels.csv", by=())["by"] == {}


def test_what_is_left_out_is_counted(tmp_path: Path, networks: dict[str, Network]) -> None:
    table = paint_table(tmp_path, ["NV"] * 24, [{"label": "NV"}] * 22 + [{"label": ""}, {"label": "rosacea"}])
    (tmp_path / "p003.png").write_bytes(b"no picture")
    document = measured(table, unknown_labels="skip")
    assert document["n"] == 21 and document["skipped"]["unlabelled"] == 1
    assert document["skipped"]["labels"] == {"rosacea": 1}
    assert list(document["skipped"]["unreadable"]) == ["p003.png"]


def test_more_than_a_few_unreadable_pictures_are_an_error(tmp_path: Path, networks: dict[str, Network]) -> None:
    table = paint_table(tmp_path, ["NV"] * 20, [{"label": "NV"}] * 20)
    (tmp_path / "p004.png").unlink()
    assert measured(table)["n"] == 19
    (tmp_path / "p005.png").unlink()
    with pytest.raises(SourceError, match=r"2 of 20 pictures cannot be read: .*p004.png"):
        measured(table)


def test_a_table_without_labels_is_an_error(tmp_path: Path, networks: dict[str, Network]) -> None:
    with pytest.raises(ConfigError, match="no labelled rows"):
        measured(paint_table(tmp_path, ["NV"], [{"label": ""}]))
    with pytest.raises(ConfigError, match="'rosacea'"):
        measured(paint_table(tmp_path, ["NV"], [{"label": "rosacea"}]))


def test_priors_are_rescaled_with_the_networks_own_counts(tmp_path: Path, networks: dict[str, Network]) -> None:
    table = paint_table(tmp_path, ["NV"], [{"label": "MEL"}])
    cv2.imwrite(str(tmp_path / "p000.png"), np.full((40, 40, 3), 0.8 * STEP, dtype=np.uint8))
    assert measured(table, "counted")["accuracy"] == 0.0  # nearest is NV, next is MEL
    assert measured(table, "counted", rescale=True)["accuracy"] == 1.0  # a hundredth of its weight is left to NV
    with pytest.raises(ConfigError, match="no class_counts"):
        measured(table, "grey", rescale=True)


@pytest.mark.parametrize("ensemble", ["mean", "rank", "confidence", "majority"])
def test_networks_of_other_classes_join(tmp_path: Path, networks: dict[str, Network], ensemble: str) -> None:
    shown = ["MEL", "MEL", "NV", "NV"]
    table = paint_table(tmp_path, shown, [{"label": label} for label in shown])
    document = measured(table, "grey", "three", ensemble=ensemble)
    assert document["model"] == "grey + three" and document["settings"]["ensemble"] == ensemble
    assert (document["ece"] is None) == (ensemble == "rank")


def test_unknown_pictures_are_told_from_lesions(tmp_path: Path, networks: dict[str, Network]) -> None:
    labels = [{"label": word} for word in ("NV", "MEL", "rosacea", "UNK")]
    document = measured(paint_table(tmp_path, ["NV", "MEL", "UNK", "UNK"], labels), unknown_labels="unk")
    assert document["unknown"]["n"] == 2
    for score in ("p_unk", "max_softmax", "energy"):
        assert document["unknown"][score] == {"auroc": 1.0, "fall_out_at_95": 0.0}
    assert measured(paint_table(tmp_path, ["NV"], [{"label": "NV"}]))["unknown"] is None


def test_readers_are_set_against_the_curve_of_what_they_look_for(tmp_path: Path, networks: dict[str, Network]) -> None:
    table = paint_table(tmp_path, ["NV", "MEL", "BCC"], [{"label": label} for label in ("NV", "MEL", "NV")])
    readers = tmp_path / "readers.csv"
    readers.write_text("name,sensitivity,specificity,target\nA,.5,.5,\nB,.9,1,mel\nC,1,1,MEL\n")
    found = measured(table, readers=readers)["readers"]
    assert {target: (row["n"], row["below_curve"]) for target, row in found.items()} == {
        "suspicious": (1, 1),
        "MEL": (2, 1),
    }
    readers.write_text("name,sensitivity,specificity,target\nA,.5,.5,DF\n")
    with pytest.raises(ConfigError, match="'DF', which this table cannot show; it can show suspicious, MEL, NV"):
        measured(table, readers=readers)


def test_a_lesion_box_is_cut_as_the_pipeline_cuts_it(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (80, 120, 3), dtype=np.uint8)
    row = Labelled(tmp_path / "a.png", "a.png", "NV", (0.5, 0.25, 0.75, 1.0), {})
    wanted = cut(image, square_around((60, 20, 90, 80), CROP_MARGIN), SIZE_PX)
    found = lesion_crop(row, image, CROP_MARGIN)
    assert found.shape == (90, 90, 3)  # 60 px and a quarter on each side, reaching over the edge
    assert np.array_equal(cv2.resize(found, (SIZE_PX, SIZE_PX), interpolation=cv2.INTER_AREA), wanted)
    assert np.array_equal(lesion_crop(row, image, CROP_MARGIN, whole=True), image[:, 20:100])


def identity_network() -> Network:
    """Return a network whose logits are the logarithms of the colours of the crop's top left pixel."""

    def run(tensor: np.ndarray) -> dict[str, np.ndarray]:
        return {"logits": np.log(np.maximum(tensor[:, :, 0, 0], 1e-9)).astype(np.float32)}

    return Network("identity", ("r", "g", "b"), 8, (0.0,) * 3, (1.0,) * 3, 4, run, lambda: None)


def test_views_are_averaged_with_their_weights(tmp_path: Path) -> None:
    image = np.zeros((16, 16, 3), dtype=np.uint8)
    image[:8, :8], image[:8, 8:], image[8:, :8], image[8:, 8:] = (0, 0, 255), (0, 255, 0), (255, 0, 0), (0, 255, 0)
    row = Labelled(tmp_path / "a.png", "a.png", "r", None, {})
    pictures = [(row, image)] * 3
    found = {tta: look_at(identity_network(), pictures, tta, whole=False) for tta in ("none", "dihedral", "steppan")}
    assert found["none"].probabilities[1] == pytest.approx([1, 0, 0], abs=1e-6)
    # each corner comes to the top left in two of the eight symmetries: red once, green twice, blue once
    assert found["dihedral"].probabilities[2] == pytest.approx([1 / 4, 2 / 4, 1 / 4], abs=1e-6)
    # zoomed to 12 px, all four corner views begin in red; mirrored they begin in green, by their right corner
    assert found["steppan"].probabilities[0] == pytest.approx([0.4 + 0.6 / 2, 0.6 / 2, 0], abs=1e-6)
    assert len(looks(image, "steppan")) == 9 and len(looks(image, "dihedral")) == 8


def test_a_constant_network_is_not_moved_by_views(tmp_path: Path) -> None:
    row = Labelled(tmp_path / "a.png", "a.png", "NV", None, {})
    image = np.full((30, 40, 3), 2 * STEP, dtype=np.uint8)
    plain = look_at(grey_network(sharpness=1.0), [(row, image)], "none", whole=False)
    for tta in ("steppan", "dihedral"):
        found = look_at(grey_network(sharpness=1.0), [(row, image)], tta, whole=False)
        assert found.probabilities == pytest.approx(plain.probabilities)
        assert found.logits == pytest.approx(plain.logits)
        assert found.features == pytest.approx(plain.features)


def test_an_exported_model_answers_as_in_the_service() -> None:
    crops = [np.random.default_rng(n).integers(0, 256, (60 + n, 60 + n, 3), dtype=np.uint8) for n in range(3)]
    folder = model_dir(ClassifierSettings().model)
    classifier, network = Classifier.open(folder), open_network(str(folder), threads=1)
    sized = [resize(crop, network.size_px) for crop in crops]
    assert np.array_equal(network.probabilities(sized).astype(np.float32), classifier.classify(crops))
    classifier.close()
    network.close()

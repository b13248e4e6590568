"""The figures of a detector: equal to pycocotools, and against answers worked out by hand."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.labelled import blank, write_coco, write_picture, write_text, write_yolo, yolo_line

from derma_common.errors import ConfigError, ResourceError
from derma_common.inference.detection import Detections, Detector
from derma_common.inference.fake import fake_detector
from derma_training.detector import __main__ as detector_program
from derma_training.detector.annotations import Annotated, Decoded
from derma_training.detector.evaluate import (
    Seen,
    average_precision,
    choose_threshold,
    figures,
    fp_at_recall,
    froc,
    intervals,
    look_at,
    match_all,
    precision_recall,
)
from derma_training.detector.evaluate.curves import draw_curves
from derma_training.detector.evaluate.gallery import CELL_PX, draw_gallery
from derma_training.detector.evaluate.matching import IOU_THRESHOLDS
from derma_training.detector.evaluate.measures import fp_at_recall_of
from derma_training.detector.evaluate.report import SIZES, lines, on_skin, report


def rows(boxes):
    return np.asarray(boxes, np.float32).reshape(-1, 4)


def seen(found, truth, ignored=(), group="", source="set"):
    """Make what a detector found, as (box, score) pairs, beside what there is."""
    ordered = sorted(found, key=lambda pair: -pair[1])
    detections = Detections(rows([box for box, _ in ordered]), np.asarray([s for _, s in ordered], np.float32))
    kinds = np.zeros(len(truth), np.int64)
    picture = Annotated(Path("p.png"), 200, 200, rows(truth), kinds, rows(ignored), source, group)
    return Seen(picture, detections, 0, 0.01)


def three_pictures():
    return [
        seen([((0, 0, 10, 10), 0.9), ((50, 50, 60, 60), 0.6)], [(0, 0, 10, 10), (30, 30, 40, 40)], source="one"),
        seen([((0, 0, 10, 10), 0.7), ((20, 20, 30, 30), 0.3)], [(0, 0, 10, 10)], [(18, 18, 32, 32)]),
        seen([((80, 80, 90, 90), 0.5)], [(80, 80, 90, 90)]),
    ]


# --- against pycocotools -------------------------------------------------------------------------------------------

CORNER, SIDE = st.integers(0, 60), st.integers(2, 40)
BOX = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), CORNER, CORNER, SIDE, SIDE)
NEAR = st.builds(
    lambda box, d: tuple(v + e for v, e in zip(box, d, strict=True)), BOX, st.tuples(*[st.integers(0, 1)] * 4)
)
SCORE = st.integers(1, 20).map(lambda n: n / 20)  # with ties
PICTURE = st.tuples(
    st.lists(st.tuples(st.one_of(BOX, NEAR), SCORE), max_size=8), st.lists(BOX, max_size=5), st.lists(BOX, max_size=2)
)


def coco_figures(pictures):
    """Return AP, AP50 and per size AP50 as pycocotools computes them; None where it says −1."""
    coco = pytest.importorskip("pycocotools.coco", reason="needs pycocotools: pip install 'derma[peers]'")
    cocoeval = pytest.importorskip("pycocotools.cocoeval", reason="needs pycocotools")
    truth, found = coco.COCO(), []
    annotations = []
    for n, one in enumerate(pictures, 1):
        for crowd, boxes in enumerate((one.picture.boxes, one.picture.ignored)):
            annotations += [_annotation(len(annotations) + k, n, box, crowd) for k, box in enumerate(boxes, 1)]
        found += [_result(n, b, s) for b, s in zip(one.found.boxes, one.found.scores, strict=True)]
    images = [{"id": n, "width": 200, "height": 200} for n in range(1, len(pictures) + 1)]
    truth.dataset = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "lesion"}]}
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        results = truth.loadRes(found) if found else coco.COCO()
        run = cocoeval.COCOeval(truth, results, "bbox")
        run.params.areaRng = [[0, 1e10], *SIZES.values()]
        run.params.areaRngLbl = ["all", *SIZES]
        run.params.imgIds = [image["id"] for image in images]
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][:, :, 0, :, -1]  # T, 101 recalls, areas
    ap50 = [_mean(precision[0, :, a]) for a in range(precision.shape[2])]
    return {"ap": _mean(precision[:, :, 0]), "ap50": ap50[0], "sizes": dict(zip(SIZES, ap50[1:], strict=True))}


def _annotation(number, image, box, crowd):
    x1, y1, x2, y2 = (float(v) for v in box)
    size = (x2 - x1) * (y2 - y1)
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
        "area": size,
        "iscrowd": crowd,
    }


def _result(image, box, score):
    x1, y1, x2, y2 = (float(v) for v in box)
    return {"image_id": image, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(score)}


def _mean(values):
    return None if (values < 0).all() else pytest.approx(float(values.mean()), abs=1e-9)


def check_against_coco(pictures):
    wanted = coco_figures(pictures)
    matches = match_all(pictures)
    every = [average_precision(matches, level) for level in range(len(IOU_THRESHOLDS))]
    assert (None if every[0] is None else np.mean(every)) == wanted["ap"]
    assert every[0] == wanted["ap50"]
    for name, areas in SIZES.items():
        assert average_precision(match_all(pictures, areas)) == wanted["sizes"][name], name


@given(st.lists(PICTURE, min_size=1, max_size=4))
def test_ap_is_pycocotools_ap_with_ignored_regions_ties_and_sizes(drawn):
    if any(found for found, _, _ in drawn):
        check_against_coco([seen(found, truth, ignored) for found, truth, ignored in drawn])


def test_ap_is_pycocotools_ap_where_a_picture_has_more_detections_than_count():
    rng = np.random.default_rng(3)
    pictures = []
    for _ in range(6):
        truth = rows([(x, y, x + w, y + h) for x, y, w, h in rng.uniform(5, 60, (12, 4))])
        jitter = np.repeat(truth, 12, axis=0) + rng.normal(0, 4, (144, 4))
        jitter[:, 2:] = np.maximum(jitter[:, 2:], jitter[:, :2] + 1)
        pictures.append(seen([(tuple(b), s) for b, s in zip(jitter, rng.uniform(0, 1, 144), strict=True)], truth))
    check_against_coco(pictures)


# --- by hand -------------------------------------------------------------------------------------------------------


def test_hits_misses_and_ignored_detections_are_counted():
    found = figures(match_all(three_pictures()), 0.55)
    assert (found["n_images"], found["n_boxes"]) == (3, 4)
    assert (found["recall"], found["precision"], found["f1"]) == (0.5, 0.6667, 0.5714)
    assert found["fp_per_image"] == 0.3333
    everything = figures(match_all(three_pictures()), 0.0)
    assert (everything["recall"], everything["precision"]) == (0.75, 0.75)  # what lies in the ignored box costs nothing


def test_a_score_must_be_above_the_threshold_as_in_the_service():
    assert figures(match_all([seen([((0, 0, 10, 10), 0.5)], [(0, 0, 10, 10)])]), 0.5)["recall"] == 0


def test_a_second_detection_of_a_lesion_is_a_false_positive():
    matches = match_all([seen([((0, 0, 10, 10), 0.9), ((0, 0, 10, 11), 0.8)], [(0, 0, 10, 10)])])
    assert matches.hits[0].tolist() == [True, False] and matches.false[0].tolist() == [False, True]


def test_figures_without_lesions_have_no_recall_and_perfect_detection_has_all_ones():
    bare = figures(match_all([seen([((0, 0, 9, 9), 0.9)], [])]), 0.5)
    assert (bare["ap"], bare["ap50"], bare["recall"], bare["f1"]) == (None, None, None, None)
    assert (bare["precision"], bare["fp_per_image"]) == (0, 1)
    perfect = figures(match_all([seen([((0, 0, 9, 9), 0.9)], [(0, 0, 9, 9)])]), 0.5)
    assert [perfect[k] for k in ("ap", "ap50", "recall", "precision", "f1", "fp_per_image")] == [1, 1, 1, 1, 1, 0]
    silent = figures(match_all([seen([], [(0, 0, 9, 9)])]), 0.5)
    assert [silent[k] for k in ("ap", "recall", "precision", "f1", "fp_per_image")] == [0, 0, 0, 0, 0]
    nothing = figures(match_all([]), 0.5)
    assert (nothing["n_images"], nothing["ap"], nothing["fp_per_image"]) == (0, None, None)


def test_the_free_response_curve_gives_the_best_recall_for_each_number_of_false_positives():
    assert froc(match_all(three_pictures())) == [
        {"fp_per_image": 0.0, "recall": 0.5, "threshold": 0.7},
        {"fp_per_image": 0.3333, "recall": 0.75, "threshold": 0.3},
    ]
    assert fp_at_recall(match_all(three_pictures()), (0.5, 0.75, 0.8)) == {"0.5": 0.0, "0.75": 0.3333, "0.8": None}
    assert froc(match_all([seen([((0, 0, 9, 9), 0.9)], [])])) == []
    assert fp_at_recall(match_all([]), (0.5,)) == {"0.5": None}


def test_false_positives_on_skin_are_told_at_the_recall_on_lesions():
    skin = [seen([((0, 0, 9, 9), score)], []) for score in (0.95, 0.8, 0.6, 0.1)]
    found = fp_at_recall_of(match_all(three_pictures()), match_all(skin), (0.25, 0.5, 0.75, 0.9))
    assert found == {"0.25": 0.25, "0.5": 0.5, "0.75": 0.75, "0.9": None}
    assert on_skin(three_pictures(), skin, 0.5)["fp_per_image"] == 0.75


def test_precision_over_recall_runs_over_all_detections():
    recall, precision, scores = precision_recall(match_all(three_pictures()))
    assert recall.tolist() == [0.25, 0.5, 0.5, 0.75, 0.75]
    assert precision.tolist() == pytest.approx([1, 1, 2 / 3, 0.75, 0.75])
    assert scores.tolist() == pytest.approx([0.9, 0.7, 0.6, 0.5, 0.3])


def test_a_bootstrap_draws_patients_and_covers_what_is_known():
    rng = np.random.default_rng(1)
    hit, miss = [((0, 0, 9, 9), 0.9)], []
    pictures = [seen(hit if rng.random() < 0.7 else miss, [(0, 0, 9, 9)], group=f"P{n}") for n in range(200)]
    found = intervals(match_all(pictures), 0.5, 400)
    share = figures(match_all(pictures), 0.5)["recall"]
    low, high = found["recall"]
    spread = 1.96 * np.sqrt(share * (1 - share) / 200)  # the normal interval of a share
    assert (low, high) == pytest.approx((share - spread, share + spread), abs=0.015)
    assert found["precision"] == [1, 1]
    one_patient = [
        seen(one.found and [((0, 0, 9, 9), 0.9)] if len(one.found) else [], [(0, 0, 9, 9)], group="P")
        for one in pictures
    ]
    assert intervals(match_all(one_patient), 0.5, 20)["recall"] == [share, share]


def test_intervals_of_what_has_no_meaning_are_none():
    found = intervals(match_all([seen([((0, 0, 9, 9), 0.9)], [])]), 0.5, 10)
    assert found["ap50"] is None and found["fp_per_image"] == [1, 1]


def test_the_threshold_is_the_best_f1_that_stays_quiet_on_skin():
    truth = [(0, 0, 10, 10)]
    lesions = [seen([((0, 0, 10, 10), s)], truth) for s in (0.9, 0.5, 0.3)]
    noise = [seen([((0, 0, 10, 10), 0.42)], [])] * 2
    assert choose_threshold({"lesions": match_all(lesions)}) < 0.3
    assert 0.42 < choose_threshold({"lesions": match_all(lesions), "skin": match_all(noise)}) < 0.5
    loud = [seen([((0, 0, 10, 10), 0.99)], [])]
    assert choose_threshold({"lesions": match_all(lesions), "skin": match_all(loud)}) == 0.5


def test_a_report_has_every_key_and_its_lines_say_the_figures():
    document = report(three_pictures(), 0.55, samples=20)
    for key in ("ap", "ap50", "recall", "precision", "f1", "fp_per_image", "n_images", "n_boxes", "threshold", "froc"):
        assert key in document
    assert document["by_source"]["one"]["recall"] == 0.5 and document["by_source"]["set"]["recall"] == 0.5
    assert document["by_size"]["tiny"]["n_boxes"] == 4 and document["by_size"]["large"]["recall"] is None
    assert json.loads(json.dumps(document)) == document
    document["skin"] = on_skin(three_pictures(), three_pictures(), 0.55)
    text = "\n".join(lines(document))
    assert (
        "recall 0.500 [" in text
        and "tiny: 4 lesions" in text
        and "one: 2 lesions" in text
        and "3 pictures without" in text
    )
    bare = "\n".join(lines(report([seen([], [])], 0.5)))
    assert "recall –" in bare


# --- pictures and the command --------------------------------------------------------------------------------------


def decoded(boxes, ignored=()):
    image = blank(416, 416)
    return Decoded(
        Path("é-0001.png"), 416, 416, rows(boxes), np.zeros(len(boxes), np.int64), rows(ignored), pixels=image
    )


def test_the_detector_sees_what_the_service_sees(tmp_path):
    detector = Detector.open(fake_detector(tmp_path / "model"))
    (one,) = look_at(detector, [decoded([(100, 100, 150, 150)])])
    assert one.found.boxes.tolist() == detector.detect(blank(416, 416)).boxes.tolist()
    assert one.tiles == 0 and one.elapsed_s > 0
    (tiled,) = look_at(detector, [decoded([])], 208)
    assert tiled.tiles == 9
    (small,) = look_at(detector, [decoded([])], "auto")
    assert small.tiles == 0


def test_sheets_show_hits_misses_and_false_positives_and_leave_out_what_is_ignored(tmp_path):
    picture = decoded([(100, 100, 150, 150), (10, 10, 30, 40)], [(300, 300, 350, 350)])
    found = [(100, 100, 150, 148), (200, 180, 260, 230), (305, 305, 345, 345)]
    one = Seen(picture, Detections(rows(found), np.asarray([0.9, 0.8, 0.7], np.float32)), 0, 0.0)
    said = draw_gallery([one, one], 0.5, tmp_path / "sheets")
    assert [line.rpartition("/")[2] for line in said] == [
        "hits.jpg: 2 of 2", "misses.jpg: 2 of 2", "false-positives.jpg: 2 of 2",
    ]  # fmt: skip
    assert cv2.imread(str(tmp_path / "sheets" / "hits.jpg")).shape == (CELL_PX, 2 * CELL_PX, 3)
    assert draw_gallery([seen([], [])], 0.5, tmp_path / "none") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot write pictures"):
        draw_gallery([one], 0.5, tmp_path / "file")


def test_curves_are_drawn_and_without_lesions_refused(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the bench extra: pip install 'derma[bench]'")
    draw_curves(match_all(three_pictures()), 0.5, tmp_path / "a" / "curves.png")
    assert cv2.imread(str(tmp_path / "a" / "curves.png")) is not None
    with pytest.raises(ConfigError, match="without lesions"):
        draw_curves(match_all([seen([], [])]), 0.5, tmp_path / "none.png")


@pytest.fixture
def data(tmp_path):
    """Return a folder in whose pictures the fake detector finds one of two lesions, and one thing that is none."""
    image = blank(416, 416)
    for name in "ab":
        write_picture(tmp_path / "data" / "images" / f"{name}.png", image)
        lines_ = [yolo_line(box, 0, 416, 416) for box in ((100, 100, 150, 150), (300, 300, 330, 330))]
        write_text(tmp_path / "data" / "labels" / f"{name}.txt", lines_)
    return tmp_path / "data"


def evaluate(capsys, *arguments):
    status = detector_program.main(["evaluate", *(str(a) for a in arguments)])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_the_command_prints_one_json_document_and_says_what_it_read(data, tmp_path, capsys):
    model = fake_detector(tmp_path / "model")
    status, out, err = evaluate(capsys, "--data", data, "--model", model, "--json", "--bootstrap", 10)
    document = json.loads(out)
    assert status == 0
    assert {k: document[k] for k in ("n_images", "n_boxes", "recall", "precision", "f1", "fp_per_image")} == {
        "n_images": 2, "n_boxes": 4, "recall": 0.5, "precision": 0.5, "f1": 0.5, "fp_per_image": 1.0,
    }  # fmt: skip
    assert (
        document["threshold"] == 0.25 and document["format"] == "YOLO text" and document["model"].startswith("model@")
    )
    assert f"{data}: YOLO text; 2 pictures, 4 boxes, 0 ignored" in err


def test_the_command_takes_every_flag_together(data, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="needs the bench extra: pip install 'derma[bench]'")
    write_picture(tmp_path / "skin" / "s.png", blank(416, 416))
    status, out, err = evaluate(
        capsys, "--data", data, "--model", fake_detector(tmp_path / "model"), "--tile", "auto", "--threshold", 0.85,
        "--skin", tmp_path / "skin", "--pictures", tmp_path / "sheets", "--curves", tmp_path / "curves", "--threads", 1,
    )  # fmt: skip
    assert status == 0
    assert "at the threshold 0.85: recall 0.500, precision 1.000" in out
    assert "1 pictures without lesions: 1.000 false positives each" in out
    assert (tmp_path / "curves" / "curves.png").is_file() and (tmp_path / "sheets" / "misses.jpg").is_file()
    assert "taken to show no lesion" in err


def test_splits_measured_together_are_told(tmp_path, capsys):
    for split in ("train", "val"):
        write_yolo(tmp_path / "data" / split, {split: [(1, 1, 9, 9)]})
    _, _, err = evaluate(capsys, "--data", tmp_path / "data", "--model", fake_detector(tmp_path / "model"))
    assert "splits train, val are measured together" in err
    _, out, _ = evaluate(
        capsys, "--data", tmp_path / "data", "--model", fake_detector(tmp_path / "m2"), "--split", "val"
    )
    assert out.startswith("1 pictures")


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--data", "nowhere"), 3, "derma: there is no file or folder nowhere"),
        (("--data", ".", "--model", "nobody"), 4, "derma: there is no model 'nobody'"),
        (("--data", ".", "--tile", "-64"), 2, 'derma: --tile must be "auto", 0 or a whole number'),
        (("--data", ".", "--tile", "wide"), 2, 'derma: --tile must be "auto", 0 or a whole number'),
    ],
)
def test_what_a_user_can_mend_is_one_line_and_an_exit_status(tmp_path, monkeypatch, capsys, arguments, status, said):
    monkeypatch.chdir(tmp_path)
    found, out, err = evaluate(capsys, *arguments)
    assert (found, out) == (status, "") and said in err


@pytest.mark.parametrize("arguments", [("--split", "some"), ("--data",), ()])
def test_a_wrong_flag_is_refused(arguments):
    with pytest.raises(SystemExit, match="2"):
        detector_program.main(["evaluate", *arguments])


def test_a_damaged_picture_of_a_coco_set_is_reported_and_the_others_are_measured(tmp_path, capsys):
    write_coco(tmp_path / "data", {"a": [(1, 1, 9, 9)], "b": [(1, 1, 9, 9)]})
    (tmp_path / "data" / "images" / "a.png").write_bytes(b"no picture")
    status, out, err = evaluate(
        capsys, "--data", tmp_path / "data", "--model", fake_detector(tmp_path / "model"), "--json"
    )
    assert status == 0 and json.loads(out)["n_images"] == 1
    assert json.loads(out)["labels"] == {"picture": 1} and "1 pictures left out: cannot be decoded" in err


def test_evaluating_and_mining_need_no_torch():
    code = (
        "import sys; sys.modules['torch'] = None; import derma_training.detector.commands.evaluate, "
        "derma_training.detector.commands.figures, derma_training.detector.commands.mine"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0

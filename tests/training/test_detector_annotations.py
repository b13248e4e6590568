"""Labelled pictures: one truth in every format, and each thing that can be wrong with labels named and counted."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.labelled import (
    FORMATS,
    HEIGHT,
    WIDTH,
    blank,
    coco_of,
    turned_by_exif,
    voc_object,
    write_coco,
    write_corner_table,
    write_list_table,
    write_picture,
    write_table,
    write_text,
    write_voc,
    write_yolo,
    yolo_line,
)

from derma_common.errors import SourceError
from derma_common.recordings import read_picture
from derma_training.detector.annotations import Problem, read_annotations

BOXES = {"a": [(10, 5, 30, 25), (40, 30, 70, 60)], "b": [], "c": [(0, 0, 80, 60)]}
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def by_name(found):
    return {picture.path.stem: picture.boxes.round(3).tolist() for picture in found.pictures}


@pytest.mark.parametrize("written", FORMATS)
def test_the_same_boxes_come_out_of_every_format(tmp_path, written):
    found = read_annotations(FORMATS[written](tmp_path, BOXES))
    assert by_name(found) == {stem: [list(map(float, box)) for box in boxes] for stem, boxes in BOXES.items()}
    assert found.report.lines() == []
    assert found.boxes == 3
    for picture in found.pictures:
        assert picture.image().shape == (picture.height, picture.width, 3) == (HEIGHT, WIDTH, 3)
        assert picture.boxes.dtype == np.float32 and len(picture.classes) == len(picture.boxes)


CORNERS = st.tuples(st.integers(0, WIDTH - 2), st.integers(0, HEIGHT - 2), st.integers(1, 40), st.integers(1, 40))


@given(st.lists(CORNERS, max_size=6, unique=True))
def test_any_boxes_survive_the_way_through_every_format(tmp_path_factory, corners):
    boxes = {"p": [(x, y, min(WIDTH, x + w), min(HEIGHT, y + h)) for x, y, w, h in corners]}
    boxes["p"] = list(dict.fromkeys(boxes["p"]))
    for write in FORMATS.values():
        found = read_annotations(write(tmp_path_factory.mktemp("set"), boxes))
        np.testing.assert_allclose(found.pictures[0].boxes, np.reshape(boxes["p"], (-1, 4)), atol=1e-3)


def test_a_json_or_a_table_can_be_named_itself(tmp_path):
    write_coco(tmp_path / "coco", BOXES)
    write_list_table(tmp_path / "table", BOXES)
    whole = by_name(read_annotations(tmp_path / "coco"))
    assert by_name(read_annotations(tmp_path / "coco" / "annotations" / "instances.json")) == whole
    assert by_name(read_annotations(tmp_path / "table" / "labels.csv")) == whole


def test_several_data_sets_in_one_folder_are_read_together_and_keep_their_names(tmp_path):
    write_list_table(tmp_path / "one", BOXES)
    write_corner_table(tmp_path / "two", BOXES)
    found = read_annotations(tmp_path)
    assert sorted({picture.source for picture in found.pictures}) == ["one", "two"]
    assert found.boxes == 6


def test_a_folder_behind_a_link_is_read(tmp_path):
    write_yolo(tmp_path / "real", BOXES)
    (tmp_path / "set").mkdir()
    for name in ("images", "labels"):
        os.symlink(tmp_path / "real" / name, tmp_path / "set" / name)
    os.symlink(tmp_path / "real" / "images", tmp_path / "real" / "images" / "loop")
    assert by_name(read_annotations(tmp_path / "set")) == by_name(read_annotations(tmp_path / "real"))


@pytest.mark.parametrize("layout", ["images/{}/a.png labels/{}/a.txt", "{}/images/a.png {}/labels/a.txt"])
def test_splits_come_from_the_folders(tmp_path, layout):
    for split in ("train", "valid"):
        picture, label = layout.format(split, split).split()
        write_picture(tmp_path / picture)
        write_text(tmp_path / label, [yolo_line((1, 1, 9, 9))] * (split == "valid"))
    assert {p.split: len(p.boxes) for p in read_annotations(tmp_path).pictures} == {"train": 0, "val": 1}
    assert [len(p.boxes) for p in read_annotations(tmp_path, "val").pictures] == [1]
    with pytest.raises(SourceError, match="has no split 'test'; it has train, val"):
        read_annotations(tmp_path, "test")


def test_splits_come_from_the_name_of_a_coco_file_or_the_column_of_a_table(tmp_path):
    for split in ("train", "val"):
        write_text(tmp_path / "coco" / f"instances_{split}2017.json", [json.dumps(coco_of({split: []}))])
        write_picture(tmp_path / "coco" / split / f"{split}.png")
    assert {p.path.stem: p.split for p in read_annotations(tmp_path / "coco").pictures} == {
        "train": "train",
        "val": "val",
    }
    rows = [{"file": f"{s}.png", "boxes": "[]", "split": s, "patient_id": f"P{s}"} for s in ("train", "val")]
    for row in rows:
        write_picture(tmp_path / "table" / row["file"])
    found = read_annotations(write_table(tmp_path / "table", rows))
    assert [(p.split, p.group) for p in found.pictures] == [("train", "Ptrain"), ("val", "Pval")]


def test_what_may_be_ignored_is_kept_apart_in_every_format(tmp_path):
    write_yolo(tmp_path / "yolo", {"a": [(1, 1, 9, 9)]})
    write_text(tmp_path / "yolo" / "ignored" / "a.txt", [yolo_line((20, 20, 40, 40))])
    document = coco_of({"a": [(1, 1, 9, 9), (20, 20, 40, 40)]})
    document["annotations"][1]["iscrowd"] = 1
    write_picture(tmp_path / "coco" / "a.png")
    write_text(tmp_path / "coco" / "labels.json", [json.dumps(document)])
    write_voc(tmp_path / "voc", {"a": [(1, 1, 9, 9)]})
    xml = tmp_path / "voc" / "Annotations" / "a.xml"
    xml.write_text(
        xml.read_text().replace("</annotation>", voc_object((20, 20, 40, 40), difficult=1) + "</annotation>")
    )
    row = {"file": "a.png", "boxes_px": "[[1, 1, 9, 9]]", "ignore_boxes_px": "[[20, 20, 40, 40]]"}
    write_picture(tmp_path / "table" / "a.png")
    write_table(tmp_path / "table", [row])
    for folder in tmp_path.iterdir():
        (picture,) = read_annotations(folder).pictures
        assert picture.boxes.round(3).tolist() == [[1, 1, 9, 9]], folder
        assert picture.ignored.round(3).tolist() == [[20, 20, 40, 40]], folder


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0 nan 0.5 0.1 0.1", Problem.NOT_A_NUMBER),
        ("0 0.5 inf 0.1 0.1", Problem.NOT_A_NUMBER),
        ("0 0.5 0.5 1e308 0.1", Problem.NOT_A_NUMBER),
        ("0 0.5 0.5 0 0.1", Problem.EMPTY),
        ("0 0.5 0.5 -0.2 0.1", Problem.EMPTY),
        ("0 1.5 0.5 0.2 0.2", Problem.OUTSIDE),
        ("0 -0.3 0.5 0.2 0.2", Problem.OUTSIDE),
        ("3 0.5 0.5 0.2 0.2", Problem.CLASS),
        ("-1 0.5 0.5 0.2 0.2", Problem.CLASS),
        ("0.5 0.5 0.5 0.2 0.2", Problem.CLASS),
        ("0 0.25 0.25 0.25 0.25", Problem.REPEATED),
        ("0 0.5 0.5", Problem.LINE),
        ("lesion 0.5 0.5 0.2 0.2", Problem.LINE),
    ],
)
def test_a_bad_line_is_refused_and_named_and_the_good_one_stays(tmp_path, line, problem):
    write_yolo(tmp_path, {"a": [(10, 7.5, 30, 22.5)]})
    write_text(tmp_path / "classes.txt", ["lesion"])
    label = tmp_path / "labels" / "a.txt"
    label.write_text(label.read_text() + line + "\n")
    found = read_annotations(tmp_path)
    assert by_name(found) == {"a": [[10, 7.5, 30, 22.5]]}
    assert found.report.as_json() == {problem.name.lower(): 1}
    (said,) = found.report.lines()
    assert said.startswith(f"1 {problem}") and "labels/a.txt" in said and ("2" in said)


@pytest.mark.parametrize(
    ("text", "names"),
    [("names: [mole, 'scar']\n", ("mole", "scar")), ("nc: 2\nnames:\n  0: mole\n  1: scar\n", ("mole", "scar"))],
)
def test_class_names_come_from_the_yaml_file_and_bound_the_classes(tmp_path, text, names):
    write_yolo(tmp_path, {"a": []})
    write_text(tmp_path / "labels" / "a.txt", [yolo_line((1, 1, 9, 9), 1), yolo_line((20, 20, 30, 30), 2)])
    (tmp_path / "data.yaml").write_text("train: images\n" + text)
    found = read_annotations(tmp_path / "data.yaml")
    assert found.classes == names and found.pictures[0].classes.tolist() == [1]
    assert found.report.count(Problem.CLASS) == 1


def test_without_names_the_classes_are_the_numbers_that_occur(tmp_path):
    write_yolo(tmp_path, {"a": []})
    write_text(tmp_path / "labels" / "a.txt", [yolo_line((1, 1, 9, 9), 2)])
    assert read_annotations(tmp_path).classes == ("0", "1", "2")


def test_a_polygon_counts_with_its_bounds(tmp_path):
    write_yolo(tmp_path, {"a": []})
    write_text(tmp_path / "labels" / "a.txt", ["0 0.25 0.5 0.5 0.25 0.75 0.5 0.5 0.75"])
    assert by_name(read_annotations(tmp_path)) == {"a": [[20, 15, 60, 45]]}


def test_a_box_over_the_edge_is_cut_and_counted_unless_it_is_rounding(tmp_path):
    write_yolo(tmp_path, {"a": [(-10, 5, 20, 25)], "b": [(60, 50, 80.5, 60.4)]})
    found = read_annotations(tmp_path)
    assert by_name(found) == {"a": [[0, 5, 20, 25]], "b": [[60, 50, 80, 60]]}
    assert found.report.as_json() == {"clipped": 1}


def test_missing_and_damaged_files_are_counted_and_the_rest_is_read(tmp_path):
    write_yolo(tmp_path, {"good": [(1, 1, 9, 9)], "gone": [(1, 1, 9, 9)], "damaged": [], "binary": [], "bare": []})
    (tmp_path / "images" / "gone.png").unlink()
    (tmp_path / "images" / "damaged.png").write_bytes(b"\x89PNG nothing")
    (tmp_path / "labels" / "binary.txt").write_bytes(b"\xff\xfe\x00\x81")
    (tmp_path / "labels" / "bare.txt").unlink()
    found = read_annotations(tmp_path)
    assert by_name(found) == {"good": [[1, 1, 9, 9]], "bare": []}
    assert found.report.as_json() == {"unlabelled": 1, "label_file": 1, "no_picture": 1, "picture": 1}
    assert any("labels/gone.txt" in line for line in found.report.lines())


def test_a_broken_xml_file_makes_no_picture_without_lesions(tmp_path):
    write_voc(tmp_path, BOXES)
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation><obj")
    (tmp_path / "Annotations" / "c.xml").unlink()
    write_text(tmp_path / "other.xml", ["<project/>"])
    found = read_annotations(tmp_path)
    assert by_name(found) == {"b": [], "c": []}
    assert found.report.as_json() == {"label_file": 1, "unlabelled": 1}


def test_a_coco_annotation_without_its_picture_class_or_box_is_counted(tmp_path):
    document = coco_of({"a": [(1, 1, 9, 9)] * 4, "gone": []})
    _, stranger, unknown, boxless = document["annotations"]
    stranger["image_id"], unknown["category_id"] = 99, 12
    del boxless["bbox"]
    write_picture(tmp_path / "a.png")
    write_text(tmp_path / "labels.json", [json.dumps(document)])
    found = read_annotations(tmp_path)
    assert by_name(found) == {"a": [[1, 1, 9, 9]]}
    assert found.report.as_json() == {"no_picture": 2, "class": 1, "not_a_number": 1}


def test_coco_ids_of_any_kind_are_survived_and_categories_may_be_missing(tmp_path):
    document = coco_of({"a": [(1, 1, 9, 9), (20, 20, 40, 40)]})
    del document["categories"]
    document["annotations"][1]["category_id"] = 3
    write_picture(tmp_path / "a.png")
    write_text(tmp_path / "labels.json", [json.dumps(document)])
    found = read_annotations(tmp_path)
    assert found.classes == ("3", "7") and found.pictures[0].classes.tolist() == [1, 0]
    document["images"][0]["id"] = document["annotations"][0]["image_id"] = document["annotations"][1]["category_id"] = [
        1
    ]
    write_text(tmp_path / "labels.json", [json.dumps(document)])
    found = read_annotations(tmp_path)
    assert found.boxes == 1 and found.report.as_json() == {"no_picture": 1}


def test_an_empty_row_of_a_table_is_no_lesion_only_when_the_table_says_so(tmp_path):
    for name in ("healthy", "none", "unknown"):
        write_picture(tmp_path / f"{name}.png")
    corners = {"x1": "", "y1": "", "x2": "", "y2": ""}
    rows = [
        {"file": "healthy.png", "label": "healthy", "n_boxes": "", **corners},
        {"file": "none.png", "label": "nevus", "n_boxes": "0", **corners},
        {"file": "unknown.png", "label": "nevus", "n_boxes": "", **corners},
    ]
    found = read_annotations(write_table(tmp_path, rows))
    assert by_name(found) == {"healthy": [], "none": []}
    assert found.report.as_json() == {"unknown": 1}


@pytest.mark.parametrize(
    ("column", "box"),
    [("boxes_x1y1x2y2_norm", [0.5, 0.5, 1, 1]), ("boxes_px", [40, 30, 80, 60]), ("boxes", [0.5, 0.5, 1, 1])],
)
def test_shares_and_pixels_of_a_table_are_told_apart(tmp_path, column, box):
    write_picture(tmp_path / "a.png")
    write_table(tmp_path, [{"image_id": "a", column: json.dumps([box])}])
    assert by_name(read_annotations(tmp_path)) == {"a": [[40, 30, 80, 60]]}


def test_a_cell_that_is_no_list_of_boxes_is_counted(tmp_path):
    write_picture(tmp_path / "a.png")
    write_table(tmp_path, [{"file": "a.png", "boxes": "[[1, 2, 3], [4, 5, 9, 9], 7"}])
    assert read_annotations(tmp_path).report.as_json() == {"not_a_number": 1}


def test_labels_of_a_picture_that_was_resized_are_resized_with_it_and_of_another_shape_refused(tmp_path):
    write_coco(tmp_path / "same", {"a": [(20, 10, 60, 50)]}, (2 * WIDTH, 2 * HEIGHT))
    found = read_annotations(tmp_path / "same")
    assert by_name(found) == {"a": [[10, 5, 30, 25]]} and found.report.as_json() == {"scaled": 1}
    write_coco(tmp_path / "other", {"a": [(20, 10, 60, 50)]}, (WIDTH, WIDTH))
    with pytest.raises(SourceError, match=r"labelled at a size of another shape.*80x80, the picture is 80x60"):
        read_annotations(tmp_path / "other")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_of_the_picture_as_exif_turns_it(tmp_path, orientation):
    image = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 90, (HEIGHT, WIDTH, 3), dtype=np.uint8), (0, 0), 3)
    image[8:24, 10:50] = 255
    file = tmp_path / "a.jpg"
    file.write_bytes(turned_by_exif(image, orientation))
    upright = read_picture(file)
    assert upright.shape[:2] == ((WIDTH, HEIGHT) if orientation > 4 else (HEIGHT, WIDTH))
    ys, xs = np.nonzero(upright[..., 0] > 170)
    bright = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    write_text(tmp_path / "a.txt", [yolo_line(bright, 0, upright.shape[1], upright.shape[0])])
    (picture,) = read_annotations(tmp_path).pictures
    assert (picture.height, picture.width) == upright.shape[:2]
    np.testing.assert_allclose(picture.boxes, [bright], atol=1e-3)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_boxes_drawn_before_the_turn_are_turned_with_the_picture(tmp_path, orientation):
    image = blank()
    image[8:24, 10:50] = 255
    (tmp_path / "a.png").write_bytes(turned_by_exif(image, orientation))  # OpenCV goes by the contents
    write_text(tmp_path / "labels.json", [json.dumps(coco_of({"a": [(10, 8, 50, 24)]}))])
    found = read_annotations(tmp_path)
    (picture,) = found.pictures
    ys, xs = np.nonzero(picture.image()[..., 0] > 200)
    np.testing.assert_allclose(picture.boxes, [(xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)], atol=1)
    assert found.report.as_json() == {"turned": 1}


def test_a_folder_of_pictures_without_labels_shows_no_lesion_and_says_so(tmp_path):
    for n in range(5):
        write_picture(tmp_path / f"{n}.jpg")
    found = read_annotations(tmp_path)
    assert (len(found.pictures), found.boxes) == (5, 0)
    assert "without labels" in found.format
    assert found.report.lines() == [f"5 {Problem.UNLABELLED} (0.jpg, 1.jpg, 2.jpg, …)"]


def test_a_table_of_the_pictures_that_has_no_boxes_is_told(tmp_path):
    write_picture(tmp_path / "a.png")
    write_table(tmp_path, [{"file": "a.png", "diagnosis": "nevus"}])
    assert read_annotations(tmp_path).report.as_json() == {"table": 1, "unlabelled": 1}


def test_masks_beside_the_pictures_are_no_pictures(tmp_path):
    write_yolo(tmp_path, BOXES)
    write_picture(tmp_path / "masks" / "a.png")
    assert len(read_annotations(tmp_path).pictures) == 3


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("labels.json", "{", "cannot be read as JSON"),
        ("labels.json", '{"images": 1, "annotations": []}', "must be lists of objects"),
        ("labels.csv", "file,boxes\n\x00,a,b,c", "holds no labelled picture"),
    ],
)
def test_a_broken_label_file_is_one_clear_line(tmp_path, name, text, said):
    write_picture(tmp_path / "a.png")
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=said):
        read_annotations(tmp_path)


def test_a_place_that_holds_nothing_is_one_clear_line(tmp_path):
    with pytest.raises(SourceError, match="no labelled picture that can be read: no picture was found"):
        read_annotations(tmp_path)
    with pytest.raises(SourceError, match="there is no file or folder"):
        read_annotations(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="give a folder, a COCO json or a table"):
        read_annotations(write_picture(tmp_path / "a.png"))
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(SourceError, match="neither COCO annotations nor a table"):
        read_annotations(tmp_path / "other.json")


@pytest.mark.skipif(not (DATA / "pad_ufes20_phone").is_dir(), reason="needs the data beside the checkout")
def test_the_two_formats_of_the_phone_photographs_say_the_same(tmp_path):
    table = read_annotations(DATA / "pad_ufes20_phone")
    for name in ("images", "labels"):
        os.symlink(DATA / "pad_ufes20_phone" / name, tmp_path / name)
    texts = read_annotations(tmp_path)
    assert len(table.pictures) == len(texts.pictures) == 524
    boxes = {picture.path.name: picture.boxes for picture in texts.pictures}
    for picture in table.pictures:
        np.testing.assert_allclose(picture.boxes, boxes[picture.path.name], atol=1.5e-4 * picture.width)


@pytest.mark.skipif(not (DATA / "itobos_widefield").is_dir(), reason="needs the data beside the checkout")
def test_the_wide_fields_keep_their_ignored_spots():
    found = read_annotations(DATA / "itobos_widefield")
    assert (len(found.pictures), found.boxes) == (9, 39)
    assert sum(len(picture.ignored) for picture in found.pictures) == 260
    assert found.report.lines() == []

"""The manifest: what is read, what is refused, which part a row belongs to; licences."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from derma_common.errors import ConfigError
from derma_training.classifier.licences import is_commercial, licence_of_model, normalised
from derma_training.classifier.manifest import CLASSES, Row, classes_of, read_manifest, write_manifest

HEADER = "file,label,group,fold\n"


def table(folder: Path, lines: str, header: str = HEADER) -> Path:
    """Write a manifest and the two small pictures a.png and b.png beside it."""
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / name), np.full((6, 9, 3), 128, np.uint8))
    path = folder / "manifest.csv"
    path.write_text(header + lines)
    return path


def refusal(folder: Path, lines: str, header: str = HEADER) -> str:
    with pytest.raises(ConfigError) as caught:
        read_manifest(table(folder, lines, header))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    table(tmp_path, "")
    rows = (
        Row(tmp_path / "a.png", "MEL", "L1", "0", "CC0-1.0", "x", (0.1, 0.2, 0.5, 0.75), 41.0, "male", "back", "2"),
        Row(tmp_path / "b.png", "NV", "L2", "test"),
    )
    write_manifest(rows, tmp_path / "manifest.csv")
    manifest = read_manifest(tmp_path / "manifest.csv")
    assert manifest.rows == rows and manifest.classes == ("MEL", "NV")


def test_a_fold_held_back_is_the_calibration_part(tmp_path: Path) -> None:
    manifest = read_manifest(table(tmp_path, "a.png,NV,L1,0\nb.png,MEL,L2,3\na.png,NV,L3,test\n"))
    assert [row.group for row in manifest.part("calibration", 3)] == ["L2"]
    assert [row.group for row in manifest.part("train", 3)] == ["L1"]
    assert [row.group for row in manifest.part("test", 3)] == ["L3"]


def test_a_missing_picture_is_refused_by_name(tmp_path: Path) -> None:
    assert "1 of 2 pictures are missing, first" in refusal(tmp_path, "a.png,NV,L1,0\nno.png,NV,L2,0\n")


def test_a_lesion_in_two_folds_is_refused_by_name(tmp_path: Path) -> None:
    assert "L1 lies in the folds 0 and test" in refusal(tmp_path, "a.png,NV,L1,0\nb.png,NV,L1,test\n")


@pytest.mark.parametrize(
    ("lines", "header", "said"),
    [
        ("a.png,NV,L1,x\n", HEADER, "line 2: fold 'x' is neither a number nor 'test'"),
        ("a.png,,L1,0\n", HEADER, "line 2: label is empty"),
        ("a.png,NV\n", "file,label\n", "lacks the columns group, fold"),
        ("", HEADER, "holds no rows"),
        ("a.png,NV,L1,0,0.5,0,0.4,1\n", "file,label,group,fold,x1,y1,x2,y2\n", "line 2: the lesion box"),
        ("a.png,NV,L1,0,a,0,1,1\n", "file,label,group,fold,x1,y1,x2,y2\n", "line 2: the lesion box cannot be read"),
    ],
)
def test_a_table_that_is_no_manifest_is_refused(tmp_path: Path, lines: str, header: str, said: str) -> None:
    assert said in refusal(tmp_path, lines, header)


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"\xff\xfe\x00 not UTF-8 \xff")
    with pytest.raises(ConfigError, match="no CSV table in UTF-8"):
        read_manifest(tmp_path / "m.csv")
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_manifest(tmp_path / "none.csv")


def test_training_needs_two_classes_and_each_of_them_in_the_training_folds(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="all pictures are NV"):
        read_manifest(table(tmp_path, "a.png,NV,L1,0\nb.png,NV,L2,1\n")).check_trainable()
    with pytest.raises(ConfigError, match="no picture to learn MEL from"):
        read_manifest(table(tmp_path, "a.png,MEL,L1,0\nb.png,NV,L2,1\n")).check_trainable(fold=0)
    with pytest.raises(ConfigError, match=r"there is no fold 7 .* there are 0, 1"):
        read_manifest(table(tmp_path, "a.png,MEL,L1,0\nb.png,NV,L2,1\n")).check_trainable(fold=7)


def test_the_classes_of_isic_keep_their_order_and_others_the_alphabets() -> None:
    assert classes_of(["UNK", "NV", "MEL"]) == ("MEL", "NV", "UNK")
    assert classes_of(["wart", "MEL", "acne"]) == ("MEL", "acne", "wart")
    assert len(CLASSES) == 9 and CLASSES[-1] == "UNK"


@pytest.mark.parametrize(
    ("said", "name", "commercial"),
    [
        ("CC BY-NC 4.0", "CC-BY-NC-4.0", False),
        ("CC-0", "CC0-1.0", True),
        ("cc0 1.0", "CC0-1.0", True),
        ("CC-BY", "CC-BY", True),
        ("CC_BY_4.0", "CC-BY-4.0", True),
        ("CC BY-SA 4.0", "CC-BY-SA-4.0", False),
        ("CC-BY-NC-SA-4.0", "CC-BY-NC-SA-4.0", False),
        ("mit", "MIT", False),
        ("", "unknown", False),
        ("ask the hospital", "ask the hospital", False),
    ],
)
def test_only_cc0_and_cc_by_are_commercial(said: str, name: str, commercial: bool) -> None:
    assert normalised(said) == name
    assert is_commercial(name) is commercial


@pytest.mark.parametrize(
    ("licences", "begins"),
    [
        (("CC0-1.0",), "CC0-1.0 (trained on CC0-1.0)"),
        (("CC0-1.0", "CC-BY-4.0"), "CC-BY-4.0 (trained on CC-BY-4.0, CC0-1.0): name the sources"),
        (("MIT", "CC0-1.0"), "MIT (trained on"),
        (("CC-BY-SA-4.0", "CC-BY-4.0"), "CC-BY-SA-4.0 (trained on"),
        (("CC-BY-SA-4.0", "CC-BY-NC-4.0"), "CC-BY-NC-4.0 (trained on"),
        (("CC0-1.0", "unknown"), "unknown (trained on"),
        (("CC0-1.0", "ask the hospital"), "unknown (trained on"),
    ],
)
def test_a_model_has_the_licence_of_its_strictest_pictures(licences: tuple[str, ...], begins: str) -> None:
    assert licence_of_model(licences).startswith(begins)

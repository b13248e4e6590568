"""`derma data prepare`: from folders to a manifest, in whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from derma_common.errors import ConfigError
from derma_training.classifier import __main__ as classifier
from derma_training.classifier.manifest import TEST, read_manifest
from derma_training.classifier.prepare.distractors import draw

KINDS = ("skin", "cloth", "background")


def data_set(folder: Path, n: int = 60, columns: str = "file,label,group", extra: str = "") -> Path:
    """Draw n pictures of three classes, two of each lesion, and a table."""
    folder.mkdir(parents=True)
    lines = [columns]
    for i in range(n):
        kind = KINDS[i // 2 % 3]
        cv2.imwrite(str(folder / f"p{i}.png"), draw(kind, (KINDS.index(kind), i)))
        lines.append(f"p{i}.png,{kind},L{i // 2}{extra}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def prepare(*words: str, expected: int = 0) -> int:
    status = classifier.main(["prepare", *words])
    assert status == expected
    return status


def summary_of(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    prepare(*words, "--json")
    printed = capsys.readouterr()
    assert printed.err == "", "no progress where nobody watches"
    return dict(json.loads(printed.out))


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    prepare(*words, expected=ConfigError.exit_code)
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    return printed.err


def test_a_folder_becomes_a_manifest_that_training_accepts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = data_set(tmp_path / "mine"), tmp_path / "out"
    summary = summary_of(capsys, "--source", f"csv={source}", "--out", str(out), "--folds", "4", "--licence", "CC0")
    manifest = read_manifest(out / "manifest.csv")
    manifest.check_trainable()
    assert summary["pictures"] == len(manifest.rows) == 60 and summary["groups"] == 30
    assert set(summary["folds"]) == {"0", "1", "2", "3", TEST} and sum(summary["folds"].values()) == 60
    assert sum(n["test"] for n in summary["classes"].values()) == summary["folds"][TEST] == pytest.approx(9, abs=3)
    assert summary["licences"] == {"CC0-1.0": 60}
    assert all((out / "images" / "mine" / f"p{i}.png").is_file() for i in range(60))
    assert cv2.imread(str(out / "classes.png")) is not None


def test_people_get_the_same_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare("--source", f"csv={data_set(tmp_path / 'mine')}", "--out", str(tmp_path / "out"))
    said = capsys.readouterr().out
    assert "60 pictures in 30 groups" in said and "licence of a model trained on this: unknown" in said


def test_a_stated_test_part_stays_and_its_copies_elsewhere_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stated = data_set(tmp_path / "stated", 40, "file,label,group,split")
    table = stated / "labels.csv"
    lines = table.read_text().splitlines()
    split = [f"{line},{'val' if i < 10 else 'train'}" for i, line in enumerate(lines[1:])]
    table.write_text("\n".join([lines[0], *split]))
    other = tmp_path / "other"
    (other / "skin").mkdir(parents=True)
    (other / "cloth").mkdir()
    copy = np.asarray(cv2.imread(str(stated / "p2.png")))  # in the test part, mirrored here
    cv2.imwrite(str(other / "cloth" / "copy.jpg"), copy[:, ::-1])
    cv2.imwrite(str(other / "skin" / "fresh.jpg"), draw("skin", (77,)))
    summary = summary_of(
        capsys, "--source", f"csv={stated}", "--source", f"folders={other}", "--out", str(tmp_path / "out")
    )
    assert summary["left_out"] == {"near a picture of a stated test part": 1} and summary["near_duplicate_pairs"] == 1
    rows = {row.file.stem: row for row in read_manifest(tmp_path / "out" / "manifest.csv").rows}
    assert [rows[f"p{i}"].fold == TEST for i in range(40)] == [i < 10 for i in range(40)]
    assert "copy" not in rows and "fresh" in rows


def test_a_source_can_be_held_out_whole_and_manifests_be_merged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = data_set(tmp_path / "a", 24), data_set(tmp_path / "b", 12)
    (b / "labels.csv").write_text((b / "labels.csv").read_text().replace(",L", ",M"))
    for i in range(12):
        cv2.imwrite(str(b / f"p{i}.png"), draw("background", (9, i)))
    prepare("--source", f"csv={a}", "--out", str(tmp_path / "pa"), "--test-share", "0")
    prepare("--source", f"csv={b}", "--out", str(tmp_path / "pb"), "--test", "b")
    capsys.readouterr()
    merged = summary_of(
        capsys, "--source", f"csv={tmp_path / 'pa'}", "--source", f"csv={tmp_path / 'pb'}", "--out", str(tmp_path / "m")
    )
    assert merged["sources"] == {"a": 24, "b": 12} and merged["folds"][TEST] == 12
    assert {r.source for r in read_manifest(tmp_path / "m" / "manifest.csv").rows if r.fold == TEST} == {"b"}


def test_commercial_takes_only_cc0_and_cc_by(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = data_set(tmp_path / "mine", 24, "file,label,group,licence")
    lines = (source / "labels.csv").read_text().splitlines()
    words = ("CC0", "CC BY 4.0", "CC BY-NC 4.0", "")
    licensed = [f"{line},{words[i // 6]}" for i, line in enumerate(lines[1:])]
    (source / "labels.csv").write_text("\n".join([lines[0], *licensed]))
    words_of = ("--source", f"csv={source}", "--out", str(tmp_path / "out"), "--commercial")
    summary = summary_of(capsys, *words_of)
    assert summary["licences"] == {"CC-BY-4.0": 6, "CC0-1.0": 6}
    assert summary["left_out"] == {"licence neither CC0 nor CC BY": 12}
    assert summary["licence_of_a_model"].startswith("CC-BY-4.0")
    (source / "labels.csv").write_text("\n".join(lines).replace("licence", "note"))
    assert "none is CC0 or CC BY" in refusal(capsys, *words_of)


def test_pictures_are_cleaned_and_shrunk_and_boxes_follow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    image = np.zeros((500, 700, 3), np.uint8)
    image[50:450, 100:600] = cv2.resize(draw("background", (5,)), (500, 400))
    for name in "ab":
        cv2.imwrite(str(source / f"{name}.png"), image)
    header = "file,label,x1,y1,x2,y2\n"
    (source / "labels.csv").write_text(header + "a.png,NV,0.5,0.5,0.6,0.6\nb.png,MEL,0.5,0.5,0.6,0.6\n")
    words = ("--source", f"csv={source}", "--out", str(tmp_path / "out"), "--border", "trim", "--long-side", "243")
    summary = summary_of(capsys, *words)
    assert summary["groups"] == 1, "the same picture twice is one group"
    row = read_manifest(tmp_path / "out" / "manifest.csv").rows[0]
    assert np.asarray(cv2.imread(str(row.file))).shape == (193, 243, 3)  # 500 × 400 less 7 px all round, halved
    assert row.box == pytest.approx((243 / 486, 193 / 386, 313 / 486, 243 / 386), abs=1e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--classes", "skin,cloth"), "20 pictures have labels that are none of skin, cloth: first p4 of mine"),
        (("--test", "elsewhere"), "--test names no source: elsewhere"),
        (("--folds", "1"), "--folds must be 2 or more"),
        (("--test-share", "1.5"), "--test-share is a share"),
        (("--source", "csv=nowhere"), "there is no nowhere"),
    ],
)
def test_a_wrong_wish_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    source = data_set(tmp_path / "mine")
    assert said in refusal(capsys, "--source", f"csv={source}", "--out", str(tmp_path / "out"), *words)


def test_the_folder_to_write_to_cannot_be_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = data_set(tmp_path / "mine", 6)
    assert "is a source" in refusal(capsys, "--source", f"csv={source}", "--out", str(source))


def test_a_source_that_states_a_lesion_in_both_parts_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = data_set(tmp_path / "mine", 6, "file,label,group,split", ",train")
    table = source / "labels.csv"
    table.write_text(table.read_text().replace("p1.png,skin,L0,train", "p1.png,skin,L0,val"))
    assert "L0 is both in train and in test" in refusal(
        capsys, "--source", f"csv={source}", "--out", str(tmp_path / "o")
    )


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = data_set(tmp_path / "mine", 6)
    (source / "p3.png").write_bytes(b"no picture")
    said = refusal(capsys, "--source", f"csv={source}", "--out", str(tmp_path / "out"))
    assert "p3.png is no picture that OpenCV can read" in said


@pytest.mark.parametrize("words", [("--source", "tiff=x"), ("--source", "csv="), ("--map", "a:b")])
def test_flags_that_cannot_be_read_are_refused_by_argparse(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    with pytest.raises(SystemExit) as caught:
        classifier.main(["prepare", "--source", f"csv={tmp_path}", "--out", "o", *words])
    assert caught.value.code == 2 and "derma data prepare: error" in capsys.readouterr().err

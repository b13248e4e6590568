"""Which pictures the classifier sees, and in which part."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from derma_common.errors import ConfigError
from derma_training.classifier.manifest import Source, known_lesions, part_of, read_manifest, read_source
from derma_training.classifier.pack import pack_row

HAM = Source("ham", "dermoscopy", group_column="lesion_id")
LOOSE = Source("loose", "dermoscopy")


def folder_of(root: Path, name: str, table: str, pictures: list[str]) -> Path:
    """Draw a data folder: a table and small grey pictures."""
    folder = root / name
    folder.mkdir()
    (folder / "labels.csv").write_text(table)
    for picture in pictures:
        cv2.imwrite(str(folder / picture), np.full((60, 90, 3), 128, np.uint8))
    return folder


def test_an_unknown_label_is_refused_with_its_line(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "loose", "file,label\na.png,NV\nb.png,WART\n", ["a.png", "b.png"])
    with pytest.raises(ConfigError, match=r"labels\.csv line 3: 'WART' is none of the classes MEL, NV") as caught:
        read_source(folder, LOOSE, {})
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused_with_its_line(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "loose", "file,label\na.png,NV\n", [])
    with pytest.raises(ConfigError, match=r"line 2: there is no file .*a\.png"):
        read_source(folder, LOOSE, {})


def test_a_table_without_the_group_column_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "ham", "file,label\na.png,NV\n", ["a.png"])
    with pytest.raises(ConfigError, match="lacks the columns lesion_id"):
        read_source(folder, HAM, {})


def test_a_folder_without_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"labels\.csv cannot be read"):
        read_manifest(tmp_path, [LOOSE])


def test_a_row_without_a_label_is_left_out(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "loose", "file,label\na.png,\nb.png,MEL\n", ["a.png", "b.png"])
    assert [row.label for row in read_source(folder, LOOSE, {})] == ["MEL"]


def test_a_table_may_use_its_own_words(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "loose", "file,label\na.png,SEK\n", ["a.png"])
    rows = read_source(folder, Source("loose", "phone", aliases={"SEK": "BKL"}), {})
    assert [row.label for row in rows] == ["BKL"]


def test_no_lesion_lies_in_two_parts(tmp_path: Path) -> None:
    lines = [f"p{i}.png,NV,{'val' if i % 30 // 3 == 0 else 'train'},lesion-{i // 3}" for i in range(300)]
    table = "file,label,split,lesion_id\n" + "\n".join(lines)
    folder_of(tmp_path, "ham", table, [f"p{i}.png" for i in range(300)])
    rows = read_manifest(tmp_path, [HAM])
    parts = {part: {row.group for row in rows if row.part == part} for part in ("train", "calibration", "test")}
    assert all(parts.values()), "each part has lesions"
    assert not parts["train"] & parts["test"]
    assert not parts["calibration"] & (parts["train"] | parts["test"])


def test_a_tested_lesion_in_another_table_is_left_out(tmp_path: Path) -> None:
    folder_of(tmp_path, "ham", "file,label,split,lesion_id\na.png,NV,val,L1\n", ["a.png"])
    folder_of(tmp_path, "loose", "file,label\nagain.png,NV\nother.png,NV\n", ["again.png", "other.png"])
    tables = tmp_path / "label_tables"
    tables.mkdir()
    (tables / "HAM10000_metadata.csv").write_text("lesion_id,image_id\nL1,again\n")
    assert known_lesions(tables / "HAM10000_metadata.csv") == {"again": "L1"}
    assert [row.file.name for row in read_manifest(tmp_path, [HAM, LOOSE])] == ["a.png", "other.png"]


def test_a_group_keeps_its_part_whatever_else_is_read() -> None:
    assert part_of("HAM_0000118", "train") == part_of("HAM_0000118", "train")
    shares = [part_of(f"L{i}", "train") == "calibration" for i in range(3000)]
    assert 0.06 < np.mean(shares) < 0.10


def test_the_box_of_a_packed_picture_follows_its_cut(tmp_path: Path) -> None:
    table = "file,label,x1,y1,x2,y2\na.png,NV,0.5,0.25,0.6,0.75\n"
    folder = folder_of(tmp_path, "loose", table, ["a.png"])
    (row,) = read_source(folder, LOOSE, {})
    image, item = pack_row(row)  # 90×60: the centre square starts at x = 15
    assert image.shape == (224, 224, 3)
    scale = 224 / 60
    assert item.box == pytest.approx(((45 - 15) * scale, 15 * scale, (54 - 15) * scale, 45 * scale))


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "loose", "file,label\na.png,NV\n", ["a.png"])
    (folder / "a.png").write_bytes(b"no picture")
    (row,) = read_source(folder, LOOSE, {})
    with pytest.raises(ConfigError, match=r"a\.png is no picture"):
        pack_row(row)

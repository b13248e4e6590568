"""One array of all pictures, and what each shows."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from derma_common.errors import ConfigError
from derma_training.classifier import unknowns as classifier_unknowns
from derma_training.classifier.pack import open_pack, write_pack
from derma_training.classifier.unknowns import HELD_OUT_KINDS

TABLES = {
    "ham10000_224": "file,label8_isic2019,lesion_id,split,x1,y1,x2,y2\na.png,MEL,L1,train,0.2,0.2,0.8,0.8\n",
    "isic_uda1_cc0": "file,label\na.png,NV\n",
    "isic9_extra_180": "file,label\na.png,SCC\n",
    "pad_ufes20_phone": 'file,label,patient_id,split,boxes_x1y1x2y2_norm\na.png,ACK,P1,val,"[[0.4, 0.4, 0.6, 0.6]]"\n',
    "itobos_widefield": 'file,boxes_px_x1y1x2y2_kind,ignore_boxes_px\na.png,"[[0, 0, 30, 30, ""pigmented""]]",[]\n',
}


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Draw a data folder with one picture of each source; few distractors are drawn besides."""
    monkeypatch.setattr(classifier_unknowns, "DRAWN_EACH", 3)
    for name, table in TABLES.items():
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        (folder / "labels.csv").write_text(table)
        cv2.imwrite(str(folder / "a.png"), np.full((200, 300, 3), 90, np.uint8))
    return tmp_path / "data"


def test_a_pack_is_opened_as_it_was_written(data: Path, tmp_path: Path) -> None:
    written = write_pack(data, tmp_path / "pack")
    opened = open_pack(tmp_path / "pack")
    assert opened.items == written.items and np.array_equal(opened.images, written.images)
    assert [item.label for item in opened.items[:4]] == ["MEL", "NV", "SCC", "AK"]
    assert {item.label for item in opened.items[4:]} == {"UNK"}
    assert opened.where("test", "phone") == [3]
    trained_on = {opened.items[i].domain for i in opened.where("train")}
    assert not trained_on & set(HELD_OUT_KINDS)


def test_the_box_of_a_phone_photograph_has_context_around_it(data: Path, tmp_path: Path) -> None:
    phone = write_pack(data, tmp_path / "pack").items[3]
    assert phone.box is not None
    x1, y1, x2, y2 = phone.box
    assert (x2 - x1) / 224 == pytest.approx(1 / 2.2, rel=0.02)  # 0.6 of the longer side on each side
    assert (x1 + x2) / 2 == pytest.approx(112, abs=2) and (y1 + y2) / 2 == pytest.approx(112, abs=2)


def test_a_pack_cut_short_is_none(data: Path, tmp_path: Path) -> None:
    write_pack(data, tmp_path / "pack")
    (tmp_path / "pack" / "items.json").unlink()
    with pytest.raises(ConfigError, match="is no pack of pictures"):
        open_pack(tmp_path / "pack")

"""Tables of labelled pictures, and in which classes their labels are scored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.painted import CLASSES, paint

from derma_common.errors import ConfigError
from derma_training.classifier.evaluation.classes import AS_TRAINED, LEFT_OUT, choose_scale, place_labels
from derma_training.classifier.evaluation.groups import columns_to_compare, independent_groups, values
from derma_training.classifier.evaluation.table import read_table

NINE = [CLASSES]


def written(folder: Path, text: str) -> Path:
    table = folder / "labels.csv"
    table.write_text(text, encoding="utf-8")
    return table


def test_a_table_from_a_spreadsheet_is_read(tmp_path: Path) -> None:
    table = written(tmp_path, "\ufeffFile;Label;Sex\r\na.jpg; MEL ;female\r\nsub/b.jpg;NV;\r\n")
    rows = read_table(table)
    assert [(row.file, row.label, row.columns["sex"]) for row in rows] == [
        (tmp_path / "a.jpg", "MEL", "female"),
        (tmp_path / "sub" / "b.jpg", "NV", ""),
    ]


def test_pictures_are_found_by_their_names_without_a_suffix(tmp_path: Path) -> None:
    paint(tmp_path / "images", "ISIC_1.jpg", 0)
    paint(tmp_path, "ISIC_2.png", 0)
    rows = read_table(written(tmp_path, "image,label\nISIC_1,MEL\nISIC_2,NV\nISIC_3,NV\n"))
    assert [row.file for row in rows] == [
        tmp_path / "images" / "ISIC_1.jpg",
        tmp_path / "ISIC_2.png",
        tmp_path / "ISIC_3",
    ]
    paint(tmp_path / "elsewhere", "ISIC_3.jpg", 0)
    assert read_table(tmp_path / "labels.csv", images=tmp_path / "elsewhere")[2].file.is_file()


def test_a_ground_truth_of_ones_and_zeros_is_read(tmp_path: Path) -> None:
    rows = read_table(written(tmp_path, "image,MEL,NV,UNK\na,0.0,1.0,0.0\nb,1,0,0\nc,0,0,0\n"))
    assert [row.label for row in rows] == ["nv", "mel", ""]


def test_rows_are_chosen_by_their_columns(tmp_path: Path) -> None:
    table = written(tmp_path, "file,label,split,site\na,NV,val,back\nb,NV,val,face\nc,NV,train,back\n")
    assert [row.name for row in read_table(table, where=[("split", "val"), ("site", "back")])] == ["a"]
    with pytest.raises(ConfigError, match="no row with split=test"):
        read_table(table, where=[("split", "test")])
    with pytest.raises(ConfigError, match="no column 'part'; it has file, label, split, site"):
        read_table(table, where=[("part", "val")])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("picture,label\na,NV\n", "names no pictures"),
        ("file,diagnosis\na,NV\n", "no column 'label'; say which .* has file, diagnosis"),
        ("file,label\n,NV\n", "line 2: the column file is empty"),
        ("file,label\n", "holds no rows"),
        ("file,label,x1,y1,x2,y2\na,NV,0.5,0.5,0.1,0.9\n", "line 2: the lesion box"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_table(written(tmp_path, text))


def test_labels_that_are_the_models_own_classes_are_scored_as_trained() -> None:
    scale = choose_scale([("hot dog", "no hot dog")], ["Hot Dog", "no_hot_dog", "pizza"])
    assert (scale.name, scale.classes) == (AS_TRAINED, ("hot dog", "no hot dog"))
    assert dict(scale.index_of) == {"Hot Dog": 0, "no_hot_dog": 1}
    assert scale.suspicious == () and scale.unknown is None


@given(st.integers(0, 2**32 - 1))
def test_the_akiec_of_ham10000_is_scored_as_ak_and_scc_together(seed: int) -> None:
    scale = choose_scale(NINE, ["AKIEC", "BCC", "BKL", "DF", "MEL", "NV", "VASC"])
    posterior = np.random.default_rng(seed).dirichlet(np.ones(9), 4)
    scored = posterior @ scale.membership(CLASSES)
    together = posterior[:, CLASSES.index("AK")] + posterior[:, CLASSES.index("SCC")]
    assert scored[:, scale.classes.index("AKIEC")] == pytest.approx(together)
    assert scored.sum(axis=1) == pytest.approx(1.0)
    assert set(scale.suspicious) == {"AKIEC", "BCC", "MEL"}


def test_the_words_of_pad_ufes_20_are_known() -> None:
    scale = choose_scale(NINE, ["ACK", "NEV", "SEK", "BCC", "SCC", "MEL"])
    assert [scale.classes[scale.index_of[word]] for word in ("ACK", "NEV", "SEK")] == ["AK", "NV", "BKL"]
    assert set(scale.classes) == set(CLASSES) and scale.unknown == "UNK"


def test_nothing_suspicious_is_scored_as_benign() -> None:
    scale = choose_scale(NINE, ["benign", "melanoma"])
    benign = scale.membership(CLASSES)[:, scale.index_of["benign"]]
    assert [name for name, inside in zip(CLASSES, benign, strict=True) if inside] == ["NV", "BKL", "DF", "VASC"]
    assert set(scale.suspicious) == {"MEL", "BCC", "AK", "SCC"}


def test_a_view_can_be_forced() -> None:
    scale = choose_scale(NINE, ["MEL", "NV", "SCC"], view="live")
    assert scale.classes == ("benign", "suspicious for melanoma", "other suspicious", "unknown")
    assert [scale.index_of[label] for label in ("MEL", "NV", "SCC")] == [1, 0, 2]
    with pytest.raises(ConfigError, match="no view 'nine'"):
        choose_scale(NINE, ["MEL"], view="nine")


def test_models_with_different_classes_meet_in_one_scale() -> None:
    three = ("benign", "melanoma", "unknown")
    scale = choose_scale([CLASSES, three], ["MEL", "NV"])
    for classes in (CLASSES, three):
        assert scale.membership(classes).sum(axis=1).tolist() == [1.0] * len(classes)
    assert scale.index_of["MEL"] != scale.index_of["NV"]


def test_unknown_labels_are_named_left_out_or_counted_as_unknown() -> None:
    labels = ["MEL", "rosacea", "NV", "rosacea", "Acne"]
    scale = choose_scale(NINE, labels)
    with pytest.raises(ConfigError, match=r"'rosacea' \(2×\), 'Acne' \(1×\)"):
        place_labels(scale, labels)
    assert place_labels(scale, labels, "skip").tolist() == [0, LEFT_OUT, 1, LEFT_OUT, LEFT_OUT]
    assert place_labels(scale, labels, "unk").tolist() == [0, 8, 1, 8, 8]
    with pytest.raises(ConfigError, match="for unknown lesions"):
        place_labels(choose_scale([("MEL", "NV")], labels), labels, "unk")


def test_groups_are_found_under_the_names_of_known_data_sets(tmp_path: Path) -> None:
    text = (
        "file,label,gender,localization,age,fitzpatrick\na,NV,MALE,back,44.0,1.0\nb,NV,,unknown,75,\nc,NV,,face,x,2\n"
    )
    rows = read_table(written(tmp_path, text))
    columns = columns_to_compare(rows, None)
    assert columns == {"sex": "gender", "age": "age", "site": "localization", "fitzpatrick": "fitzpatrick"}
    found = {name: values(rows, column) for name, column in columns.items()}
    assert found == {
        "sex": ["male", "not stated", "not stated"],
        "age": ["30-44", "75+", "not stated"],
        "site": ["back", "not stated", "face"],
        "fitzpatrick": ["1", "not stated", "2"],
    }
    with pytest.raises(ConfigError, match="no column 'hair'"):
        columns_to_compare(rows, ["hair"])


def test_a_column_that_states_nothing_is_no_group_unless_asked_for(tmp_path: Path) -> None:
    rows = read_table(written(tmp_path, "file,label,sex,age\na,NV,,unknown\nb,NV,female,\n"))
    assert columns_to_compare(rows, None) == {"sex": "sex"}
    assert columns_to_compare(rows, ["age"]) == {"age": "age"}


def test_pictures_of_a_patient_belong_together_and_others_stand_alone(tmp_path: Path) -> None:
    table = written(tmp_path, "file,label,lesion_id,patient_id\na,NV,1,x\nb,NV,2,x\nc,NV,3,\nd,NV,4,\n")
    column, groups = independent_groups(read_table(table), None)
    assert column == "patient_id" and groups[:2] == ("x", "x") and len(set(groups)) == 3
    assert independent_groups(read_table(table), "lesion_id") == ("lesion_id", ("1", "2", "3", "4"))
    with pytest.raises(ConfigError, match="no column 'person'"):
        independent_groups(read_table(table), "person")

"""Every published layout, on small folders made as the data set's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

from derma_common.errors import ConfigError
from derma_training.classifier.prepare.found import Found, Reading
from derma_training.classifier.prepare.layouts import LAYOUTS

SHARED = Path(__file__).parents[3] / "shared" / "data"


def unpacked(folder: Path, files: Mapping[str, str | None]) -> Path:
    """Make files below `folder`: tables from their text, pictures where the text is None."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            cv2.imwrite(str(path), np.full((10, 12, 3), 120, np.uint8))
        else:
            path.write_text(text)
    return folder


def read(layout: str, folder: Path, reading: Reading = Reading()) -> dict[str, Found]:
    return {one.name: one for one in LAYOUTS[layout].read(folder, reading)}


def labels(found: Mapping[str, Found]) -> dict[str, str]:
    return {name: one.label for name, one in found.items()}


def test_isic_2019_joins_truth_and_metadata(tmp_path: Path) -> None:
    files = {
        "ISIC_2019_Training_GroundTruth.csv": "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\n"
        "ISIC_0000001,0.0,1.0,0,0,0,0,0,0,0\nISIC_0000002_downsampled,0,0,0,0,0,0,0,1,0\n",
        "ISIC_2019_Training_Metadata.csv": "image,age_approx,anatom_site_general,lesion_id,sex\n"
        "ISIC_0000001,55,anterior torso,HAM_1,female\nISIC_0000002_downsampled,,,,\n",
        "ISIC_2019_Training_Input/ISIC_0000001.jpg": None,
        "ISIC_2019_Training_Input/ISIC_0000002_downsampled.jpg": None,
    }
    found = read("isic2019", unpacked(tmp_path, files))
    assert labels(found) == {"ISIC_0000001": "NV", "ISIC_0000002_downsampled": "SCC"}
    first = found["ISIC_0000001"]
    assert (first.group, first.age, first.sex, first.site) == ("HAM_1", 55.0, "female", "anterior torso")
    assert found["ISIC_0000002_downsampled"].group == "" and found["ISIC_0000002_downsampled"].age is None


SIIM = (
    "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target\n"
    "a,P1,male,45.0,head/neck,unknown,benign,0\nb,P2,female,50.0,torso,nevus,benign,0\n"
    "c,P2,,,torso,melanoma,malignant,1\nd,P3,,,torso,lentigo NOS,benign,0\n"
    "e,P3,,,torso,cafe-au-lait macule,benign,0\n"
)


def test_siim_2020_as_the_blogs_three_classes_and_as_the_winners_nine(tmp_path: Path) -> None:
    files = {"train.csv": SIIM, **{f"jpeg/train/{name}.jpg": None for name in "abcde"}}
    folder = unpacked(tmp_path, files)
    three, nine = read("siim2020", folder), read("siim2020-nine", folder)
    assert labels(three) == {"a": "unknown", "b": "benign", "c": "melanoma", "d": "benign", "e": "unknown"}
    assert labels(nine) == {"a": "UNK", "b": "NV", "c": "MEL", "d": "BKL", "e": "UNK"}
    assert three["c"].group == "P2" and three["a"].site == "head/neck"


def test_ham10000_has_seven_classes_and_eight_with_the_truth_of_isic_2019_beside(tmp_path: Path) -> None:
    files = {
        "HAM10000_metadata.csv": "lesion_id,image_id,dx,dx_type,age,sex,localization\n"
        "HAM_1,ISIC_0000001,akiec,histo,80,male,scalp\nHAM_2,ISIC_0000002,nv,histo,80,male,back\n",
        "HAM10000_images_part_1/ISIC_0000001.jpg": None,
        "HAM10000_images_part_2/ISIC_0000002.jpg": None,
    }
    folder = unpacked(tmp_path, files)
    assert labels(read("ham10000", folder)) == {"ISIC_0000001": "AKIEC", "ISIC_0000002": "NV"}
    truth = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK\nISIC_0000001,0,0,0,0,0,0,0,1,0\n"
    unpacked(folder, {"ISIC_2019_Training_GroundTruth.csv": truth})
    found = read("ham10000", folder)
    assert labels(found) == {"ISIC_0000001": "SCC", "ISIC_0000002": "NV"}
    assert (found["ISIC_0000001"].group, found["ISIC_0000001"].site) == ("HAM_1", "scalp")


def test_pad_ufes_20_is_grouped_by_patient(tmp_path: Path) -> None:
    header = "patient_id,lesion_id,age,gender,fitspatrick,region,diagnostic,img_id\n"
    rows = "PAT_1,10,8,,,ARM,NEV,PAT_1_10_1.png\nPAT_2,11,55,FEMALE,3.0,NECK,ACK,PAT_2_11_2.png\n"
    files = {
        "metadata.csv": header + rows,
        "images/imgs_part_1/PAT_1_10_1.png": None,
        "images/imgs_part_2/PAT_2_11_2.png": None,
    }
    found = read("pad-ufes20", unpacked(tmp_path, files))
    assert labels(found) == {"PAT_1_10_1": "NV", "PAT_2_11_2": "AK"}
    second = found["PAT_2_11_2"]
    assert (second.group, second.sex, second.fitzpatrick, second.site) == ("PAT_2", "female", "3", "neck")


PH2 = """|| Name   ||   Histological Diagnosis   || Clinical Diagnosis  || Asymmetry ||
|| IMD003 ||                            ||         0           ||     0     ||
|| IMD009 ||                            ||         1           ||     0     ||
|| IMD058 ||  Melanoma                  ||         2           ||     2     ||
Legends: Clinical Diagnosis: 0 - Common Nevus;
"""


def ph2_files(table: str) -> dict[str, str | None]:
    names = ("IMD003", "IMD009", "IMD058")
    pictures = {f"PH2 Dataset images/{n}/{n}_Dermoscopic_Image/{n}.bmp": None for n in names}
    masks = {f"PH2 Dataset images/{n}/{n}_lesion/{n}_lesion.bmp": None for n in names}
    return {"PH2_dataset.txt": table, **pictures, **masks}


def test_ph2_is_read_from_its_text_table(tmp_path: Path) -> None:
    found = read("ph2", unpacked(tmp_path, ph2_files(PH2)))
    assert labels(found) == {"IMD003": "NV", "IMD009": "NV", "IMD058": "MEL"}
    assert all(one.file is not None and "Dermoscopic" in str(one.file) for one in found.values())


def test_ph2_with_another_opinion_or_a_missing_picture_is_refused(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, ph2_files(PH2.replace("         2    ", "         7    ")))
    with pytest.raises(ConfigError, match="IMD058 has the clinical opinion '7'"):
        read("ph2", folder)
    unpacked(folder, {"PH2_dataset.txt": PH2.replace("IMD009", "IMD010")})
    with pytest.raises(ConfigError, match=r"IMD010\.bmp is missing"):
        read("ph2", folder)
    assert set(read("ph2", folder, Reading(skip_missing=True))) == {"IMD003", "IMD058"}


def test_derm7pt_takes_the_dermoscopic_pictures(tmp_path: Path) -> None:
    files = {
        "meta/meta.csv": "case_num,diagnosis,location,sex,clinic,derm\n"
        "1,melanoma (in situ),back,male,A/a1.jpg,A/a2.jpg\n2,recurrent nevus,back,male,B/b1.jpg,B/b2.jpg\n"
        "3,reed or spitz nevus,back,male,C/c1.jpg,C/c2.jpg\n",
        **{f"images/{n}/{n.lower()}{i}.jpg": None for n in "ABC" for i in (1, 2)},
    }
    assert labels(read("derm7pt", unpacked(tmp_path, files))) == {"a2": "MEL", "b2": "UNK", "c2": "NV"}


def test_med_node_and_skinl2_are_labelled_by_their_folders(tmp_path: Path) -> None:
    med = unpacked(tmp_path / "med", {"complete/melanoma/1.jpg": None, "complete/naevus/2.jpg": None})
    assert labels(read("med-node", med)) == {"1": "MEL", "2": "NV"}
    files = {
        "Dermatoscopic/Nevus/0004_Dermatoscopic.png": None,
        "Dermatoscopic/Seborrheic Keratosis/0243_Dermatoscopic.png": None,
        "Light Fields/Nevus/0004/0004_TotalFocus.png": None,
        "0087/Psoriasis/Dermatoscopic/0087_Dermatoscopic.png": None,
    }
    found = labels(read("skinl2", unpacked(tmp_path / "skinl2", files)))
    assert found == {"0004_Dermatoscopic": "NV", "0243_Dermatoscopic": "BKL", "0087_Dermatoscopic": "UNK"}


def test_sd_198_is_unknown_but_for_what_could_be_one_of_the_eight(tmp_path: Path) -> None:
    files = {"images/Acne/a.jpg": None, "images/Blue_Nevus/b.jpg": None, "images/Lichen_Planus/c.jpg": None}
    assert labels(read("sd198", unpacked(tmp_path, files))) == {"a": "UNK"}
    assert LAYOUTS["sd198"].text_strip


def test_any_table_and_any_class_folders_are_read(tmp_path: Path) -> None:
    table = "File;Label;Group;Split;Licence;Age\na.png;wart;P1;train;CC0;30\nsub/b;acne;P2;val;;x\n;;;;;\n"
    folder = unpacked(tmp_path / "csv", {"labels.csv": table, "a.png": None, "sub/b.jpg": None})
    with pytest.raises(ConfigError, match="1 of 3 pictures are missing"):
        read("csv", unpacked(folder, {"labels.csv": table.replace(";;;;;", "c.png;wart;;;;")}))
    found = read("csv", unpacked(folder, {"labels.csv": table}))
    assert labels(found) == {"a": "wart", "b": "acne"}
    assert [found[n].stated for n in "ab"] == ["train", "test"] and found["a"].age == 30.0 and found["b"].age is None
    folders = unpacked(tmp_path / "folders", {"wart/1.png": None, "acne/1.png": None})
    assert sorted(one.label for one in LAYOUTS["folders"].read(folders, Reading())) == ["acne", "wart"]


def test_the_user_may_rename_labels_and_leave_some_out(tmp_path: Path) -> None:
    table = "file,what,who\na.png,SEK,P1\nb.png,odd,P2\n"
    folder = unpacked(tmp_path, {"labels.csv": table, "a.png": None, "b.png": None})
    reading = Reading(label_column="what", group_column="who", words={"SEK": "BKL", "odd": ""})
    found = read("csv", folder, reading)
    assert labels(found) == {"a": "BKL"} and found["a"].group == "P1"


@pytest.mark.parametrize(
    ("layout", "files", "said"),
    [
        ("pad-ufes20", {"metadata.csv": "img_id,diagnostic\na.png,WART\n", "a.png": None}, "line 2: 'WART' is none of"),
        ("csv", {"labels.csv": "file,what\na.png,NV\n", "a.png": None}, "no column of labels; name it with"),
        ("csv", {"labels.csv": "what,label\na.png,NV\n", "a.png": None}, "names no pictures"),
        ("csv", {"labels.csv": "file,label\na,NV\n", "a.png": None, "b/a.jpg": None}, "keep one of them"),
        ("csv", {"labels.csv": "file,label\na.png,NV\n"}, "holds no pictures"),
        ("ham10000", {"a.png": None}, "holds none of the tables HAM10000_metadata.csv"),
        ("isic2019", {"ISIC_2019_Training_GroundTruth.csv": "image,A,B\na,1,0\n", "a.png": None}, "no classes of ISIC"),
        ("med-node", {"other/a.png": None}, "no pictures in folders named melanoma, naevus"),
        ("folders", {"a.png": None}, "lies in no class's folder"),
        ("background", {"a.txt": "x"}, "no pictures and no videos"),
    ],
)  # fmt: skip
def test_a_folder_that_is_not_as_its_layout_is_refused(
    tmp_path: Path, layout: str, files: dict[str, str | None], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(layout, unpacked(tmp_path, files))
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_column_that_the_user_names_must_be_there(tmp_path: Path) -> None:
    folder = unpacked(tmp_path, {"labels.csv": "file,label\na.png,NV\n", "a.png": None})
    for reading in (Reading(label_column="x"), Reading(group_column="x")):
        with pytest.raises(ConfigError, match="has no column 'x'; it has file, label"):
            read("csv", folder, reading)


def test_patches_of_background_keep_away_from_spots_and_neighbours_share_a_group(tmp_path: Path) -> None:
    spot = '"[[0, 0, 150, 200, ""mole""]]"'
    table = f"file,boxes_px_x1y1x2y2_kind,ignore_boxes_px\nimages/p0.png,{spot},[]\n"
    image = np.zeros((200, 300, 3), np.uint8)
    image[:, :150] = 255
    for i in range(8):
        unpacked(tmp_path, {"labels.csv": table, f"images/p{i}.png": None})
        cv2.imwrite(str(tmp_path / "images" / f"p{i}.png"), image if i == 0 else np.full((90, 90, 3), 80, np.uint8))
    found = read("background", tmp_path)
    spared = [one for name, one in found.items() if name.startswith("p0-")]
    assert spared and all(one.read().max() == 0 for one in spared)
    assert all(one.read().shape == (224, 224, 3) and one.label == "UNK" for one in found.values())
    assert {one.group for name, one in found.items() if name[:2] in ("p0", "p5")} != {found["p6-0"].group}
    assert found["p1-0"].group == found["p5-0"].group != found["p6-0"].group


def test_a_video_of_background_is_one_group(tmp_path: Path) -> None:
    film = cv2.VideoWriter(str(tmp_path / "arm.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 64))
    for i in range(13):
        film.write(np.full((64, 64, 3), 10 * i, np.uint8))
    film.release()
    found = read("background", tmp_path)
    assert set(found) == {"arm-0", "arm-6", "arm-12"} and {one.group for one in found.values()} == {"arm"}
    assert float(found["arm-12"].read().mean()) == pytest.approx(120, abs=4)


def test_drawn_distractors_are_drawn_anew_the_same(tmp_path: Path) -> None:
    found = LAYOUTS["drawn"].read(Path("hair,ruler"), Reading())
    assert {one.source for one in found} == {"drawn-hair", "drawn-ruler"} and {one.label for one in found} == {"UNK"}
    assert np.array_equal(found[3].read(), found[3].read())
    assert not np.array_equal(found[3].read(), found[4].read())
    with pytest.raises(ConfigError, match="nothing called lesion can be drawn"):
        LAYOUTS["drawn"].read(Path("lesion"), Reading())


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the pictures of ../shared/data")
@pytest.mark.parametrize(
    ("layout", "folder", "column", "n", "classes"),
    [
        ("csv", "ham10000_224", "label8_isic2019", 9221, 8),
        ("csv", "isic_uda1_cc0", "", 555, 2),
        ("csv", "isic9_extra_180", "", 404, 7),
        ("siim2020", "isic2020_224", "", 407, 3),
        ("siim2020-nine", "isic2020_224", "", 407, 3),
        ("pad-ufes20", "pad_ufes20_phone", "", 524, 6),
    ],
)
def test_the_tables_at_hand_are_read_whole(layout: str, folder: str, column: str, n: int, classes: int) -> None:
    found = LAYOUTS[layout].read(SHARED / folder, Reading(label_column=column))
    assert len(found) == n and len({one.label for one in found}) == classes

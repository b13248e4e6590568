"""The data sets that `derma data prepare` knows, as they lie on disk when unpacked.

One table, LAYOUTS. What a data set calls its classes is translated here, to ISIC 2019's nine wherever a word means
one of them: MEL NV BCC AK BKL DF VASC SCC, UNK for what is none of these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from derma_common.errors import ConfigError
from derma_training.classifier.manifest import CLASSES, age_of
from derma_training.classifier.pictures import read_picture
from derma_training.classifier.prepare.background import read_background
from derma_training.classifier.prepare.distractors import read_drawn
from derma_training.classifier.prepare.folder_layouts import read_class_folders, read_folders
from derma_training.classifier.prepare.found import Found, Pictures, Reading
from derma_training.classifier.prepare.table_layouts import Columns, read_table, table_in
from derma_training.classifier.tables import read_records

ISIC2019_TRUTH = "ISIC_2019_Training_GroundTruth.csv"
ISIC2019_METADATA = "ISIC_2019_Training_Metadata.csv"

# HAM10000's akiec is ISIC 2019's AK or SCC (Bowen's disease): three in five are SCC, so it is neither here
HAM10000 = {name.lower(): name for name in ("AKIEC", "BCC", "BKL", "DF", "MEL", "NV", "VASC")}
PAD_UFES_20 = {"ack": "AK", "bcc": "BCC", "mel": "MEL", "nev": "NV", "scc": "SCC", "sek": "BKL"}
# in SIIM-ISIC 2020 "unknown" means benign without a recorded name, not a lesion unlike the others
SIIM2020_THREE = {
    "melanoma": "melanoma", "nevus": "benign", "seborrheic keratosis": "benign", "lichenoid keratosis": "benign",
    "solar lentigo": "benign", "lentigo nos": "benign", "unknown": "unknown", "cafe-au-lait macule": "unknown",
    "atypical melanocytic proliferation": "unknown",
}  # fmt: skip
# arXiv 2010.05351, the winners' target
SIIM2020_NINE = {
    "melanoma": "MEL", "nevus": "NV", "seborrheic keratosis": "BKL", "lichenoid keratosis": "BKL",
    "solar lentigo": "BKL", "lentigo nos": "BKL", "unknown": "UNK", "cafe-au-lait macule": "UNK",
    "atypical melanocytic proliferation": "UNK",
}  # fmt: skip
# as Steppan & Hanke 2021 (arXiv 2101.03814) sort it
DERM7PT = {
    **dict.fromkeys(("blue nevus", "clark nevus", "combined nevus", "congenital nevus", "dermal nevus",
                     "reed or spitz nevus"), "NV"),
    **dict.fromkeys(("melanoma", "melanoma (in situ)", "melanoma (less than 0.76 mm)", "melanoma (0.76 to 1.5 mm)",
                     "melanoma (more than 1.5 mm)", "melanoma metastasis"), "MEL"),
    **dict.fromkeys(("lentigo", "melanosis", "seborrheic keratosis"), "BKL"),
    **dict.fromkeys(("miscellaneous", "recurrent nevus"), "UNK"),
    "basal cell carcinoma": "BCC", "dermatofibroma": "DF", "vascular lesion": "VASC",
}  # fmt: skip
MED_NODE = {"melanoma": "MEL", "naevus": "NV"}
# the paper's notebook calls SKINL2's nevi DF: a slip (35 of its 294 DF), not repeated here
SKINL2 = {
    "basal-cell carcinoma": "BCC", "melanoma": "MEL", "seborrheic keratosis": "BKL", "nevus": "NV",
    "hemangioma": "VASC", "dermatofibroma": "DF", "psoriasis": "UNK", "other": "UNK", "others": "UNK",
}  # fmt: skip
# clinical photographs of other diseases; what could be one of the eight is left out, as in the paper
SD198_LEFT_OUT = (
    "Actinic_solar_Damage(Actinic_Keratosis)", "Basal_Cell_Carcinoma", "Dermatofibroma", "Becker's_Nevus",
    "Blue_Nevus", "Congenital_Nevus", "Benign_Keratosis", "Seborrheic_Keratosis", "Solar_Lentigo", "Lichen_Planus",
    "Malignant_Melanoma", "Metastatic_Carcinoma", "Lentigo_Maligna_Melanoma",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """A data set on disk: how to read it, and the licence it is published under ("" when it depends)."""

    about: str
    licence: str
    read: Callable[[Path, Reading], list[Found]]
    text_strip: bool = False  # 70 px of text below each picture


def _table(names: tuple[str, ...], words: Mapping[str, str], label: str) -> Callable[[Path, Reading], list[Found]]:
    """Return a reader of the first of the tables `names`, labels in column `label` or `label`."""

    def read(folder: Path, reading: Reading) -> list[Found]:
        return read_table(folder, table_in(folder, names), reading, words, Columns(label=(label, "label")))

    return read


def _csv(place: Path, reading: Reading) -> list[Found]:
    """Read any table: a CSV, or the folder that holds labels.csv or manifest.csv."""
    table = table_in(place, ("labels.csv", "manifest.csv")) if place.is_dir() else place
    return read_table(table.parent, table, reading)


def _isic2019(folder: Path, reading: Reading) -> list[Found]:
    found = read_table(folder, table_in(folder, (ISIC2019_TRUTH,)), reading)
    strange = sorted({one.label for one in found} - set(CLASSES))
    if strange:
        raise ConfigError(f"{ISIC2019_TRUTH} has columns that are no classes of ISIC 2019: {', '.join(strange)}")
    about = {record["image"]: record for record in read_records(table_in(folder, (ISIC2019_METADATA,)))}
    rows = []
    for one in found:
        known = about.get(one.name.removesuffix("_downsampled"), about.get(one.name, {}))
        site = known.get("anatom_site_general", "")
        age, sex = age_of(known.get("age_approx", "")), known.get("sex", "")
        rows.append(replace(one, group=known.get("lesion_id", ""), age=age, sex=sex, site=site))
    return rows


def _ham10000(folder: Path, reading: Reading) -> list[Found]:
    """Seven classes; eight where ISIC 2019's ground truth lies beside, which tells AK from SCC."""
    names = ("HAM10000_metadata.csv", "HAM10000_metadata", "HAM10000_metadata.tab")
    found = read_table(folder, table_in(folder, names), reading, HAM10000, Columns(label=("dx",)))
    if not (folder / ISIC2019_TRUTH).is_file():
        return found
    truth = {}
    for record in read_records(folder / ISIC2019_TRUTH):
        truth[record["image"]] = next((c for c in CLASSES if float(record.get(c.lower()) or 0)), "")
    return [replace(one, label=truth.get(one.name) or one.label) for one in found]


def _derm7pt(folder: Path, reading: Reading) -> list[Found]:
    columns = Columns(file=("derm",), label=("diagnosis",), group=("case_num",))
    return read_table(folder / "images", table_in(folder, ("meta.csv",)), reading, DERM7PT, columns)


def _ph2(folder: Path, reading: Reading) -> list[Found]:
    """Read PH2_dataset.txt: cells between "||"; the third says 0 or 1 (nevus) or 2 (melanoma)."""
    table, pictures, rows = table_in(folder, ("PH2_dataset.txt",)), Pictures(folder), []
    for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
        cells = [cell.strip() for cell in line.split("||")]
        if len(cells) < 4 or not cells[1].startswith("IMD"):
            continue
        label = {"0": "NV", "1": "NV", "2": "MEL"}.get(cells[3])
        file = pictures.find(cells[1])
        if label is None:
            raise ConfigError(f"{table}: {cells[1]} has the clinical opinion {cells[3]!r}, not 0, 1 or 2")
        if file is None and not reading.skip_missing:
            raise ConfigError(f"{table}: the picture {cells[1]}.bmp is missing under {folder}")
        if file is not None:
            rows.append(Found(cells[1], label, partial(read_picture, file), file, group=cells[1]))
    return rows


def _sd198(folder: Path, reading: Reading) -> list[Found]:
    found = read_class_folders(folder, reading)
    return [replace(one, label="UNK") for one in found if one.label not in SD198_LEFT_OUT]


LAYOUTS: dict[str, Layout] = {
    "csv": Layout("any folder with labels.csv or manifest.csv, or a CSV: file,label[,group,split,licence,…]", "", _csv),
    "folders": Layout("a folder for each class", "", read_class_folders),
    "isic2019": Layout(f"{ISIC2019_TRUTH}, {ISIC2019_METADATA} and the pictures", "CC-BY-NC-4.0", _isic2019),
    "siim2020": Layout(
        "SIIM-ISIC 2020 as benign / unknown / melanoma: train.csv or ISIC_2020_Training_GroundTruth.csv",
        "CC-BY-NC-4.0",
        _table(("train.csv", "ISIC_2020_Training_GroundTruth.csv", "labels.csv"), SIIM2020_THREE, "diagnosis"),
    ),
    "siim2020-nine": Layout(
        "the same in the winners' classes MEL NV BKL UNK",
        "CC-BY-NC-4.0",
        _table(("train.csv", "ISIC_2020_Training_GroundTruth.csv", "labels.csv"), SIIM2020_NINE, "diagnosis"),
    ),
    "ham10000": Layout(
        "HAM10000_metadata and the pictures: seven classes, or eight with ISIC 2019's ground truth beside",
        "CC-BY-NC-4.0",
        _ham10000,
    ),
    "pad-ufes20": Layout(
        "PAD-UFES-20: metadata.csv and the phone photographs",
        "CC-BY-4.0",
        _table(("metadata.csv", "PAD-UFES-20_metadata.csv", "labels.csv"), PAD_UFES_20, "diagnostic"),
    ),
    "ph2": Layout("PH2_dataset.txt and the folders IMD…", "", _ph2),
    "derm7pt": Layout("release_v0: meta/meta.csv and images/ (dermoscopic ones)", "", _derm7pt),
    "med-node": Layout("the folders melanoma and naevus", "", partial(read_folders, words=MED_NODE, ending="")),
    "skinl2": Layout(
        "SKINL2 v1, v2 or v3: …_Dermatoscopic pictures below a folder named as their class",
        "",
        partial(read_folders, words=SKINL2, ending="_dermatoscopic"),
    ),
    "sd198": Layout("a folder for each disease; all UNK but 13 left out", "", _sd198, text_strip=True),
    "background": Layout("pictures or videos of skin without lesions: patches of them, UNK", "", read_background),
    "drawn": Layout("drawn distractors, UNK: `drawn=all` or kinds, as in drawn=hair,ruler", "CC0-1.0", read_drawn),
}

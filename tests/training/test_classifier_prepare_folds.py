"""Folds that cannot leak, near-duplicates, and what is known to belong together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from derma_common.errors import ConfigError
from derma_training.classifier.prepare.distractors import DRAWERS, draw
from derma_training.classifier.prepare.duplicates import fingerprint, near_duplicates
from derma_training.classifier.prepare.folds import connected, grouped_folds
from derma_training.classifier.prepare.found import Found
from derma_training.classifier.prepare.linking import group_names, known_links

SHARES = {"test": 0.2, "0": 0.4, "1": 0.4}


def one(name: str, group: str = "", source: str = "x") -> Found:
    return Found(name, "NV", lambda: np.zeros((4, 4, 3), np.uint8), group=group, source=source)


@given(
    pictures=st.lists(st.tuples(st.sampled_from("ABC"), st.integers(0, 25)), min_size=1, max_size=120),
    shares=st.fixed_dictionaries({name: st.just(0.0) | st.floats(0.01, 1.0) for name in ("test", "0", "1", "2")}),
    seed=st.integers(0, 5),
)
def test_no_group_is_ever_in_two_folds(pictures: list[tuple[str, int]], shares: dict[str, float], seed: int) -> None:
    if not any(shares.values()):
        shares = {**shares, "0": 1.0}
    groups = [str(group) for _, group in pictures]
    folds = grouped_folds([label for label, _ in pictures], groups, shares, seed)
    assert len(folds) == len(pictures)
    assert all(len({f for f, g in zip(folds, groups, strict=True) if g == group}) == 1 for group in groups)
    assert all(shares[fold] > 0.0 for fold in folds)


def test_every_class_is_spread_as_the_shares_say() -> None:
    rng = np.random.default_rng(0)
    labels = rng.choice(["NV", "MEL", "DF"], 3000, p=[0.8, 0.17, 0.03]).tolist()
    groups = [str(g) for g in rng.integers(0, 1200, 3000)]
    folds = grouped_folds(labels, groups, SHARES)
    for label in ("NV", "MEL", "DF"):
        found = Counter(f for f, name in zip(folds, labels, strict=True) if name == label)
        for fold, share in SHARES.items():
            assert found[fold] == pytest.approx(share * labels.count(label), abs=max(3.0, 0.02 * labels.count(label)))


def test_the_same_seed_gives_the_same_folds_in_whatever_order_the_pictures_come() -> None:
    labels, groups = ["NV", "NV", "MEL", "MEL", "NV"] * 20, [str(i // 2) for i in range(100)]
    folds = grouped_folds(labels, groups, SHARES, seed=3)
    order = np.random.default_rng(0).permutation(100)
    again = grouped_folds([labels[i] for i in order], [groups[i] for i in order], SHARES, seed=3)
    assert [folds[i] for i in order] == again


@given(st.integers(1, 30), st.data())
def test_components_are_those_of_a_flood_fill(n: int, data: st.DataObject) -> None:
    links = data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=40))
    expected = list(range(n))
    for _ in range(n):  # the smallest index spreads along every link until nothing changes
        for a, b in links:
            expected[a] = expected[b] = min(expected[a], expected[b])
    assert connected(n, links) == expected


def photographs() -> list[np.ndarray]:
    return [draw(kind, (k, i)) for k, kind in enumerate(DRAWERS) for i in range(6)]


def test_a_picture_is_found_again_whatever_was_done_to_its_file(tmp_path: Path) -> None:
    pictures = photographs()
    image = cv2.GaussianBlur(draw("background", (99,)), (0, 0), 4)
    cv2.imwrite(str(tmp_path / "again.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 60])
    again = np.asarray(cv2.imread(str(tmp_path / "again.jpg")))
    copies = [
        again,
        np.asarray(cv2.resize(image, (400, 300))),
        np.asarray(cv2.convertScaleAbs(image, alpha=0.9, beta=10)),
        np.ascontiguousarray(image[:, ::-1]),
        np.ascontiguousarray(np.rot90(image)),
        np.ascontiguousarray(np.rot90(image, 2)[::-1]),
    ]
    prints = np.stack([fingerprint(p) for p in [image, *copies, *pictures]])
    pairs = near_duplicates(prints)
    assert {(0, i) for i in range(1, 7)} <= set(pairs)
    assert all(j < 7 for _, j in pairs), "no other picture is taken for a copy"


def test_lesions_isic_ids_and_tables_link_pictures_of_all_sources(tmp_path: Path) -> None:
    table = tmp_path / "duplicates.csv"
    table.write_text("image_name_1,image_name_2\nq,r\n")
    lesions = tmp_path / "lesions.csv"
    lesions.write_text("lesion_id,image_id\nHAM_1,far\n")
    rows = [
        one("a", group="HAM_1"), one("b", group="HAM_1", source="y"), one("far", source="z"),
        one("ISIC_0000001"), one("ISIC_0000001_downsampled", source="y"), one("q"), one("r"),
        one("m", group="7"), one("n", group="7", source="y"), one("o"),
    ]  # fmt: skip
    component = connected(len(rows), known_links(rows, [table, lesions]))
    assert component == [0, 0, 0, 3, 3, 5, 5, 7, 8, 9]


def test_groups_of_the_same_name_in_one_source_stay_apart() -> None:
    names = group_names([one("1"), one("1"), one("2", group="L")], [0, 1, 2])
    assert names == ["x/1", "x/1~1", "L"]


def test_a_table_of_links_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("lesion_id\nL1\n")
    with pytest.raises(ConfigError, match="names no pictures"):
        known_links([one("a")], [tmp_path / "t.csv"])

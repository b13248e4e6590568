"""What training sees: boxes follow their pixels through every window, mosaic and turn; parts share no group."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")

from derma_common.errors import ConfigError, SourceError  # noqa: E402
from derma_training.detector import augment  # noqa: E402
from derma_training.detector.annotations import NO_BOXES, Annotated, Decoded  # noqa: E402
from derma_training.detector.augment import Sample, augmented, recolour, window  # noqa: E402
from derma_training.detector.data import (  # noqa: E402
    Data,
    DataSet,
    Feed,
    choose_anchors,
    collate,
    read_data,
    with_parts,
)

pytestmark = pytest.mark.train


def marked(width=400, height=300, box=(200, 100, 240, 160)):
    """Return a grey picture with one white rectangle, boxed."""
    image = np.full((height, width, 3), 90, np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 255
    return Sample(image, np.asarray([box], np.float32), np.asarray([3]), NO_BOXES)


def bounds_of_white(image):
    ys, xs = np.nonzero(image.min(axis=2) > 172)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else None


@given(seed=st.integers(0, 10_000), size=st.sampled_from([(400, 300), (60, 50), (900, 700)]))
@settings(max_examples=60, deadline=None)
def test_a_windows_box_bounds_the_pixels_that_it_shows(seed, size):
    width, height = size
    box = (width // 2, height // 3, width // 2 + max(12, width // 10), height // 3 + max(12, height // 5))
    shown = window(np.random.default_rng(seed), marked(width, height, box), 192, 160)
    assert shown.image.shape == (160, 192, 3) and len(shown.boxes) == len(shown.classes)
    for found in np.concatenate([shown.boxes, shown.ignored]):
        if min(found[2:] - found[:2]) > 1:
            assert found == pytest.approx(bounds_of_white(shown.image), abs=1.6)


@pytest.mark.parametrize("seed", range(12))
def test_turning_keeps_boxes_on_their_pixels(seed, monkeypatch):
    monkeypatch.setattr(augment, "MOSAIC_CHANCE", 0.0)
    monkeypatch.setattr(augment, "recolour", lambda rng, image: image)
    shown = augmented(np.random.default_rng(seed), lambda rng: marked(), 224)
    for box in np.concatenate([shown.boxes, shown.ignored]):
        assert box == pytest.approx(bounds_of_white(shown.image), abs=1.6)
    assert set(shown.classes) <= {3}


def test_a_mosaic_shows_four_pictures_and_numbers_no_box_outside(monkeypatch):
    monkeypatch.setattr(augment, "MOSAIC_CHANCE", 1.0)
    counts = []
    for seed in range(20):
        shown = augmented(np.random.default_rng(seed), lambda rng: marked(), 256)
        boxes = np.concatenate([shown.boxes, shown.ignored])
        assert shown.image.shape == (256, 256, 3)
        assert np.all(boxes >= 0) and np.all(boxes <= 256)
        counts.append(len(boxes))
    assert max(counts) == 4


def test_what_is_cut_away_or_tiny_is_ignored_and_not_a_lesion():
    whole = marked(100, 100, (2, 40, 62, 60))
    for seed in range(40):
        shown = window(np.random.default_rng(seed), whole, 96, 96)
        for box in shown.boxes:
            assert min(box[2:] - box[:2]) >= augment.MIN_SIDE_PX


def test_a_large_picture_is_shown_whole_and_in_parts_and_a_lesion_that_fills_it_only_whole():
    def shown_px(sample, seed):
        return augment._scale(np.random.default_rng(seed), sample, 320, 320) * max(sample.image.shape)

    wide = [shown_px(marked(1090, 890, (500, 300, 520, 320)), seed) for seed in range(60)]
    close = [shown_px(marked(1090, 890, (100, 100, 900, 800)), seed) for seed in range(60)]
    assert min(wide) < 320 and max(wide) > 1000
    assert max(close) < 1.5 * 400


def test_recolouring_keeps_shape_and_changes_pixels():
    image = marked().image
    changed = recolour(np.random.default_rng(0), image)
    assert changed.shape == image.shape and changed.dtype == np.uint8 and not np.array_equal(changed, image)


def picture(name, group="", split="", boxes=1):
    box = np.asarray([[10, 10, 30, 30]] * boxes, np.float32).reshape(-1, 4)
    pixels = np.full((64, 64, 3), 120, np.uint8)
    return Decoded(Path(name), 64, 64, box, np.zeros(boxes, np.int64), group=group, split=split, pixels=pixels)


def test_a_group_is_in_one_part_only_and_every_part_has_lesions():
    pictures = [picture(f"{n}.jpg", group=f"patient {n // 3}", boxes=n % 4) for n in range(120)]
    parts = with_parts(pictures)
    by_group = {}
    for one in parts:
        by_group.setdefault(one.group, set()).add(one.split)
    assert all(len(found) == 1 for found in by_group.values())
    boxed = [one.split for one in parts if len(one.boxes)]
    assert set(boxed) == {"train", "tune", "test"}
    assert 0.1 < boxed.count("test") / len(boxed) < 0.25
    assert [one.split for one in with_parts(pictures[::-1])][::-1] == [one.split for one in parts]


@pytest.mark.parametrize(
    ("given_splits", "wanted"),
    [
        (("train", "val", "test"), {"train": {"train"}, "val": {"tune"}, "test": {"test"}}),
        (("train", "val"), {"train": {"train"}, "val": {"tune", "test"}}),
        (("train", "test"), {"train": {"train"}, "test": {"tune", "test"}}),
    ],
)
def test_the_datas_own_split_is_kept(given_splits, wanted):
    pictures = [picture(f"{n}.jpg", split=given_splits[n % len(given_splits)]) for n in range(60)]
    found = {}
    for before, after in zip(pictures, with_parts(pictures), strict=True):
        found.setdefault(before.split, set()).add(after.split)
    assert found == wanted


def write_folder(folder: Path, count: int, names=("nevus",), empty=0):
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for n in range(count + empty):
        cv2.imwrite(str(folder / "images" / f"{n}.png"), marked(96, 80, (20, 20, 50, 60)).image)
        line = f"{n % len(names)} 0.36 0.5 0.31 0.5\n" if n < count else ""
        (folder / "labels" / f"{n}.txt").write_text(line)
    (folder / "classes.txt").write_text("\n".join(names) + "\n")


def test_folders_are_read_together_as_lesions_or_with_their_own_classes(tmp_path):
    write_folder(tmp_path / "a", 8, ("nevus", "melanoma"))
    write_folder(tmp_path / "b", 6, ("melanoma", "wart"), empty=6)
    folders = [f"{tmp_path / 'a'}=2.5", str(tmp_path / "b")]
    data = read_data(folders)
    assert data.classes == ("lesion",) and len(data.pictures) == 20
    assert [one.share for one in data.sets] == [2.5, pytest.approx(12**0.5)]
    kept = read_data(folders, keep_classes=True)
    assert sorted(kept.classes) == ["melanoma", "nevus", "wart"]
    named = {kept.classes[k] for one in kept.sets[1].pictures for k in one.classes}
    assert named == {"melanoma", "wart"}


def test_too_few_lesions_no_share_and_no_folder_are_one_clear_line(tmp_path):
    write_folder(tmp_path / "few", 2)
    with pytest.raises(SourceError, match="2 pictures have a box"):
        read_data([str(tmp_path / "few")])
    with pytest.raises(ConfigError, match="must be a positive number"):
        read_data([f"{tmp_path / 'few'}=-1"])
    with pytest.raises(SourceError):
        read_data([str(tmp_path / "nothing")])


def feed_of(*pictures, share=1.0):
    return Feed(Data((DataSet(tuple(pictures), share),), ("lesion",), ()))


def test_a_batch_numbers_its_truths_by_picture():
    samples = [marked(96, 96, (10, 10, 40, 40)), marked(96, 96, (30, 30, 60, 60))]
    images, truths, ignored = collate(samples)
    assert images.shape == (2, 3, 96, 96) and images.dtype == torch.float32 and float(images.max()) == 1.0
    assert truths.tolist() == [[0, 3, 10, 10, 40, 40], [1, 3, 30, 30, 60, 60]]
    assert ignored.shape == (0, 5)


def test_sets_are_shown_by_their_shares_and_files_are_decoded_once(tmp_path, monkeypatch):
    file = tmp_path / "a.png"
    cv2.imwrite(str(file), np.full((64, 64, 3), 120, np.uint8))
    reads = []
    original = Annotated.image
    monkeypatch.setattr(Annotated, "image", lambda self: reads.append(self.path) or original(self))
    often, seldom = Annotated(file, 64, 64), picture("b.jpg")
    feed = Feed(Data((DataSet((often,), 3.0), DataSet((seldom,), 1.0)), ("lesion",), ()))
    rng = np.random.default_rng(0)
    shown = sum(len(feed.draw(rng).boxes) for _ in range(400))
    assert shown / 400 == pytest.approx(0.25, abs=0.06)
    assert len(reads) == 1


def test_anchors_follow_the_boxes_and_each_head_has_those_of_its_scale():
    rng = np.random.default_rng(0)
    many = []
    for n in range(20):
        side = float(rng.uniform(10, 16) if n % 2 else rng.uniform(70, 110))
        box = np.asarray([[20, 20, 20 + side, 20 + side]], np.float32)
        pixels = np.full((300, 300, 3), 120, np.uint8)
        many.append(Decoded(Path(str(n)), 300, 300, box, np.zeros(1, np.int64), pixels=pixels))
    coarse, fine = choose_anchors(feed_of(*many), 224, (32, 16), 3, 0)
    assert max(w * h for w, h in fine) ** 0.5 < 32 <= min(w * h for w, h in coarse) ** 0.5
    assert choose_anchors(feed_of(*many), 224, (16, 32), 3, 0) == [fine, coarse]


def test_pictures_without_visible_lesions_give_no_anchors():
    with pytest.raises(SourceError, match="show 0 boxes"):
        choose_anchors(feed_of(picture("a", boxes=0)), 96, (32, 16), 3, 0)

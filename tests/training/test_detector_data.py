"""Training windows: boxes follow their pixels through every crop, mosaic and turn."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")

from derma_training.detector.data import batch, recolour, sample, window  # noqa: E402
from derma_training.detector.scenes import draw_pack, paste, pasted_scene, read_pack  # noqa: E402
from derma_training.detector.sources import NONE, Cutout, Picture  # noqa: E402

pytestmark = pytest.mark.train


def marked(source="drawn", close_up=False):
    """Return a grey picture with one white rectangle, boxed."""
    image = np.full((300, 400, 3), 90, np.uint8)
    image[100:160, 200:240] = 255
    return Picture(image, np.asarray([[200, 100, 240, 160]], np.float32), NONE, source, close_up)


def bounds_of_white(image):
    ys, xs = np.nonzero(image.min(axis=2) > 200)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else None


@pytest.mark.parametrize("close_up", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_a_windows_box_bounds_the_pixels_that_it_shows(seed, close_up):
    shown = window(np.random.default_rng(seed), marked(close_up=close_up), 192, 160)
    assert shown.image.shape == (160, 192, 3)
    for box in np.concatenate([shown.boxes, shown.ignored]):
        assert box == pytest.approx(bounds_of_white(shown.image), abs=2.5)


@pytest.mark.parametrize("seed", range(12))
def test_turning_keeps_boxes_on_their_pixels(seed, monkeypatch):
    monkeypatch.setattr("derma_training.detector.data.MOSAIC_CHANCE", 0.0)
    monkeypatch.setattr("derma_training.detector.data.recolour", lambda rng, image: image)
    shown = sample(np.random.default_rng(seed), {"drawn": [marked()]}, 224)
    for box in np.concatenate([shown.boxes, shown.ignored]):
        assert box == pytest.approx(bounds_of_white(shown.image), abs=2.5)


def test_a_batch_numbers_its_truths_by_picture_and_keeps_them_inside():
    pools = {"drawn": [marked()], "ham10000": [marked("ham10000", True)], "hand_video": []}
    images, truths, ignored = batch(np.random.default_rng(0), pools, 6, 128)
    assert images.shape == (6, 3, 128, 128) and images.dtype == torch.float32
    assert images.min() >= 0 and images.max() <= 1
    assert truths.shape[1] == 6 and ignored.shape[1] == 5
    assert set(truths[:, 0].tolist()) <= set(range(6)) and torch.all(truths[:, 1] == 0)
    assert truths[:, 2:].min() >= 0 and truths[:, 2:].max() <= 128


def test_the_same_generator_state_gives_the_same_batch():
    pools = {"drawn": [marked()]}
    first, again = (batch(np.random.default_rng(3), pools, 2, 96) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_recolouring_keeps_shape_and_changes_pixels():
    image = marked().image
    changed = recolour(np.random.default_rng(0), image)
    assert changed.shape == image.shape and changed.dtype == np.uint8 and not np.array_equal(changed, image)


def dark_disc():
    """Return a cut-out: a disc of half the skin's brightness, 40 px across."""
    y, x = np.mgrid[0:48, 0:48]
    cover = (np.hypot(x - 23.5, y - 23.5) < 20).astype(np.float32)
    return Cutout(np.full((48, 48, 3), 0.5, np.float32), cover, (4.0, 4.0, 44.0, 44.0))


def test_a_pasted_lesion_darkens_what_is_in_its_new_box_and_only_that():
    skin = np.full((200, 220, 3), 160, np.uint8)
    image, boxes = paste(np.random.default_rng(0), skin, NONE, dark_disc(), 30.0)
    ys, xs = np.nonzero(image[..., 0] < 130)
    assert boxes[0] == pytest.approx([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], abs=1.5)
    assert boxes[0, 2] - boxes[0, 0] == pytest.approx(30, abs=2)
    assert np.all(skin == 160)


def test_pasted_lesions_do_not_touch_and_a_full_picture_takes_no_more():
    image, boxes = np.full((100, 100, 3), 160, np.uint8), NONE
    rng = np.random.default_rng(0)
    for _ in range(30):
        image, boxes = paste(rng, image, boxes, dark_disc(), 30.0)
    assert 1 <= len(boxes) <= 9
    assert paste(rng, image, boxes, dark_disc(), 200.0)[1] is boxes


def test_a_pack_gives_back_the_scenes_that_were_drawn(tmp_path):
    draw_pack(7, 2, [dark_disc()], [np.full((600, 600, 3), 150, np.uint8)], tmp_path)
    first, second = read_pack(tmp_path / "scenes-0007.npy")
    assert (first.source, second.source) == ("drawn", "pasted")
    again = pasted_scene(np.random.default_rng((7, 1)), [dark_disc()], [np.full((600, 600, 3), 150, np.uint8)])
    assert np.array_equal(second.image, again.image)
    assert second.boxes == pytest.approx(again.boxes, abs=0.01)

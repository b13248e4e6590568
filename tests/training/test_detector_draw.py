"""The scene maker: exact boxes, real lesions blended in, ignore regions, and a folder that training reads."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from derma_common.errors import ConfigError, ResourceError, SourceError
from derma_training.detector import scenes
from derma_training.detector.annotations import read_annotations
from derma_training.detector.commands import draw
from derma_training.detector.cutouts import Cutout, cut_out, lesion_mask, read_cutouts
from derma_training.detector.scenes import contrast, draw_scene, paste

NONE = np.zeros((0, 4), np.float32)


def crop(radius=30, skin=(150, 170, 210), lesion=(40, 50, 70), side=120, alpha=False):
    """Return a picture of one dark disc on skin, slightly noisy."""
    y, x = np.mgrid[0:side, 0:side]
    inside = np.hypot(x - side / 2, y - side / 2) < radius
    image = np.where(inside[..., None], lesion, skin) + np.random.default_rng(0).normal(0, 2, (side, side, 3))
    image = np.clip(image, 0, 255).astype(np.uint8)
    mask = np.where(inside, 255, 0).astype(np.uint8)
    return (np.dstack([image, mask]) if alpha else image), mask


def dark_disc():
    """Return a cut-out: a disc of half the skin's brightness, 40 px across."""
    y, x = np.mgrid[0:48, 0:48]
    cover = (np.hypot(x - 23.5, y - 23.5) < 20).astype(np.float32)
    return Cutout(np.full((48, 48, 3), 0.5, np.float32), cover, (4.0, 4.0, 44.0, 44.0))


def test_a_lesions_outline_is_found_by_its_colour():
    image, wanted = crop()
    found = lesion_mask(image)
    common, either = ((found > 0) & (wanted > 0)).sum(), ((found > 0) | (wanted > 0)).sum()
    assert common / either > 0.85


@pytest.mark.parametrize("lesion", [(148, 168, 208), (200, 210, 240)])
def test_a_crop_without_a_clear_lesion_has_no_outline(lesion):
    assert lesion_mask(crop(lesion=lesion)[0]) is None


def test_a_cutout_keeps_the_lesions_colour_relative_to_its_skin():
    image, mask = crop(skin=(100, 100, 200), lesion=(50, 25, 100))
    cutout = cut_out(image, mask)
    middle = cutout.ratio[cutout.ratio.shape[0] // 2, cutout.ratio.shape[1] // 2]
    assert middle == pytest.approx([0.5, 0.25, 0.5], abs=0.06)
    x1, y1, x2, y2 = cutout.box
    assert (x2 - x1, y2 - y1) == pytest.approx((59, 59), abs=1)
    assert cut_out(image, np.full_like(mask, 255)) is None  # touches the edge


def test_a_folder_of_crops_gives_cutouts_and_one_of_others_is_refused(tmp_path):
    (tmp_path / "good").mkdir()
    cv2.imwrite(str(tmp_path / "good" / "masked.png"), crop(alpha=True)[0])
    cv2.imwrite(str(tmp_path / "good" / "large.jpg"), cv2.resize(crop()[0], (1200, 1200)))
    cv2.imwrite(str(tmp_path / "good" / "flat.png"), np.full((80, 80, 3), 150, np.uint8))
    (tmp_path / "good" / "broken.jpg").write_bytes(b"no picture")
    found = read_cutouts(tmp_path / "good")
    assert len(found) == 2 and max(max(one.cover.shape) for one in found) < 512
    (tmp_path / "good" / "masked.png").unlink()
    (tmp_path / "good" / "large.jpg").unlink()
    with pytest.raises(SourceError, match="none of its 2 pictures"):
        read_cutouts(tmp_path / "good")


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


def test_contrast_is_the_step_between_a_lesion_and_its_skin():
    image = np.full((60, 60, 3), 150, np.uint8)
    image[20:30, 20:30] = (150, 130, 145)
    assert contrast(image, np.asarray([20, 20, 30, 30], np.float32)) == pytest.approx(20)
    assert contrast(image, np.asarray([40, 40, 50, 50], np.float32)) == 0


def test_lesions_hidden_small_or_faint_are_ignored_and_those_under_cover_are_gone():
    image = np.full((100, 100, 3), 150, np.uint8)
    hidden = np.zeros((100, 100), np.uint8)
    spots = {"clear": (5, 5, 20, 20), "half": (40, 5, 60, 20), "gone": (70, 5, 90, 20), "small": (5, 50, 9, 54)}
    for x1, y1, x2, y2 in spots.values():
        image[y1:y2, x1:x2] = 60
    spots["faint"] = (40, 50, 60, 70)
    hidden[0:30, 50:100] = 255
    settled = scenes._settle(image, np.asarray(list(spots.values()), np.float32), hidden)
    assert settled.boxes.tolist() == [[5, 5, 20, 20]] and len(settled.classes) == 1
    assert settled.ignored.tolist() == [list(spots[name]) for name in ("half", "small", "faint")]


@pytest.mark.parametrize("seed", range(6))
def test_a_scene_is_drawn_again_by_its_seed_with_boxes_inside(seed):
    skins = [np.full((400, 500, 3), 150, np.uint8)]
    drawn, again = (draw_scene(np.random.default_rng(seed), 240, 180, [dark_disc()], skins) for _ in range(2))
    assert np.array_equal(drawn.image, again.image) and np.array_equal(drawn.boxes, again.boxes)
    assert drawn.image.shape == (180, 240, 3)
    boxes = np.concatenate([drawn.boxes, drawn.ignored])
    assert np.all(boxes[:, :2] >= 0) and np.all(boxes[:, 2:] <= (240, 180))


def test_the_command_writes_a_folder_that_reads_back_as_it_was_drawn(tmp_path, capsys):
    crops = tmp_path / "crops"
    crops.mkdir()
    cv2.imwrite(str(crops / "a.png"), crop(alpha=True)[0])
    wishes = ["--n", "8", "--seed", "2", "--no-lesions"]
    draw.main(["--out", str(tmp_path / "skin"), *wishes])
    assert json.loads(capsys.readouterr().out)["boxes"] == 0
    wishes = ["--n", "8", "--seed", "2", "--width", "200", "--height", "160", "--crops", str(crops)]
    draw.main(["--out", str(tmp_path / "one"), *wishes])
    said = json.loads(capsys.readouterr().out)
    found = read_annotations(tmp_path / "one")
    assert said["scenes"] == len(found.pictures) == 8 and said["cutouts"] == 1
    assert said["boxes"] == sum(len(one.boxes) for one in found.pictures)
    assert said["ignored"] == sum(len(one.ignored) for one in found.pictures)
    assert found.classes == ("lesion",)
    draw.main(["--out", str(tmp_path / "two"), *wishes])
    for file in sorted((tmp_path / "one").rglob("*.*")):
        assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()


def test_wrong_wishes_and_folders_are_one_clear_line(tmp_path):
    with pytest.raises(ConfigError, match="draw wants"):
        draw.main(["--out", str(tmp_path), "--n", "0"])
    with pytest.raises(SourceError, match="holds no picture"):
        draw.main(["--out", str(tmp_path / "o"), "--n", "1", "--skins", str(tmp_path)])
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be written"):
        draw.main(["--out", str(tmp_path / "file"), "--n", "1"])

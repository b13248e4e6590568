"""The built module against OpenCV's Darknet reader: same files, same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="needs the train extra: pip install 'derma[train]'")

from support.darknet import opencv_outputs, own_outputs, random_network, thinned  # noqa: E402

from derma_training.detector.cfg_reader import parse_cfg  # noqa: E402
from derma_training.detector.layers import Darknet, Mish  # noqa: E402
from derma_training.detector.networks import network  # noqa: E402

pytestmark = pytest.mark.train

TOLERANCE = 1e-4


def assert_opencv_agrees(config, folder, seed=0):
    net = random_network(config, seed)
    image = np.random.default_rng(seed).random((1, *config.input), dtype=np.float32)
    own, theirs = own_outputs(net, image), opencv_outputs(net, image, folder)
    assert [rows.shape for rows in own] == [rows.shape for rows in theirs]
    for rows, wanted in zip(own, theirs, strict=True):
        assert np.abs(wanted[:, 4:]).max() > 0.01, "scores that are all zero would agree with anything"
        np.testing.assert_allclose(rows, wanted, atol=TOLERANCE, rtol=TOLERANCE)


@pytest.mark.parametrize(("width", "height"), [(160, 96), (64, 64), (32, 256), (416, 416)])
def test_yolov4_tiny_gives_what_opencv_gives(tmp_path, width, height):
    assert_opencv_agrees(network("yolov4-tiny", 3, width, height), tmp_path)


@pytest.mark.parametrize(("width", "height", "classes"), [(96, 96, 1), (128, 64, 80), (64, 160, 4)])
def test_a_thin_yolov4_gives_what_opencv_gives(tmp_path, width, height, classes):
    assert_opencv_agrees(thinned(network("yolov4", classes, width, height), 8), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), [(96, 96), (128, 64)])
def test_yolov4_gives_what_opencv_gives(tmp_path, width, height):
    assert_opencv_agrees(network("yolov4", 2, width, height), tmp_path)


SIDE = 32


@st.composite
def cfgs(draw):
    """Draw a small network of every kind of layer, with the options that each takes."""
    lines = [f"[net]\nwidth={SIDE}\nheight={SIDE}\nchannels=3"]
    channels, halvings, outputs = 3, 0, []
    for _ in range(draw(st.integers(1, 8))):
        same = [n for n, shape in enumerate(outputs) if shape == (channels, halvings)]
        level = [n for n, (_, h) in enumerate(outputs) if h == halvings]
        possible = {"conv": True, "pool": True, "up": halvings > 0, "add": len(same) > 1, "join": len(level) > 0}
        kind = draw(st.sampled_from([kind for kind, fits in possible.items() if fits]))
        if kind == "conv":
            size, norm = draw(st.sampled_from([1, 3, 5])), draw(st.integers(0, 1))
            stride = draw(st.sampled_from([1, 2])) if halvings < 2 else 1
            groups = draw(st.sampled_from([g for g in (1, 2, 4) if channels % g == 0]))
            filters, word = draw(st.sampled_from([4, 8])), draw(st.sampled_from(["leaky", "mish", "linear"]))
            lines.append(
                f"[convolutional]\nbatch_normalize={norm}\nfilters={filters}\nsize={size}\nstride={stride}\npad=1\n"
                f"groups={groups}\nactivation={word}"
            )
            channels, halvings = filters, halvings + stride - 1
        elif kind == "pool":
            size, stride = draw(st.sampled_from([(2, 2), (3, 1), (5, 1), (13, 1), (2, 1)]))
            stride = stride if halvings < 2 else 1
            lines.append(f"[maxpool]\nsize={size}\nstride={stride}")
            halvings += stride - 1
        elif kind == "up":
            lines.append("[upsample]\nstride=2")
            halvings -= 1
        elif kind == "add":
            lines.append(f"[shortcut]\nfrom={draw(st.sampled_from(same[:-1]))}\nactivation=linear")
        else:
            chosen = draw(st.lists(st.sampled_from(level), min_size=1, max_size=3, unique=True))
            splits = draw(st.booleans()) and len(chosen) == 1 and outputs[chosen[0]][0] % 2 == 0
            half = f"\ngroups=2\ngroup_id={draw(st.integers(0, 1))}" if splits else ""
            back = draw(st.booleans())
            layers = ",".join(str(n - len(outputs) if back else n) for n in chosen)
            lines.append(f"[route]\nlayers={layers}{half}")
            channels = sum(outputs[n][0] for n in chosen) // (2 if splits else 1)
        outputs.append((channels, halvings))
    scale = draw(st.sampled_from([1.0, 1.05, 1.2]))
    lines.append("[convolutional]\nfilters=14\nsize=1\nstride=1\npad=1\nactivation=linear")
    lines.append(f"[yolo]\nmask=2,0\nanchors=4,5, 6,7, 18,9\nnum=3\nclasses=2\nscale_x_y={scale}")
    return "\n\n".join(lines)


@settings(max_examples=60)
@given(cfgs(), st.integers(0, 1000))
def test_any_network_of_known_layers_gives_what_opencv_gives(tmp_path, text, seed):
    assert_opencv_agrees(parse_cfg(text), tmp_path, seed)


def test_mish_is_exported_in_a_form_of_the_same_value(monkeypatch):
    x = torch.cat([torch.linspace(-30, 30, 4001), torch.tensor([-200.0, -90.0, 0.0, 90.0, 200.0])])
    exact = (x.double() * torch.tanh(torch.nn.functional.softplus(x.double()))).float()
    assert torch.allclose(Mish()(x), exact, atol=1e-6, rtol=1e-6)
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    assert torch.allclose(Mish()(x), exact, atol=1e-6, rtol=1e-6)


def test_a_fresh_network_expects_an_object_at_one_place_in_a_hundred():
    torch.manual_seed(0)
    net = Darknet(thinned(network("yolov4", 2, 64, 64), 8)).train()  # nothing is normalised yet in eval mode
    with torch.no_grad():
        raws = net(torch.rand(4, 3, 64, 64))
    for raw, head in zip(raws, net.heads, strict=True):
        cells = raw.view(4, len(head.anchors), 5 + head.classes, -1)
        assert float(cells[:, :, 4].sigmoid().mean()) == pytest.approx(0.01, rel=0.2)

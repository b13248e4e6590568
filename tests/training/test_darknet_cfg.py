"""Reading cfg text: what Darknet's options mean, and one clear line for what is wrong."""

from __future__ import annotations

import re

import pytest

from derma_common.errors import ConfigError, ModelError
from derma_training.detector.cfg import Convolutional, MaxPool, Route, Shortcut, Upsample
from derma_training.detector.cfg_reader import adapted, parse_cfg, read_cfg
from derma_training.detector.networks import name_of, network

SMALL = """
# a comment
[net]
batch=64
width = 64
height=32
learning_rate=0.001

[convolutional]
batch_normalize=1
filters=8 ; another comment
size=3
stride=2
pad=1
activation=leaky

[route]
layers=-1
groups=2
group_id=1

[convolutional]
filters=4
size=1
stride=1
pad=1
activation=mish

[shortcut]
from=-2
activation=linear

[maxpool]
size=5
stride=1

[upsample]
stride=2

[convolutional]
filters=14
size=1
activation=linear

[yolo]
mask=1,2
anchors=4,5, 6,7, 8,9
classes=2
num=3
ignore_thresh=.7
jitter=.3
"""


def test_sections_become_typed_layers_with_their_shapes():
    config = parse_cfg(SMALL)
    first, half, pointwise, added, pool, up, head, yolo = config.layers
    assert first == Convolutional(8, 3, 2, 1, 1, True, "leaky")
    assert (half, added) == (Route((0,), 2, 1), Shortcut(1))
    assert pointwise == Convolutional(4, 1, 1, 0, 1, False, "mish")
    assert (pool, up) == (MaxPool(5, 1), Upsample(2))
    assert head.activation == "linear"
    assert yolo.anchors == ((6.0, 7.0), (8.0, 9.0))
    assert (yolo.classes, yolo.scale_x_y, yolo.ignore_thresh) == (2, 1, 0.7)
    small = [(4, 16, 32)] * 4
    assert list(config.shapes) == [(8, 16, 32), *small, (4, 32, 64), (14, 32, 64), (14, 32, 64)]
    assert config.input == (3, 32, 64) and config.heads[0].stride == 1


def test_darknets_defaults_stand_for_what_a_head_does_not_say():
    yolo = parse_cfg(SMALL.replace("ignore_thresh=.7\n", "")).heads[0].yolo
    assert (yolo.ignore_thresh, yolo.iou_thresh, yolo.iou_normalizer, yolo.max_delta) == (0.5, 1.0, 0.75, float("inf"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[maxpool]", "[crnn]", r"line 33: \[crnn\] is no layer that derma can build; it knows convolutional, route"),
        ("size=3", "size=three", "has a size that cannot be read: 'three'"),
        ("size=3", "seize=3", "lacks the option size"),
        ("size=3", "size=3\ndilation=2", r"line 9: \[convolutional\] has an option that derma does not know: dilation"),
        ("size=3", "size=0", "has size=0, at least 1 is needed"),
        ("size=3", "size=3\nsize=3", "size is set twice"),
        ("activation=mish", "activation=swish", "has activation=swish; derma builds linear, leaky, mish"),
        ("group_id=1", "group_id=2", "group_id=2 of groups=2"),
        ("groups=2", "groups=3", "divides .* unevenly"),
        ("from=-2", "from=-4", "layer 3 and refers to layer -1"),
        ("from=-2", "from=0", r"adds layer 0 of \(8, 16, 32\) to \(4, 16, 32\)"),
        ("layers=-1", "layers=-1,7", "refers to layer 7"),
        (
            "activation=linear\n\n[yolo]",
            "activation=linear\n[route]\nlayers=0,-1\n[yolo]",
            "different sizes: 16x32, 32x64",
        ),
        ("filters=14", "filters=255", "takes filters=14 for 2 anchors and 2 classes, got 255"),
        ("mask=1,2", "mask=1,3", "a mask that counts them from 0"),
        ("8,9", "8", "pairs of positive anchors"),
        ("8,9", "8,nan", "anchors that cannot be read"),
        ("num=3", "num=3\nnew_coords=1", "has new_coords=1; derma builds 0"),
        ("width = 64", "width", "'width' is neither a"),
        ("[net]", "[network of mine]", r"starts with \[net\]"),
        ("[yolo]", "[upsample]", "has an option that derma does not know"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(old, new, message):
    assert old in SMALL
    with pytest.raises(ModelError, match=message):
        parse_cfg(SMALL.replace(old, new, 1))


def test_a_network_without_a_head_and_a_layer_on_a_head_are_refused():
    with pytest.raises(ModelError, match="no detector"):
        parse_cfg(SMALL[: SMALL.index("[yolo]")])
    with pytest.raises(ModelError, match=r"follows a \[yolo\]"):
        parse_cfg(SMALL + "[upsample]\nstride=2\n")
    with pytest.raises(ModelError, match="refers to layer 7"):
        parse_cfg(SMALL + "[route]\nlayers=-1\n")


def test_a_file_is_read_and_one_that_is_not_there_or_no_text_is_named(tmp_path):
    (tmp_path / "net.cfg").write_text(SMALL)
    assert read_cfg(tmp_path / "net.cfg") == parse_cfg(SMALL)
    (tmp_path / "binary.cfg").write_bytes(b"\xff\xfe\x00[net]")
    for name in ("missing.cfg", "binary.cfg"):
        with pytest.raises(ModelError, match=f"{re.escape(str(tmp_path))}.{name} cannot be read"):
            read_cfg(tmp_path / name)


def test_a_network_is_adapted_to_classes_size_and_anchors():
    config = adapted(parse_cfg(SMALL), 5, 96, 128, [[(1.5, 2.0), (3.0, 4.0), (5.0, 6.0)]])
    (head,) = config.heads
    assert head.anchors == ((1.5, 2.0), (3.0, 4.0), (5.0, 6.0)) and head.classes == 5
    assert config.input == (3, 128, 96) and config.shapes[-1] == (30, 128, 96)
    assert config.heads[0].yolo.ignore_thresh == 0.7, "what was not asked for stays"
    assert parse_cfg(config.text) == config
    with pytest.raises(ModelError, match="anchors for 2 heads, the network has 1"):
        adapted(config, 5, 96, 128, [[(1.0, 1.0)], [(2.0, 2.0)]])


def test_a_network_goes_by_its_name_or_its_file(tmp_path):
    file = tmp_path / "own.cfg"
    file.write_text(SMALL)
    assert network(str(file), 1).heads[0].classes == 1
    assert name_of(network(str(file))) == "custom"
    anchors = [[(9.0, 9.0)] * 3, [(3.0, 3.0)] * 3]
    assert name_of(network("yolov4-tiny", 7, 320, 608, anchors)) == "yolov4-tiny"
    with pytest.raises(ConfigError, match="no network is called 'yolov5': there are yolov4, yolov4-tiny"):
        network("yolov5")
    with pytest.raises(ConfigError, match="400x416 px does not fit yolov4-tiny: both sides are multiples of 32"):
        network("yolov4-tiny", 1, 400, 416)

"""YOLOv4 and YOLOv4-tiny as a compact description, which writes their Darknet cfg.

Bochkovskiy et al. 2020, "YOLOv4: Optimal Speed and Accuracy of Object Detection"; Wang et al. 2021,
"Scaled-YOLOv4" (§3.4, the tiny model). Layer for layer in Darknet's order, so that published weights fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from derma_common.errors import ConfigError
from derma_training.detector.cfg import Anchors, Config
from derma_training.detector.cfg_reader import adapted, parse_cfg, read_cfg
from derma_training.detector.cfg_sections import Section

COCO_CLASSES = 80
YOLOV4_ANCHORS = "12,16, 19,36, 40,28, 36,75, 76,55, 72,146, 142,110, 192,243, 459,401"
TINY_ANCHORS = "10,14, 23,27, 37,58, 81,82, 135,169, 344,319"


def network(
    name: str, classes: int = COCO_CLASSES, width: int = 416, height: int = 416, anchors: Anchors | None = None
) -> Config:
    """Return a network: one of `NETWORKS`, or the .cfg file of that name, for these classes, input px and anchors.

    `anchors` are per head in the order of the outputs; without them the published ones stay. Raises ConfigError for
    a name that is neither and for a size that is not in whole cells, ModelError for a file that cannot be read.
    """
    if name in NETWORKS:
        published = parse_cfg(NETWORKS[name]())
    elif name.endswith(".cfg"):
        published = read_cfg(Path(name))
    else:
        raise ConfigError(f"no network is called {name!r}: there are {', '.join(NETWORKS)}, and Darknet .cfg files")
    cell = max(head.stride for head in published.heads)
    if width % cell or height % cell or width <= 0 or height <= 0:
        raise ConfigError(f"an input of {width}x{height} px does not fit {name}: both sides are multiples of {cell}")
    return adapted(published, classes, width, height, anchors)


def name_of(config: Config) -> str:
    """Return the name of a network's architecture, whatever its classes, size and anchors; "custom" for a user's."""
    anchors = [head.anchors for head in config.heads]
    _, height, width = config.input
    for name in NETWORKS:
        if len(network(name).heads) == len(anchors):
            known = network(name, config.heads[0].classes, width, height, anchors)
            if known.layers == config.layers:
                return name
    return "custom"


class _Writer:
    """Collects sections; each method adds one layer and returns its number."""

    def __init__(self, anchors: str, **facts: float) -> None:
        self.sections = [Section("net", {"width": "416", "height": "416", "channels": "3"})]
        self._anchors, self._facts = anchors, facts

    def _add(self, kind: str, **options: object) -> int:
        self.sections.append(Section(kind, {key: str(value) for key, value in options.items()}))
        return len(self.sections) - 2

    def conv(self, filters: int, size: int, stride: int = 1, activation: str = "leaky") -> int:
        """Add a convolution with batch normalisation."""
        return self._add(
            "convolutional", batch_normalize=1, filters=filters, size=size, stride=stride, pad=1, activation=activation
        )

    def convs(self, *filters: int) -> int:
        """Add 1 × 1 and 3 × 3 convolutions in turn; returns the last."""
        return [self.conv(n, 3 if place % 2 else 1) for place, n in enumerate(filters)][-1]

    def route(self, *layers: int) -> int:
        """Join layers."""
        return self._add("route", layers=",".join(map(str, layers)))

    def second_half(self, layer: int) -> int:
        """Take the second half of a layer's channels."""
        return self._add("route", layers=layer, groups=2, group_id=1)

    def shortcut(self, layer: int) -> int:
        """Add a layer's output to the previous one."""
        return self._add("shortcut", **{"from": layer}, activation="linear")

    def pool(self, size: int, stride: int) -> int:
        """Add a max pooling."""
        return self._add("maxpool", size=size, stride=stride)

    def up(self) -> int:
        """Add an upsampling to twice the side."""
        return self._add("upsample", stride=2)

    def head(self, mask: Sequence[int], scale_x_y: float) -> int:
        """Add a detection head: its 1 × 1 convolution and what its output means."""
        filters = len(mask) * (5 + COCO_CLASSES)
        self._add("convolutional", filters=filters, size=1, stride=1, pad=1, activation="linear")
        numbers = self._anchors.count(",") + 1
        named = {"mask": ",".join(map(str, mask)), "anchors": self._anchors, "num": numbers // 2}
        return self._add("yolo", **named, classes=COCO_CLASSES, scale_x_y=scale_x_y, **self._facts)

    def text(self) -> str:
        """Return the cfg."""
        return "\n".join(section.text() for section in self.sections)


def yolov4() -> str:
    """Return the cfg of YOLOv4: CSPDarknet53, spatial pyramid pooling, path aggregation, three heads."""
    net = _Writer(
        YOLOV4_ANCHORS, ignore_thresh=0.7, iou_thresh=0.213, iou_normalizer=0.07, cls_normalizer=1.0, max_delta=5
    )
    net.conv(32, 3, activation="mish")
    stages = [_csp_darknet_stage(net, 64 << n, blocks) for n, blocks in enumerate((1, 2, 8, 8, 4))]

    top = net.convs(512, 1024, 512)
    pools = []
    for size in (5, 9, 13):
        pools.append(net.pool(size, 1))
        if size < 13:
            net.route(top)
    net.route(*reversed(pools), top)
    coarse = net.convs(512, 1024, 512)
    middle = _lateral(net, stages[3], 256)
    fine = _lateral(net, stages[2], 128)

    net.conv(256, 3)
    net.head((0, 1, 2), 1.2)
    net.route(fine)
    net.route(net.conv(256, 3, 2), middle)
    middle = net.convs(256, 512, 256, 512, 256)
    net.conv(512, 3)
    net.head((3, 4, 5), 1.1)
    net.route(middle)
    net.route(net.conv(512, 3, 2), coarse)
    net.convs(512, 1024, 512, 1024, 512, 1024)
    net.head((6, 7, 8), 1.05)
    return net.text()


def _csp_darknet_stage(net: _Writer, filters: int, blocks: int) -> int:
    """Add a cross-stage partial stage of CSPDarknet53: one part of the channels passes by, one through the blocks."""
    half = filters // 2
    part = filters if blocks == 1 else half  # the first stage does not split its channels
    entry = net.conv(filters, 3, 2, "mish")
    bypass = net.conv(part, 1, activation="mish")
    net.route(entry)
    x = net.conv(part, 1, activation="mish")
    for _ in range(blocks):
        net.conv(half, 1, activation="mish")
        net.conv(part, 3, activation="mish")
        x = net.shortcut(x)
    net.route(net.conv(part, 1, activation="mish"), bypass)
    return net.conv(filters, 1, activation="mish")


def _lateral(net: _Writer, stage: int, filters: int) -> int:
    """Bring what there is up to a backbone stage's size, join the two and mix them."""
    net.conv(filters, 1)
    raised = net.up()
    net.route(stage)
    net.route(net.conv(filters, 1), raised)
    return net.convs(filters, 2 * filters, filters, 2 * filters, filters)


def yolov4_tiny() -> str:
    """Return the cfg of YOLOv4-tiny: three small cross-stage partial stages and two heads."""
    net = _Writer(TINY_ANCHORS, ignore_thresh=0.7, iou_normalizer=0.07, cls_normalizer=1.0)
    net.conv(32, 3, 2)
    net.conv(64, 3, 2)
    joined = 0
    for channels in (64, 128, 256):
        entry = net.conv(channels, 3)
        net.second_half(entry)
        first = net.conv(channels // 2, 3)
        net.route(net.conv(channels // 2, 3), first)
        joined = net.conv(channels, 1)
        net.route(entry, joined)
        net.pool(2, 2)
    net.conv(512, 3)
    deep = net.conv(256, 1)
    net.conv(512, 3)
    net.head((3, 4, 5), 1.05)
    net.route(deep)
    net.conv(128, 1)
    net.route(net.up(), joined)
    net.conv(256, 3)
    net.head((1, 2, 3), 1.05)  # so Darknet's: the smallest anchor belongs to no head
    return net.text()


NETWORKS = {"yolov4": yolov4, "yolov4-tiny": yolov4_tiny}

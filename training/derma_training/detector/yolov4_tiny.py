"""YOLOv4-tiny: CSPDarknet53-tiny and two heads, layer for layer as in Darknet's yolov4-tiny.cfg.

Bochkovskiy et al. 2020, "YOLOv4: Optimal Speed and Accuracy of Object Detection"; Wang et al. 2021,
"Scaled-YOLOv4" (§3.4, the tiny model). Layer numbers in comments are the cfg's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STRIDES = (32, 16)  # of the heads, in the order of the outputs
ANCHORS_PER_HEAD = 3


class ConvBnLeaky(nn.Sequential):  # type: ignore[misc]
    """Darknet's convolutional layer: k × k convolution, batch normalisation, leaky ReLU 0.1."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-5, momentum=0.03),
            nn.LeakyReLU(0.1, inplace=True),
        )


class CspStage(nn.Module):  # type: ignore[misc]
    """One cross-stage partial stage: half of the channels go through two convolutions, all meet again."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.entry = ConvBnLeaky(channels, channels, 3)
        self.first = ConvBnLeaky(half, half, 3)
        self.second = ConvBnLeaky(half, half, 3)
        self.join = ConvBnLeaky(channels, channels, 1)
        self.half = half

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (N, C, H, W) to (N, 2C, H, W), and also return the joined half of it, (N, C, H, W)."""
        entry = self.entry(x)
        first = self.first(entry[:, self.half :])  # route groups=2 group_id=1: the second half
        joined = self.join(torch.cat([self.second(first), first], dim=1))
        return torch.cat([entry, joined], dim=1), joined


class YoloV4Tiny(nn.Module):  # type: ignore[misc]
    """YOLOv4-tiny for `classes` classes; the input's sides are multiples of 32."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes = classes
        outputs = ANCHORS_PER_HEAD * (5 + classes)
        self.stem = nn.Sequential(ConvBnLeaky(3, 32, 3, 2), ConvBnLeaky(32, 64, 3, 2))  # 0, 1
        self.stage1 = CspStage(64)  # 2 to 8
        self.stage2 = CspStage(128)  # 10 to 16
        self.stage3 = CspStage(256)  # 18 to 24
        self.pool = nn.MaxPool2d(2, 2)  # 9, 17, 25
        self.neck = nn.Sequential(ConvBnLeaky(512, 512, 3), ConvBnLeaky(512, 256, 1))  # 26, 27
        self.coarse = ConvBnLeaky(256, 512, 3)  # 28
        self.coarse_head = nn.Conv2d(512, outputs, 1)  # 29
        self.lateral = ConvBnLeaky(256, 128, 1)  # 32
        self.up = nn.Upsample(scale_factor=2, mode="nearest")  # 33
        self.fine = ConvBnLeaky(384, 256, 3)  # 35
        self.fine_head = nn.Conv2d(256, outputs, 1)  # 36
        _initialise(self)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Map image (N, 3, H, W) RGB in [0, 1] to raw heads (N, 3·(5+C), H/32, W/32) and (…, H/16, W/16)."""
        x, _ = self.stage1(self.stem(image))
        x, _ = self.stage2(self.pool(x))
        x, joined = self.stage3(self.pool(x))  # joined: layer 23
        deep = self.neck(self.pool(x))
        fine = torch.cat([self.up(self.lateral(deep)), joined], dim=1)
        return self.coarse_head(self.coarse(deep)), self.fine_head(self.fine(fine))


def parameter_count(net: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in net.parameters() if p.requires_grad)


def _initialise(net: YoloV4Tiny) -> None:
    """He et al. 2015 for the trunk; the heads start out believing that one place in a hundred holds a lesion."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, a=0.1, mode="fan_out", nonlinearity="leaky_relu")
    for head in (net.coarse_head, net.fine_head):
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)
        with torch.no_grad():
            head.bias.view(ANCHORS_PER_HEAD, 5 + net.classes)[:, 4] = -4.6

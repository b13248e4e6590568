"""Where a network looks, from inside: gradients of a checkpoint's torch module. Exported networks have none.

Torch is imported when asked for: everything else in this package runs without it.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def saliency(module: Any, tensor: npt.NDArray[np.float32], target: int) -> Floats:
    """Return the L1 norm over the colours of the gradient of the target's loss at each pixel, (H, W).

    As Esteva et al. 2017 (Extended Data Fig. 3). module: (1, 3, H, W) -> logits, or a tuple of them and more.
    """
    import torch

    image = torch.from_numpy(tensor).requires_grad_(True)
    loss = torch.nn.functional.cross_entropy(_logits(module(image)), torch.tensor([target]))
    (gradient,) = torch.autograd.grad(loss, image)
    return np.asarray(gradient.abs().sum(dim=1)[0].numpy(), dtype=np.float64)


def grad_cam(module: Any, tensor: npt.NDArray[np.float32], target: int) -> Floats:
    """Return the Grad-CAM map (H, W) of a class, at least 0: the last feature map weighted by its mean gradient.

    Selvaraju et al. 2017, eq. 1 and 2. The feature map is the last output of a layer with more than one pixel.
    """
    import torch

    maps: list[Any] = []

    def keep(layer: Any, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.ndim == 4 and min(output.shape[2:]) > 1:
            maps.append(output)

    hooks = [layer.register_forward_hook(keep) for layer in module.modules()]
    try:
        logits = _logits(module(torch.from_numpy(tensor).requires_grad_(True)))
    finally:
        for hook in hooks:
            hook.remove()
    (gradient,) = torch.autograd.grad(logits[0, target], maps[-1])
    weighted = torch.relu((gradient.mean(dim=(2, 3), keepdim=True) * maps[-1]).sum(dim=1))[0]
    height, width = tensor.shape[2:]
    return np.asarray(cv2.resize(weighted.detach().numpy(), (width, height)), dtype=np.float64)


def _logits(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output

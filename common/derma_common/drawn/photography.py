"""What a camera does to a picture: defocus, motion blur, sensor noise, white balance."""

from __future__ import annotations

import cv2
import numpy as np

from derma_common.drawn.skin import Image


def defocus(image: Image, radius_px: float) -> Image:
    """Blur image (H, W, 3) as a lens out of focus by `radius_px` does (a disc, not a Gaussian)."""
    if radius_px < 0.5:
        return image
    half = int(np.ceil(radius_px))
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    disc = np.clip(radius_px + 0.5 - np.hypot(x, y), 0, 1).astype(np.float32)
    return np.asarray(cv2.filter2D(image, -1, disc / disc.sum()), dtype=np.uint8)


def motion_blur(image: Image, dx_px: float, dy_px: float) -> Image:
    """Blur image (H, W, 3) along the way (dx, dy) px that it moved while the shutter was open."""
    reach = float(np.hypot(dx_px, dy_px))
    if reach < 1.0:
        return image
    half = int(np.ceil(reach / 2))
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    end = (round((half + dx_px / 2) * 16), round((half + dy_px / 2) * 16))
    start = (round((half - dx_px / 2) * 16), round((half - dy_px / 2) * 16))
    cv2.line(kernel, start, end, 1.0, 1, cv2.LINE_8, shift=4)
    return np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), dtype=np.uint8)


def sensor_noise(rng: np.random.Generator, image: Image, sigma: float) -> Image:
    """Add Gaussian noise of `sigma` grey levels to image (H, W, 3)."""
    noise = rng.standard_normal(image.shape, dtype=np.float32) * np.float32(sigma)
    return np.asarray(np.clip(image + noise + 0.5, 0, 255), dtype=np.uint8)


def white_balance(image: Image, blue: float, green: float, red: float) -> Image:
    """Scale the channels of image (H, W, 3)."""
    levels = np.arange(256, dtype=np.float32)[:, None] * np.asarray([blue, green, red], np.float32)
    table = np.clip(levels + 0.5, 0, 255).astype(np.uint8)[None]
    return np.asarray(cv2.LUT(image, table), dtype=np.uint8)


def photograph(rng: np.random.Generator, image: Image) -> Image:
    """Take image (H, W, 3) with an ordinary camera: a little of everything, each by chance."""
    if rng.random() < 0.35:
        image = defocus(image, float(rng.exponential(0.9)))
    if rng.random() < 0.25:
        angle, reach = rng.uniform(0, np.pi), min(12.0, float(rng.exponential(3.0)))
        image = motion_blur(image, reach * float(np.cos(angle)), reach * float(np.sin(angle)))
    warm, exposure = rng.normal(0, 0.06), rng.uniform(0.8, 1.12)
    image = white_balance(image, exposure * (1 - warm), exposure * (1 + rng.normal(0, 0.02)), exposure * (1 + warm))
    return sensor_noise(rng, image, float(rng.uniform(0.5, 5.0)))

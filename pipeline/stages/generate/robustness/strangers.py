"""Images that no detector of a route should decide about: other kinds, corrupted ones, attacked ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from pipeline.corruption.spoil import cut
from pipeline.detection.filters import gaussian_blur
from pipeline.nn.rng import Rng

Corrupt = Callable[[Tensor, Rng], Tensor]  # images [B, C, H, W] about [-1, 1], streams -> images of the same shape

SIGMA_FRACTION = 2.5 / 64  # of the blur / image size
NOISE_STD = 0.3
WINDOW_WIDTH = 0.5  # of the range [-1, 1] of width 2
WINDOW_LEVELS = (-0.5, 0.5)  # centre of a wrong window


def blur(x: Tensor, rng: Rng) -> Tensor:
    """Return the images out of focus: a Gaussian of 2.5 pixels at 64."""
    return gaussian_blur(x.contiguous(), SIGMA_FRACTION)


def add_noise(x: Tensor, rng: Rng) -> Tensor:
    """Return the images with Gaussian noise of 0.3."""
    return (x + NOISE_STD * rng.normal(*x.shape[1:])).clamp(-1, 1)


def misuse_window(x: Tensor, rng: Rng) -> Tensor:
    """Return the images in a quarter of their range, far too dark or far too bright."""
    sides = (rng.uniform(1, 1, 1) < 0.5).float()
    level = WINDOW_LEVELS[0] + (WINDOW_LEVELS[1] - WINDOW_LEVELS[0]) * sides
    return ((x - level) / (WINDOW_WIDTH / 2)).clamp(-1, 1)


def cut_off(x: Tensor, rng: Rng) -> Tensor:
    """Return the images with a half or a quarter black (`pipeline.corruption.spoil.cut`)."""
    planes = [cut(image[0].numpy(), np.random.default_rng(key)) for image, key in zip(x, rng.keys, strict=True)]
    return torch.from_numpy(np.stack(planes))[:, None].expand_as(x).clone()


CORRUPTIONS: Mapping[str, Corrupt] = {
    "blurred": blur,
    "noisy": add_noise,
    "wrong window": misuse_window,
    "cut off": cut_off,
}

"""Training images of which some are synthetic, and say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from pipeline.training.order import Images

AIR = -0.9  # images in [-1, 1]: below it, a synthetic image shows air
SYNTHETIC = "synthetic"


class SyntheticImages:
    """Images that a sampler drew, as training images; the ids say that they are synthetic.

    Args:
        images: [N, C, H, W] about [-1, 1].
    """

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.bodies = torch.stack([silhouette(image) for image in images])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.images[index], "body": self.bodies[index], "id": f"{SYNTHETIC} {index}", "about": {}}


class MixedImages:
    """Real and synthetic images, of which `share` are synthetic; the smaller kind is repeated within an epoch."""

    def __init__(self, real: Images, synthetic: Images, share: float) -> None:
        self.real, self.synthetic = real, synthetic
        self.first = max(len(real), round(len(synthetic) * (1 - share) / share))
        self.second = max(round(self.first * share / (1 - share)), 1)

    def __len__(self) -> int:
        return self.first + self.second

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index < self.first:
            return self.real[index % len(self.real)]
        return self.synthetic[(index - self.first) % len(self.synthetic)]


def silhouette(image: Tensor) -> Tensor:
    """Return the body of a synthetic image [C, H, W]: the largest part that is not air, filled, bool [1, H, W]."""
    lit = (image.mean(dim=0) > AIR).numpy()
    parts, count = ndimage.label(lit)
    if count == 0:
        return torch.zeros(1, *image.shape[1:], dtype=torch.bool)
    largest = 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return torch.from_numpy(ndimage.binary_fill_holes(parts == largest))[None]

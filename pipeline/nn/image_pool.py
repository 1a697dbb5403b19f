"""Pool of earlier generated images, from which a discriminator learns beside the newest (Shrivastava et al.,
arXiv:1612.07828, section 2.3; size and probability as in CycleGAN, arXiv:1703.10593, section 4)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.nn.rng import Rng

STEPS_PER_UNIT = 8191  # 16 bits reach from -4 to 4


class ImagePool(nn.Module):
    """The last generated images, more or less.

    While the pool is filling, it returns what it is given. Once it is full, it returns each image with probability 1/2,
    and otherwise one of its own, drawn at random, in whose place it keeps the new one. Images are kept as whole
    numbers, so that averages of the weights leave them alone.

    Args:
        size: images that it holds; 0 returns everything as it is.
        image_shape: (C, *spatial).
    """

    images: Tensor
    held: Tensor

    def __init__(self, size: int, image_shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros(size, *image_shape, dtype=torch.int16))
        self.register_buffer("held", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def exchange(self, images: Tensor, rng: Rng) -> Tensor:
        """Return images [B, C, *spatial], some of them earlier ones, and keep some of the new; one stream per row."""
        size = len(self.images)
        keeps, places = rng.uniform() < 0.5, rng.integers(0, max(1, size))
        given = []
        for image, keep, place in zip(images, keeps.tolist(), places.tolist(), strict=True):
            if int(self.held) < size:
                self._store(int(self.held), image)
                self.held += 1
                given.append(image)
            elif size and keep:
                given.append(self.images[place].to(image) / STEPS_PER_UNIT)
                self._store(place, image)
            else:
                given.append(image)
        return torch.stack(given)

    def empty(self) -> None:
        """Forget every image."""
        self.images.zero_()
        self.held.zero_()

    def _store(self, place: int, image: Tensor) -> None:
        self.images[place] = (image.float() * STEPS_PER_UNIT).round().clamp(-32768, 32767).to(torch.int16)

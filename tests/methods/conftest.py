"""Healthy heads for trainings of a few seconds."""

from __future__ import annotations

import pytest
import torch

from pipeline.nn.rng import Rng
from pipeline.types import Batch


class Discs:
    """32 discs of 32 pixels, each of another brightness, on a dark ground."""

    def __init__(self) -> None:
        axis = torch.linspace(-1, 1, 32)
        self.radius = (axis[:, None] ** 2 + axis[None] ** 2).sqrt()
        self.body = (self.radius < 0.8)[None]

    def __len__(self) -> int:
        return 32

    def __getitem__(self, i: int) -> dict[str, object]:
        image = torch.where(self.body, -0.2 + 0.02 * i + 0.2 * torch.cos(3 * self.radius), -1.0)
        return {"image": image, "body": self.body, "id": str(i)}


@pytest.fixture(scope="session")
def discs() -> Discs:
    """The heads as a data set."""
    return Discs()


@pytest.fixture
def batch() -> Batch:
    """Sixteen images of noise within a band of body, to paint lesions on."""
    body = torch.zeros(16, 1, 32, 32, dtype=torch.bool)
    body[..., 4:-4] = True
    images = 0.1 * Rng(range(16)).normal(1, 32, 32)
    return Batch(torch.where(body, images, -1.0), body, tuple(map(str, range(16))))

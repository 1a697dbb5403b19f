"""Healthy heads for trainings of a few seconds."""

from __future__ import annotations

import pytest
import torch


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

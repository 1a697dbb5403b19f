"""Images and bodies that lesions are painted on."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor


@pytest.fixture
def block() -> Tensor:
    """A body of 200 images of 64 px: the middle 16 x 16 pixels."""
    body = torch.zeros(200, 1, 64, 64, dtype=torch.bool)
    body[..., 24:40, 24:40] = True
    return body


@pytest.fixture
def whole() -> Tensor:
    """A body of 200 images of 64 px that fills the frame."""
    return torch.ones(200, 1, 64, 64, dtype=torch.bool)

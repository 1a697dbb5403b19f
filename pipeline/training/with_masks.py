"""A data set whose items each carry the mask of a lesion, on the grid of the images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.data.images.dataset import SliceDataset
from pipeline.data.images.letterbox import Letterbox


class WithMasks:
    """Training images, each with the mask of its lesion as its `condition`: [1, S, S], 0 or 1; empty without a lesion.

    Args:
        data: the images.
    """

    def __init__(self, data: SliceDataset) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.data[index]
        return {**item, "condition": read_grid_mask(self.data, item["id"])}


def read_grid_mask(data: SliceDataset, slice_id: str) -> Tensor:
    """Return the mask of a slice on its normalised grid, float32 [1, S, S]; a pixel counts if half of it is within."""
    native = data.read_mask(slice_id)
    size = data.normaliser.image_size
    if native is None:
        return torch.zeros(1, size, size)
    box = Letterbox.from_json(data.step(slice_id).params)
    return torch.from_numpy((box.place(native.astype(np.float32), 0.0) >= 0.5).astype(np.float32))[None]

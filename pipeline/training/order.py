"""Which image comes when: a function of (seed, images seen) alone, so that a resumed run sees the same images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import EmptySelection
from pipeline.methods.base import Phase, check_finite
from pipeline.nn.rng import row_key
from pipeline.types import Batch


class Images(Protocol):
    """What training reads: items {"image": float32 [C, *spatial], "body": bool [1, *spatial], "id": str}."""

    def __len__(self) -> int:
        """Return the number of images."""
        ...

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        """Return one item; tensors or numpy arrays."""
        ...


@lru_cache(maxsize=4)
def permutation(seed: int, epoch: int, size: int) -> tuple[int, ...]:
    """Return the order of one epoch."""
    return tuple(np.random.Generator(np.random.Philox(row_key(seed, "order", epoch))).permutation(size).tolist())


def indices(seed: int, first: int, count: int, size: int) -> list[int]:
    """Return the data indices of the images number `first` .. `first + count - 1` of the training.

    Raises:
        EmptySelection: there is no image.
    """
    if size == 0:
        raise EmptySelection("There is no image to train on. Label normal scans, or widen the selection.")
    return [permutation(seed, n // size, size)[n % size] for n in range(first, first + count)]


def collate(data: Images, chosen: Sequence[int]) -> Batch:
    """Stack the chosen items.

    Raises:
        Rejected: an image holds NaN or infinity.
    """
    items = [data[index] for index in chosen]
    images = torch.stack([_tensor(item["image"]) for item in items]).float()
    check_finite(images)
    return Batch(images, torch.stack([_tensor(item["body"]) for item in items]).bool(), tuple(i["id"] for i in items))


def _tensor(value: Tensor | np.ndarray) -> Tensor:
    return torch.as_tensor(value)


def phase_cycle(phases: Sequence[Phase]) -> list[Phase]:
    """Return whose turn it is at each step of one whole cycle of rounds."""
    rounds = int(np.lcm.reduce([phase.every for phase in phases]))
    return [p for turn in range(rounds) for p in phases if turn % p.every == 0 for _ in range(p.repeats)]

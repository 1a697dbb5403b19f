"""Data order as a function of (seed, images seen) alone, so that a resumed run sees the same images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ConfigError, EmptySelection
from pipeline.methods.base import Phase, check_finite
from pipeline.nn.rng import row_key
from pipeline.types import OPTIONAL, Batch


class Images(Protocol):
    """Data set for training with items {"image": float32 [C, *spatial], "body": bool [1, *spatial], "id": str}.

    "about" (the attributes of an image, see `pipeline.data.images.conditions`) is optional, and so are "target",
    "condition" and "findings" (see `pipeline.types.Batch`), which every item has or none.
    """

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


def draw_indices(seed: int, first: int, count: int, size: int) -> list[int]:
    """Return the data indices of the images number `first` .. `first + count - 1` of the training.

    Raises:
        EmptySelection: the data set is empty.
    """
    if size == 0:
        raise EmptySelection("There are no images to train on. Label normal scans, or widen the selection.")
    return [permutation(seed, n // size, size)[n % size] for n in range(first, first + count)]


def collate(data: Images, chosen: Sequence[int]) -> Batch:
    """Stack the chosen items.

    Raises:
        Rejected: an image, target or condition has NaN or infinite values.
        ConfigError: some items have a target or condition, and others do not.
    """
    items = [data[index] for index in chosen]
    images = torch.stack([_tensor(item["image"]) for item in items]).float()
    check_finite(images)
    bodies = torch.stack([_tensor(item["body"]) for item in items]).bool()
    ids, about = tuple(item["id"] for item in items), tuple(item.get("about", {}) for item in items)
    target, condition, findings = (_optional(items, name) for name in OPTIONAL)
    return Batch(images, bodies, ids, about, target=target, condition=condition, findings=findings)


def _optional(items: Sequence[dict[str, Any]], name: str) -> Tensor | None:
    """Stack what items may have; None where none of them has it."""
    having = [item for item in items if item.get(name) is not None]
    if not having:
        return None
    if len(having) < len(items):
        raise ConfigError(
            f"{len(having)} of {len(items)} items have a {name}; a batch takes all or none. Give every item one."
        )
    rows = torch.stack([_tensor(item[name]) for item in items]).float()
    check_finite(rows)
    return rows


def ordered(data: Images, batch_size: int) -> Iterator[Batch]:
    """Yield every image once, in the order of the data.

    Raises:
        EmptySelection: the data set is empty.
    """
    draw_indices(0, 0, 1, len(data))  # raises for an empty data set
    for first in range(0, len(data), batch_size):
        yield collate(data, range(first, min(first + batch_size, len(data))))


def _tensor(value: Tensor | np.ndarray) -> Tensor:
    return torch.as_tensor(value)


def find_phase_borders(phases: Sequence[Phase]) -> tuple[float, ...]:
    """Return the fractions of the training at which the set of active phases changes, 0 first.

    Raises:
        ConfigError: a phase ends before it begins, or no phase is active at some time.
    """
    borders = sorted({0.0} | {f for p in phases for f in (p.after, p.until) if 0.0 < f < 1.0})
    for phase in phases:
        if not 0.0 <= phase.after < phase.until <= 1.0:
            raise ConfigError(
                f"Phase {phase.name!r} runs from {phase.after} to {phase.until} of the training; it must begin before "
                "it ends, within 0 to 1."
            )
    for border in borders:
        if not active(phases, border):
            raise ConfigError(f"At {border} of the training no phase is active. Let one begin there.")
    return tuple(borders)


def active(phases: Sequence[Phase], fraction: float) -> list[Phase]:
    """Return the phases that take turns at a fraction of the training."""
    return [phase for phase in phases if phase.after <= fraction < phase.until]


def phase_cycle(phases: Sequence[Phase]) -> list[Phase]:
    """Return the phase of each step in one complete cycle of rounds."""
    rounds = int(np.lcm.reduce([phase.every for phase in phases]))
    return [p for turn in range(rounds) for p in phases if turn % p.every == 0 for _ in range(p.repeats)]

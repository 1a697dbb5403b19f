"""Tiling of a volume into overlapping cubes, and blending of a model's outputs into one volume.

The layout of the cubes is that of MONAI's `sliding_window_inference`, with weights that are a product of one weight per
axis. There are two differences. Sums are integers, whose addition is exact, so that the result does not depend on the
order of the cubes by a single bit. And cubes without body are not computed, since their voxels are never counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.errors import ConfigError, Rejected, RejectionCode

SIGMA = 0.125  # sigma of the Gaussian blend / edge of the cube, as in MONAI (Isensee et al., nnU-Net, 2021)
UNIT = 2.0**32  # integer steps per unit: sums are exact to 2e-10, and outputs may reach 2^30
LARGEST = 2.0**30

Start = tuple[int, int, int]
Answer = Callable[[Tensor, Tensor, Sequence[Start]], Tensor]


class TileConfig(Config):
    """Layout and blending of the cubes of a volume; used by detectors of volumes only."""

    overlap: float = Field(0.5, ge=0, le=0.875, description="share of an edge by which neighbouring cubes overlap")
    blend: Literal["gaussian", "constant"] = Field("gaussian", description="weights of a cube's voxels in the overlap")
    at_once: int = Field(4, ge=1, description="cubes computed at once; scores depend on it only by rounding")


@dataclass(frozen=True, slots=True)
class Tiling:
    """Start positions of the cubes of a volume along each axis, and the weights of their voxels.

    Attributes:
        edge: edge of a cube.
        shape: (D, H, W) of the volume, each at least `edge`.
        starts: start positions of the cubes per axis, ascending.
        weights: float64 [cubes, edge] per axis; over the cubes that hold a voxel they sum to 1.
    """

    edge: int
    shape: tuple[int, ...]
    starts: tuple[tuple[int, ...], ...]
    weights: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, shape: Sequence[int], edge: int, config: TileConfig) -> Self:
        """Tile a volume with cubes, the last of each row aligned with its end."""
        step = max(1, int(edge * (1 - config.overlap)))
        starts = tuple(_starts(size, edge, step) for size in shape)
        weights = tuple(_weights(size, first, edge, config.blend) for size, first in zip(shape, starts, strict=True))
        return cls(edge, tuple(shape), starts, weights)

    def __iter__(self) -> Iterator[Start]:
        """Yield the start of each cube."""
        yield from product(*self.starts)

    def window(self, start: Start) -> tuple[Any, ...]:
        """Return the index of the cube in [..., D, H, W]."""
        return (..., *(slice(first, first + self.edge) for first in start))

    def weight(self, start: Start) -> Tensor:
        """Return the weights of the cube's voxels, float64 [edge, edge, edge]."""
        z, y, x = (
            torch.from_numpy(weights[starts.index(first)])
            for weights, starts, first in zip(self.weights, self.starts, start, strict=True)
        )
        return z[:, None, None] * y[:, None] * x


class Blend:
    """The weighted sum of cubes, bitwise independent of their order."""

    def __init__(self, tiling: Tiling, channels: int) -> None:
        self._tiling = tiling
        self._sums = torch.zeros(channels, *tiling.shape, dtype=torch.int64)

    def add(self, start: Start, values: Tensor) -> None:
        """Add the cube [C, edge, edge, edge] that starts at `start`.

        Raises:
            Rejected: a value is NaN or infinite (non-finite-pixels).
            ConfigError: a value is beyond the range of the sums.
        """
        largest = float(values.abs().amax())
        if not np.isfinite(largest):
            sentence = "The model's output for a cube is NaN or infinite, so its weights are broken. Train it again."
            raise Rejected(RejectionCode.NON_FINITE, sentence)
        if largest > LARGEST:
            raise ConfigError(f"A model's output of {largest:.3g} is beyond {LARGEST:.3g}. Check its scale.")
        share = values.detach().cpu().double() * self._tiling.weight(start) * UNIT
        self._sums[self._tiling.window(start)] += share.round_().long()

    def result(self) -> Tensor:
        """Return the volume, float32 [C, D, H, W]."""
        out = torch.empty(self._sums.shape)
        for z in range(out.shape[1]):  # slice by slice, to avoid a second volume in double precision
            out[:, z] = self._sums[:, z].double() / UNIT
        return out


def tiled(image: Tensor, body: Tensor, edge: int, config: TileConfig, answer: Answer, keeps_image: bool) -> Tensor:
    """Return a model's output for a volume, float32 [K, D, H, W] on the CPU.

    Args:
        image: float32 [C, D, H, W], no edge shorter than a cube's.
        body: bool [1, D, H, W].
        edge: edge of a cube.
        config: overlap, blend, cubes at once.
        answer: images [B, C, *cube], bodies [B, 1, *cube] and the start of each -> [B, K, *cube].
        keeps_image: cubes without body, which are not computed, are filled with the image itself (for a
            reconstruction) instead of 0 (for a map).
    """
    tiling = Tiling.of(image.shape[1:], edge, config)
    blend = Blend(tiling, image.shape[0] if keeps_image else 1)
    todo: list[Start] = []
    for start in tiling:
        if body[tiling.window(start)].any():
            todo.append(start)
        elif keeps_image:
            blend.add(start, image[tiling.window(start)])
    for first in range(0, len(todo), config.at_once):
        starts = todo[first : first + config.at_once]
        cubes = [torch.stack([volume[tiling.window(start)] for start in starts]) for volume in (image, body)]
        for start, values in zip(starts, answer(*cubes, starts), strict=True):  # type: ignore[call-arg, arg-type]  # two cubes
            blend.add(start, values)
    return blend.result()


def _starts(size: int, edge: int, step: int) -> tuple[int, ...]:
    if size < edge:
        raise ConfigError(f"A volume {size} voxels long cannot hold a cube of {edge}. Pad it first.")
    count = 1 + -(-(size - edge) // step)
    return tuple(min(number * step, size - edge) for number in range(count))


def _weights(size: int, starts: Sequence[int], edge: int, blend: str) -> np.ndarray:
    offset = (np.arange(edge) - (edge - 1) / 2) / (SIGMA * edge)
    one = np.exp(-0.5 * offset**2) if blend == "gaussian" else np.ones(edge)
    total = np.zeros(size)
    for start in starts:
        total[start : start + edge] += one
    return np.stack([one / total[start : start + edge] for start in starts])

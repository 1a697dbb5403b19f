"""A series as a volume: the grid that its slices are brought to, the way back, and the cubes that a model sees.

In the plane a volume's grid is the normaliser's square, as for slices, so that intensity, body mask and the way back to
native pixels stay what they are. Along the series it is a number of slabs of equal thickness: slices are averaged where
there are more of them, and interpolated where there are fewer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import numpy as np
import torch
import torch.nn.functional as functional
from pydantic import Field, model_validator
from torch import Tensor

from pipeline.config import Config
from pipeline.data.images.letterbox import resample
from pipeline.errors import ConfigError

AIR = -1.0  # what lies beyond the volume, in normalised values


class VolumeConfig(Config):
    """Series as volumes, cut into cubes of `tile` voxels that a three-dimensional model sees."""

    tile: int = Field(32, ge=8, le=128, description="edge of the cube that the model sees, voxels")
    slices: int | None = Field(None, ge=2, le=1024, description="slices of the grid, however many the series has")
    slice_mm: float | None = Field(
        None, ge=0.2, description="distance of the grid's slices, mm, to the nearest whole number of them; null and no "
        "`slices`: the series' own"
    )  # fmt: skip
    least_slices: int = Field(8, ge=2, description="series of fewer slices are refused (too-few-slices)")
    patches: int = Field(16, ge=1, description="cubes drawn of each training volume, their centres in the body")

    @model_validator(mode="after")
    def _one_grid(self) -> Self:
        if self.slices is not None and self.slice_mm is not None:
            raise ValueError("give slices or slice_mm, not both: each decides the grid alone")
        return self

    def depth(self, slices: int, slice_mm: float | None) -> Depth:
        """Return the grid along a series of so many slices, `slice_mm` apart.

        Raises:
            ConfigError: the grid is asked for in mm and the distance is not known.
        """
        if self.slices is not None:
            return Depth(slices, self.slices)
        if self.slice_mm is None:
            return Depth(slices, slices)
        if slice_mm is None:
            raise ConfigError(
                f"A grid of {self.slice_mm:g} mm was asked for, and the distance of the slices is not known. Give a "
                "scan with its spacing, or set data.volumes.slices instead of slice_mm."
            )
        return Depth(slices, max(1, round(slices * slice_mm / self.slice_mm)))


@dataclass(frozen=True, slots=True)
class Depth:
    """The grid along one series: `slices` native ones, `grid` of the volume; both span the same length."""

    slices: int
    grid: int

    @property
    def same(self) -> bool:
        """Whether the grid's slices are the series' own."""
        return self.slices == self.grid

    def sources(self, first: int, last: int) -> tuple[int, int]:
        """Return which native slices, first and last + 1, the grid's slices `first` .. `last` - 1 are made of."""
        used = np.flatnonzero(_weights(self.slices, self.grid)[first:last].any(dim=0).numpy())
        return int(used[0]), int(used[-1]) + 1

    def to_grid(self, native: Tensor, first: int = 0, last: int | None = None, begin: int = 0) -> Tensor:
        """Return the grid's slices `first` .. `last` - 1: float32 [n, ...] of native [m, ...] from slice `begin` on.

        Antialiased linear, as in the plane (`pipeline.data.images.letterbox.resample`); a copy of nothing where the
        grids are one.
        """
        last = self.grid if last is None else last
        if self.same:
            return native[first - begin : last - begin]
        rows = _weights(self.slices, self.grid)[first:last, begin : begin + len(native)]
        return _mixed(rows, native)

    def to_native(self, grid: Tensor) -> Tensor:
        """Return float32 [slices, ...] of the grid's [grid, ...]."""
        return grid if self.same else _mixed(_weights(self.grid, self.slices), grid)

    def native_of(self, place: float) -> int:
        """Return the native slice at a place of the grid, which counts from 0 in slices, its first edge at -0.5."""
        return min(max(int((place + 0.5) * self.slices / self.grid), 0), self.slices - 1)


@lru_cache(maxsize=8)
def _weights(count: int, target: int) -> Tensor:
    """Return float32 [target, count] that resample `count` values to `target`."""
    return torch.from_numpy(resample(np.eye(count, dtype=np.float32), (target, count)))


def _mixed(rows: Tensor, values: Tensor) -> Tensor:
    return (rows @ values.flatten(1)).unflatten(1, values.shape[1:])


def padding(shape: Sequence[int], edge: int) -> list[tuple[int, int]]:
    """Return what must come (before, after) each axis so that a cube of `edge` fits."""
    missing = [max(0, edge - size) for size in shape]
    return [(short // 2, short - short // 2) for short in missing]


def padded(values: Tensor, edge: int, fill: float) -> Tensor:
    """Pad [..., D, H, W] evenly on both sides to at least `edge` along each of the three axes."""
    sides = [side for pair in reversed(padding(values.shape[-3:], edge)) for side in pair]
    return functional.pad(values, sides, value=fill) if any(sides) else values

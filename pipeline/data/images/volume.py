"""Series as a volume: the grid that its slices are resampled to, the way back, and the cubes that a model sees.

In the plane, a volume's grid is the normaliser's square, as for slices, so intensity, body mask and the way back to
native pixels are the same. Along the series it has slabs of equal thickness: slices are averaged where there are more
of them, and interpolated where there are fewer.
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

AIR = -1.0  # value beyond the volume, in normalised units


class VolumeConfig(Config):
    """Series as volumes, cut into cubes of `tile` voxels for a three-dimensional model."""

    tile: int = Field(32, ge=8, le=128, description="edge of the model's input cube, voxels")
    slices: int | None = Field(
        None, ge=2, le=1024, description="slices of the grid, whatever their number in the series"
    )
    slice_mm: float | None = Field(
        None, ge=0.2, description="distance between slices of the grid, mm, rounded to a whole number of them; null "
        "without `slices`: the series' own"
    )  # fmt: skip
    least_slices: int = Field(8, ge=2, description="series with fewer slices are refused (too-few-slices)")
    patches: int = Field(16, ge=1, description="cubes drawn from each training volume, with centres in the body")

    @model_validator(mode="after")
    def _one_grid(self) -> Self:
        if self.slices is not None and self.slice_mm is not None:
            raise ValueError("give slices or slice_mm, not both: each determines the grid")
        return self

    def depth(self, slices: int, slice_mm: float | None) -> Depth:
        """Return the grid along a series of `slices` slices, `slice_mm` apart.

        Raises:
            ConfigError: the grid is set in mm, but the distance of the slices is unknown.
        """
        if self.slices is not None:
            return Depth(slices, self.slices)
        if self.slice_mm is None:
            return Depth(slices, slices)
        if slice_mm is None:
            raise ConfigError(
                f"A grid of {self.slice_mm:g} mm was requested, but the distance of the slices is unknown. Use a "
                "scan with its spacing, or set data.volumes.slices instead of slice_mm."
            )
        return Depth(slices, max(1, round(slices * slice_mm / self.slice_mm)))


@dataclass(frozen=True, slots=True)
class Depth:
    """The grid along one series: `slices` native slices, `grid` slices of the volume, spanning the same length."""

    slices: int
    grid: int

    @property
    def same(self) -> bool:
        """Whether the grid's slices are the native ones."""
        return self.slices == self.grid

    def sources(self, first: int, last: int) -> tuple[int, int]:
        """Return the native slices, first and last + 1, that grid slices `first` .. `last` - 1 are made from."""
        used = np.flatnonzero(_weights(self.slices, self.grid)[first:last].any(dim=0).numpy())
        return int(used[0]), int(used[-1]) + 1

    def to_grid(self, native: Tensor, first: int = 0, last: int | None = None, begin: int = 0) -> Tensor:
        """Return the grid's slices `first` .. `last` - 1: float32 [n, ...] from native [m, ...] (from `begin`).

        Antialiased and linear, as in the plane (`pipeline.data.images.letterbox.resample`); a view where both
        grids are equal.
        """
        last = self.grid if last is None else last
        if self.same:
            return native[first - begin : last - begin]
        rows = _weights(self.slices, self.grid)[first:last, begin : begin + len(native)]
        return _mixed(rows, native)

    def to_native(self, grid: Tensor) -> Tensor:
        """Return float32 [slices, ...] from the grid's [grid, ...]."""
        return grid if self.same else _mixed(_weights(self.grid, self.slices), grid)

    def native_of(self, place: float) -> int:
        """Return the native slice at a position of the grid, counted in slices from 0, with the first edge at -0.5."""
        return min(max(int((place + 0.5) * self.slices / self.grid), 0), self.slices - 1)


@lru_cache(maxsize=8)
def _weights(count: int, target: int) -> Tensor:
    """Return float32 [target, count] that resamples `count` values to `target`."""
    return torch.from_numpy(resample(np.eye(count, dtype=np.float32), (target, count)))


def _mixed(rows: Tensor, values: Tensor) -> Tensor:
    return (rows @ values.flatten(1)).unflatten(1, values.shape[1:])


def padding(shape: Sequence[int], edge: int) -> list[tuple[int, int]]:
    """Return the padding (before, after) that each axis needs so that a cube of `edge` fits."""
    missing = [max(0, edge - size) for size in shape]
    return [(short // 2, short - short // 2) for short in missing]


def padded(values: Tensor, edge: int, fill: float) -> Tensor:
    """Pad [..., D, H, W] evenly on both sides to at least `edge` along each of the three axes."""
    sides = [side for pair in reversed(padding(values.shape[-3:], edge)) for side in pair]
    return functional.pad(values, sides, value=fill) if any(sides) else values

"""Training data of models on volumes: cubes of series, at positions that are drawn once and then fixed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from pipeline.data.images.conditions import about_slice
from pipeline.data.images.dataset import HeldSeries, SliceDataset
from pipeline.data.images.volume import AIR, Depth, VolumeConfig, padded, padding
from pipeline.errors import CatalogueError, Rejected


@dataclass(frozen=True, slots=True)
class _Patch:
    series: HeldSeries
    depth: Depth
    number: int
    start: tuple[int, int, int]  # on the grid, which may begin before the volume


class PatchDataset:
    """Cubes of the series of a data set; an item is a dictionary as in `SliceDataset`, with arrays [1, T, T, T].

    Each series gives `config.patches` cubes. Their centres are drawn among the voxels of the body, seeded only by the
    series' content, so that a resumed training and other selections use the same cubes. Series without a body give
    none; unreadable series are recorded in `data.rejected`.

    Args:
        data: data set of whole series (`whole=True`); its cache stores the slices.
        config: the grid and the edge T.
    """

    def __init__(self, data: SliceDataset, config: VolumeConfig) -> None:
        self.data, self.config = data, config
        self._patches = [patch for series in data.series for patch in self._drawn(series)]

    def __len__(self) -> int:
        return len(self._patches)

    def __getitem__(self, index: int) -> dict[str, Any]:
        patch, edge = self._patches[index], self.config.tile
        refs = patch.series.plan.members
        images, bodies = self._read(patch)
        middle = patch.depth.native_of(patch.start[0] + (edge - 1) / 2)
        return {
            "image": padded(images.movedim(0, 1), edge, AIR),
            "body": padded(bodies.movedim(0, 1), edge, False),
            "id": f"{refs[0].content_id}/{patch.number}",
            "about": about_slice(refs[middle]),
        }

    def _read(self, patch: _Patch) -> tuple[Tensor, Tensor]:
        """Return a cube's image and body [n, 1, T, T], n < T in thinner volumes; only its source slices are read."""
        (z, y, x), edge, depth = patch.start, self.config.tile, patch.depth
        first, last = max(z, 0), min(z + edge, depth.grid)
        begin, end = depth.sources(first, last)
        images, bodies = (
            part[..., y : y + edge, x : x + edge] for part in self.data.read_part(patch.series, begin, end)
        )
        return depth.to_grid(images, first, last, begin), depth.to_grid(bodies.float(), first, last, begin) >= 0.5

    def _drawn(self, series: HeldSeries) -> list[_Patch]:
        members = series.plan.members
        depth = self.config.depth(len(members), series.slice_mm)
        try:
            bodies = self.data.read_part(series, 0, len(members))[1]
        except (Rejected, CatalogueError) as error:
            self.data.refuse_series(series, error)
            return []
        body = (depth.to_grid(bodies.float()) >= 0.5)[:, 0].numpy()
        starts = _starts(body, self.config, _generator([ref.content_id for ref in members]))
        return [_Patch(series, depth, number, start) for number, start in enumerate(starts)]


def _generator(contents: Sequence[str]) -> np.random.Generator:
    digest = hashlib.sha256("\n".join(contents).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def _starts(body: np.ndarray, config: VolumeConfig, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Return the start of each cube, which holds its drawn body voxel, in the middle where that is possible."""
    inside = np.flatnonzero(body)
    if not inside.size:
        return []
    centres = np.unravel_index(inside[rng.integers(inside.size, size=config.patches)], body.shape)
    before = [pair[0] for pair in padding(body.shape, config.tile)]
    spans = zip(centres, body.shape, before, strict=True)
    starts = [
        np.where(size > config.tile, np.clip(centre - config.tile // 2, 0, max(size - config.tile, 0)), -short)
        for centre, size, short in spans
    ]
    return [(int(z), int(y), int(x)) for z, y, x in zip(*starts, strict=True)]

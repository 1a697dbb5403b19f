"""Output of a three-dimensional model for a whole series, resampled to the series' own slices.

The model reads cubes of the volume's grid; its output is resampled along the series, and is then compared, aggregated
and displayed exactly like that of single slices. For a reconstruction, only the difference to the grid's image is
resampled and added to the slice itself, so that detail finer than the grid is neither lost nor counted as unusual.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pipeline.data.images.volume import AIR, Depth, VolumeConfig, padded, padding
from pipeline.detection.tiles import Start, TileConfig, tiled
from pipeline.errors import ConfigError
from pipeline.methods.base import Method, check_finite
from pipeline.types import Batch

CubesAnswer = Callable[[Batch], Tensor]


def series_answer(
    batch: Batch, volumes: VolumeConfig, tiles: TileConfig, answer: CubesAnswer, reconstructs: bool
) -> Tensor:
    """Return x_hat [N, C, S, S], or the model's own map [N, 1, S, S], of all slices of one series.

    Memory: a few volumes of the grid besides the batch itself, and the cubes that are computed at once.

    Args:
        batch: the series, slices in order; its ids are the slices' content ids, which seed the cubes' randomness.
        volumes: the grid.
        tiles: the layout of the cubes.
        answer: cubes as a batch [B, C, T, T, T] -> [B, K, T, T, T]; `ids` seed it, `about` is the middle slice's.
        reconstructs: whether the answer is x_hat.
    """
    depth = volumes.depth(len(batch.ids), batch.slice_mm)
    image = depth.to_grid(batch.images).movedim(0, 1)
    body = (depth.to_grid(batch.body.float()) >= 0.5).movedim(0, 1)
    cubes = _Cubes(batch, depth, volumes.tile, answer)
    wide = padded(image, volumes.tile, AIR), padded(body, volumes.tile, False)
    output = tiled(*wide, volumes.tile, tiles, cubes.answer, reconstructs)
    inner = [
        slice(before, before + size)
        for (before, _), size in zip(padding(image.shape[1:], volumes.tile), image.shape[1:], strict=True)
    ]
    output = output[(slice(None), *inner)]
    if depth.same or not reconstructs:
        return depth.to_native(output.movedim(1, 0).contiguous())
    return batch.images + depth.to_native((output - image).movedim(1, 0).contiguous())


class _Cubes:
    """Run the model on cubes, with ids that seed their randomness."""

    def __init__(self, batch: Batch, depth: Depth, edge: int, answer: CubesAnswer) -> None:
        self._batch, self._depth, self._edge, self._answer = batch, depth, edge, answer
        self._key = hashlib.blake2b("\n".join(batch.ids).encode(), digest_size=16).hexdigest()

    def answer(self, images: Tensor, bodies: Tensor, starts: Sequence[Start]) -> Tensor:
        ids = tuple(f"{self._key}/{z}.{y}.{x}" for z, y, x in starts)
        return self._answer(Batch(images, bodies, ids, self._about(starts)))

    def _about(self, starts: Sequence[Start]) -> tuple:
        if not self._batch.about:
            return ()
        before = padding([self._depth.grid], self._edge)[0][0]
        middles = (z - before + (self._edge - 1) / 2 for z, _, _ in starts)
        return tuple(self._batch.about[self._depth.native_of(middle)] for middle in middles)


def refuse_no_series(batch: Batch, method: Method, image_size: int) -> None:
    """Refuse a batch that is not one series of normalised slices (ConfigError, Rejected for non-finite pixels)."""
    shape = (method.channels, image_size, image_size)
    if tuple(batch.images.shape[1:]) != shape:
        raise ConfigError(
            f"{method.config.name} reads series [slices, {', '.join(map(str, shape))}] as volumes, and "
            f"{list(batch.images.shape)} was given. Give all slices of one series, in order, as one batch."
        )
    check_finite(batch.images)


def refuse_no_volumes(method: Method, volumes: VolumeConfig | None, image_size: int, has_maps: bool) -> None:
    """Refuse a method that was built for other images than the detector's (ConfigError)."""
    name = method.config.name
    if (method.spatial_dims == 3) != (volumes is not None):
        raise ConfigError(
            f"{name} was built for {method.spatial_dims} dimensions, but the detector reads "
            f"{'slices' if volumes is None else 'volumes'}. Build it with spatial_dims {2 if volumes is None else 3}."
        )
    given = image_size if volumes is None else volumes.tile
    if method.image_size != given:
        raise ConfigError(
            f"The method expects images of {method.image_size} pixels, but gets {given}. Build the method with the "
            "normaliser's image_size, or with the tile of data.volumes."
        )
    if volumes is not None and not has_maps:
        raise ConfigError(f"{name} gives one number per image, but a volume needs a map. Score it slice by slice.")


def in_parts(size: int, count: int) -> list[slice]:
    """Return slices that cover 0 .. `count` - 1, `size` at a time."""
    return [slice(first, first + size) for first in range(0, count, size)]


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Return the concatenated parts; a single part unchanged."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))

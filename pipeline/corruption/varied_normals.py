"""Normal images several times over, with their intensities varied, for what is fitted on them in one pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from pipeline.corruption.intensity_jitter import IntensityConfig, jitter
from pipeline.nn.rng import Rng
from pipeline.types import Batch


def varied(batches: Iterable[Batch], intensity: IntensityConfig, passes: int, seed: int) -> Iterator[Batch]:
    """Yield each batch as it is, then `passes` - 1 times with jittered intensities.

    Random by `seed`, the ids of the images and the pass alone, so that the order of the images does not matter.
    """
    for batch in batches:
        yield batch
        rng = Rng.scoring(seed, batch.ids)
        for turn in range(1, passes):
            yield replace(batch, images=jitter(batch.images, batch.body, intensity, rng.fork(turn)))

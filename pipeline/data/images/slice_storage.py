"""Storage of normalised slices: in one tensor in memory, in files, or nowhere."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

import torch
from torch import Tensor

from pipeline.data.images.cache import SeriesCache, series_key
from pipeline.data.images.normalise import Normalised
from pipeline.data.images.series import SeriesPlan, SeriesReader
from pipeline.types import Step

RECENT = 2  # normalised series that an uncached data set remembers, so that reading in order reads each series once


class Backing(Protocol):
    """Series are added with `add`; their slices are read by a running index over all added slices."""

    def add(self, series: SeriesPlan) -> None:
        """Add a series; raises Rejected or CatalogueError, and then stores no part of it."""

    def get(self, index: int) -> tuple[Tensor, Tensor]:
        """Return image float32 [1, S, S] and body bool [1, S, S]."""

    def step(self, index: int) -> Step:
        """Return the step that leads a slice back to its native grid."""

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return images [B, 1, S, S] and bodies [B, 1, S, S] as new tensors."""

    def read_span(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Return slices `first` .. `last` - 1, neighbours in one series that was added whole; read-only."""


class _Stacked:
    def get(self, index: int) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        pairs = [self.get(index) for index in indices.tolist()]
        return torch.stack([image for image, _ in pairs]), torch.stack([body for _, body in pairs])

    def read_span(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        return self.gather(torch.arange(first, last))


class InMemory:
    """One preallocated float32 and one bool tensor: a batch is a single gather, with no allocation per slice.

    float32, not float16: a cached slice must equal an uncached one bit for bit, or the cache would change scores.
    """

    def __init__(self, reader: SeriesReader, count: int) -> None:
        size = reader.normaliser.image_size
        self._reader = reader
        self._images = torch.empty(count, 1, size, size)
        self._bodies = torch.empty(count, 1, size, size, dtype=torch.bool)
        self._steps: list[Step] = []

    def add(self, series: SeriesPlan) -> None:
        """See Backing."""
        items = self._reader.normalise(series)
        self._reader.normaliser.require_body([bool(item.body.any()) for item in items])
        for index, item in enumerate(items, start=len(self._steps)):
            self._images[index] = torch.from_numpy(item.image)
            self._bodies[index] = torch.from_numpy(item.body)
            self._steps.append(item.step)

    def get(self, index: int) -> tuple[Tensor, Tensor]:
        """See Backing; the tensors are views and read-only."""
        return self._images[index], self._bodies[index]

    def step(self, index: int) -> Step:
        """See Backing."""
        return self._steps[index]

    def gather(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """See Backing."""
        return self._images.index_select(0, indices), self._bodies.index_select(0, indices)

    def read_span(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """See Backing."""
        return self._images[first:last], self._bodies[first:last]


class OnDisk(_Stacked):
    """Files of whole normalised series (`pipeline.data.images.cache`); only their names and steps are in memory."""

    def __init__(self, reader: SeriesReader, cache: SeriesCache) -> None:
        self._reader, self._cache = reader, cache
        self._places: list[tuple[str, int]] = []
        self._steps: list[Step] = []

    def add(self, series: SeriesPlan) -> None:
        """See Backing."""
        key = series_key(self._reader.normaliser, series.members)
        steps = self._cache.steps(key)
        if steps is None or len(steps) != len(series.members):
            items = self._reader.normalise(series.whole)
            self._cache.write(key, items)
            steps = [(item.step, bool(item.body.any())) for item in items]
        self._reader.normaliser.require_body([steps[index][1] for index in series.selected])
        self._places.extend((key, index) for index in series.selected)
        self._steps.extend(steps[index][0] for index in series.selected)

    def get(self, index: int) -> tuple[Tensor, Tensor]:
        """See Backing."""
        image, body = self._cache.read_slice(*self._places[index])
        return torch.from_numpy(image), torch.from_numpy(body)

    def read_span(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """See Backing."""
        key, begin = self._places[first]
        images, bodies = self._cache.read_slices(key, begin, begin + last - first)
        return torch.from_numpy(images), torch.from_numpy(bodies)

    def step(self, index: int) -> Step:
        """See Backing."""
        return self._steps[index]


class Nowhere(_Stacked):
    """Remembers only the last series read: right for one pass in order, slow for training.

    A series is read when its first slice is requested, so `get` raises Rejected or CatalogueError.
    """

    def __init__(self, reader: SeriesReader) -> None:
        self._reader = reader
        self._places: list[tuple[SeriesPlan, int]] = []
        self._recent: OrderedDict[str, list[Normalised]] = OrderedDict()

    def add(self, series: SeriesPlan) -> None:
        """See Backing; nothing is read yet."""
        self._places.extend((series, index) for index in range(len(series.selected)))

    def get(self, index: int) -> tuple[Tensor, Tensor]:
        """See Backing."""
        item = self._item(index)
        return torch.from_numpy(item.image), torch.from_numpy(item.body)

    def step(self, index: int) -> Step:
        """See Backing."""
        return self._item(index).step

    def _item(self, index: int) -> Normalised:
        series, position = self._places[index]
        if series.stack_id not in self._recent:
            items = self._reader.normalise(series)
            self._reader.normaliser.require_body([bool(item.body.any()) for item in items])
            self._recent[series.stack_id] = items
            while len(self._recent) > RECENT:
                self._recent.popitem(last=False)
        return self._recent[series.stack_id][position]

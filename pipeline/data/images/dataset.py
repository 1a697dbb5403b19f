"""Data set of normalised slices for training and scoring: the same code and values, whatever the cache."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from pipeline.data.images.cache import SeriesCache
from pipeline.data.images.conditions import about_slice
from pipeline.data.images.load_slice import FrameStore, load_mask, load_plane
from pipeline.data.images.normalise import Normaliser, Plane
from pipeline.data.images.series import SeriesPlan, SeriesReader, plan
from pipeline.data.images.slice_storage import Backing, InMemory, Nowhere, OnDisk
from pipeline.data.sets.selection import NotScoredSeries
from pipeline.errors import CatalogueError, ConfigError, Rejected
from pipeline.types import Batch, SliceRef, Step

Cache = Literal["ram", "disk", "none"]


class Stack(NamedTuple):
    """A batch, and the ids of those of its slices that were selected, by position.

    `SliceDataset.stacks` yields whole series, whose slices are in order; the ids of such a batch are content addresses
    and frames, which seed the randomness of scoring.
    """

    batch: Batch
    selected: Mapping[int, str]


class HeldSeries(NamedTuple):
    """A series in a backing: its plan, its first index, and the number of slices held."""

    plan: SeriesPlan
    first: int
    held: int

    @property
    def slice_mm(self) -> float | None:
        """Distance between its slices."""
        return self.plan.members[0].slice_mm

    def stack(self, images: torch.Tensor, bodies: torch.Tensor) -> Stack:
        """Return the series as one batch around its images and bodies [n, 1, S, S]."""
        members = self.plan.members
        ids, conditions = tuple(ref.content_id for ref in members), tuple(about_slice(ref) for ref in members)
        selected = {place: members[place].slice_id for place in self.plan.selected}
        return Stack(Batch(images, bodies, ids, conditions, self.slice_mm), selected)


class SliceDataset:
    """Slices of a selection, grouped by series, normalised with the statistics of their whole series.

    A series that cannot be normalised, or whose pixels are missing or damaged, is left out whole and listed in
    `rejected`: with a cache when the data set is created, without one when it is read. An item is a dictionary of
        `image`
    float32 [1, S, S] in [-1, 1], `body` bool [1, S, S], `id` and `about` (`pipeline.data.images.conditions`).

    Args:
        slices: the selection; order is preserved within a series, and series are in order of first appearance.
        store: the pixel store.
        normaliser: normaliser of the route.
        cache: "ram" (one tensor, filled now), "disk" (files below `cache_dir`, missing ones written now) or "none".
        cache_dir: required for "disk"; with "ram" it is used for selections larger than `ram_bytes`.
        members: all slices of each series (`Selection.members`); required where statistics are taken over the series.
        ram_bytes: most memory for "ram".
        whole: hold all members of each series, for `stacks` and `part`, from which volumes are made.
        on_progress: called with (series done, series in all).

    Raises:
        ConfigError: `cache_dir` or `members` is missing, or the selection does not fit into memory.
    """

    def __init__(
        self,
        slices: Sequence[SliceRef],
        store: FrameStore,
        normaliser: Normaliser,
        cache: Cache = "ram",
        cache_dir: Path | None = None,
        members: Mapping[str, Sequence[SliceRef]] | None = None,
        ram_bytes: int = 4 * 2**30,
        on_progress: Callable[[int, int], None] | None = None,
        whole: bool = False,
    ) -> None:
        self.normaliser, self._store, self.whole = normaliser, store, whole
        self._plans = plan(slices, members, normaliser.needs_series or whole)
        count = sum(len(one.members if whole else one.selected) for one in self._plans)
        self.cache = _affordable(cache, count * normaliser.image_size**2 * 5, ram_bytes, cache_dir)
        self._backing = _backing(self.cache, SeriesReader(store, normaliser), count, cache_dir)
        self._refused: dict[str, NotScoredSeries] = {}
        self._places: list[int] = []  # index of each slice in the backing
        self.series: list[HeldSeries] = []
        self.slices = self._fill(on_progress)
        self._index = {ref.slice_id: index for index, ref in enumerate(self.slices)}

    @property
    def rejected(self) -> tuple[NotScoredSeries, ...]:
        """The series that were left out so far, with their codes."""
        return tuple(self._refused.values())

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image, body = self._backing.get(self._places[index])
        ref = self.slices[index]
        return {"image": image, "body": body, "id": ref.slice_id, "about": about_slice(ref)}

    def batch(self, indices: Sequence[int] | torch.Tensor) -> Batch:
        """Return the slices at `indices` as one batch of new tensors."""
        rows = torch.as_tensor(indices, dtype=torch.long).tolist()
        images, bodies = self._backing.gather(torch.tensor([self._places[index] for index in rows], dtype=torch.long))
        refs = [self.slices[index] for index in rows]
        return Batch(images, bodies, tuple(ref.slice_id for ref in refs), tuple(about_slice(ref) for ref in refs))

    def ref(self, slice_id: str) -> SliceRef:
        """Return the reference with an item's id."""
        return self.slices[self._index[slice_id]]

    def item(self, slice_id: str) -> dict[str, Any]:
        """Return the item with an id."""
        return self[self._index[slice_id]]

    def step(self, slice_id: str) -> Step:
        """Return the step that leads a slice's grid back to its native one."""
        return self._backing.step(self._places[self._index[slice_id]])

    def read_plane(self, slice_id: str) -> Plane:
        """Read a slice in physical units on its native grid."""
        return load_plane(self._store, self.ref(slice_id))

    def read_mask(self, slice_id: str) -> np.ndarray | None:
        """Read a slice's lesion mask, bool [H, W] native; or None without one."""
        return load_mask(self._store, self.ref(slice_id))

    def read_part(self, series: HeldSeries, first: int, last: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return slices `first` .. `last` - 1 of all members of a series: images and bodies [n, 1, S, S].

        They may be views of the cache and are read-only.
        """
        return self._backing.read_span(series.first + first, series.first + last)

    def stacks(self) -> Iterator[Stack]:
        """Yield every series whole, one at a time; unusable ones are recorded and skipped, as in `iterate_batches`."""
        for series in self.series:
            try:
                images, bodies = self.read_part(series, 0, len(series.plan.members))
            except (Rejected, CatalogueError) as error:
                self.refuse_series(series, error)
            else:
                yield series.stack(images, bodies)

    def refuse_series(self, series: HeldSeries, error: Rejected | CatalogueError) -> None:
        """Record that a series cannot be used."""
        self._refused.setdefault(series.plan.stack_id, series.plan.refused(error))

    def refuse(self, index: int, error: Rejected | CatalogueError) -> None:
        """Record that the series of a slice cannot be used; reading in order skips its remaining slices."""
        ref = self.slices[index]
        series = SeriesPlan(ref.stack_id, (ref,), (0,))
        self._refused.setdefault(ref.stack_id, series.refused(error))

    def refuses(self, stack_id: str) -> bool:
        """Whether a series, or a stack of it, was left out, so far."""
        return stack_id in self._refused

    def _fill(self, on_progress: Callable[[int, int], None] | None) -> tuple[SliceRef, ...]:
        taken: list[SliceRef] = []
        for done, series in enumerate(self._plans, start=1):
            try:
                self._backing.add(series.whole if self.whole else series)
                self._hold(series)
                taken.extend(series.slices)
            except (Rejected, CatalogueError) as error:
                self._refused[series.stack_id] = series.refused(error)
            if on_progress is not None:
                on_progress(done, len(self._plans))
        return tuple(taken)

    def _hold(self, series: SeriesPlan) -> None:
        before = self.series[-1] if self.series else None
        first = before.first + before.held if before else 0
        self.series.append(HeldSeries(series, first, len(series.members if self.whole else series.selected)))
        self._places += [first + place for place in (series.selected if self.whole else range(len(series.selected)))]


def iterate_batches(dataset: SliceDataset, batch_size: int, indices: Iterable[int] | None = None) -> Iterator[Batch]:
    """Yield slices in order, `batch_size` at a time (the last may be smaller); for scoring.

    A series that turns out to be unusable is skipped whole and recorded in `dataset.rejected`; the others continue.
    """
    if batch_size < 1:
        raise ConfigError(f"A batch of {batch_size} was requested; its size must be at least 1.")
    waiting: list[dict[str, Any]] = []
    for index in range(len(dataset)) if indices is None else indices:
        if dataset.refuses(dataset.slices[index].stack_id):
            continue
        try:
            waiting.append(dataset[index])
        except (Rejected, CatalogueError) as error:
            dataset.refuse(index, error)
        if len(waiting) == batch_size:
            yield collate(waiting)
            waiting = []
    if waiting:
        yield collate(waiting)


def collate(items: Sequence[Mapping[str, Any]]) -> Batch:
    """Stack items of a data set (torch tensors or arrays) into one batch."""
    images = torch.stack([torch.as_tensor(item["image"]) for item in items])
    bodies = torch.stack([torch.as_tensor(item["body"]) for item in items])
    about = tuple(item.get("about", {}) for item in items)
    return Batch(images, bodies, tuple(item["id"] for item in items), about)


def fingerprint(slices: Sequence[SliceRef]) -> dict[str, Any]:
    """Describe the data for the run's record: counts, and one hash that identifies all slices.

    The hash covers patient, slice, pixels, mask, label and set of every slice, in any order. Pseudonyms only enter the
    hash.
    """
    lines = sorted(
        "|".join((r.patient_id, r.slice_id, r.pixel_key, r.mask_key or "", r.label, r.set_name or "")) for r in slices
    )
    return {
        **_counts(slices),
        "sha256": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        "by_set": {name: _counts(part) for name, part in sorted(_by_set(slices).items())},
    }


def _counts(slices: Sequence[SliceRef]) -> dict[str, Any]:
    return {
        "patients": len({ref.patient_id for ref in slices}),
        "studies": len({ref.study_id for ref in slices}),
        "series": len({ref.series_id for ref in slices}),
        "slices": len(slices),
        "labels": dict(sorted(Counter(ref.label for ref in slices).items())),
    }


def _by_set(slices: Sequence[SliceRef]) -> dict[str, list[SliceRef]]:
    parts: dict[str, list[SliceRef]] = {}
    for ref in slices:
        parts.setdefault(ref.set_name or "none", []).append(ref)
    return parts


def _affordable(cache: Cache, needed: int, ram_bytes: int, cache_dir: Path | None) -> Cache:
    if cache == "disk" and cache_dir is None:
        raise ConfigError("The disk cache has no folder. Pass cache_dir.")
    if cache != "ram" or needed <= ram_bytes:
        return cache
    if cache_dir is None:
        raise ConfigError(
            f"The memory cache would need {needed / 2**30:.1f} GiB, more than the {ram_bytes / 2**30:.1f} GiB allowed. "
            "Raise data.ram_gib, or pass a cache folder, which is used instead."
        )
    return "disk"


def _backing(cache: Cache, reader: SeriesReader, count: int, cache_dir: Path | None) -> Backing:
    if cache == "ram":
        return InMemory(reader, count)
    if cache == "disk" and cache_dir is not None:
        return OnDisk(reader, SeriesCache(cache_dir))
    return Nowhere(reader)

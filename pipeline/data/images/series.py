"""Series as the unit of loading: its statistics need all of its slices, whichever of them are selected."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import cast

from pipeline.data.images.load_slice import FrameStore, load_plane, pixel_shape
from pipeline.data.images.normalise import Normalised, Normaliser, Plane
from pipeline.data.sets.selection import NotScoredSeries
from pipeline.errors import CatalogueError, ConfigError, Rejected, RejectionCode
from pipeline.types import SliceRef

HOLD_PIXELS = 2**26  # a series with more pixels (256 MiB as float32) is read twice instead of held in memory


@dataclass(frozen=True, slots=True)
class SeriesPlan:
    """What to load of a series, or of one stack of it: all its slices, and the requested positions, in order."""

    stack_id: str
    members: tuple[SliceRef, ...]
    selected: tuple[int, ...]

    @property
    def slices(self) -> tuple[SliceRef, ...]:
        """The selected slices."""
        return tuple(self.members[index] for index in self.selected)

    @property
    def whole(self) -> SeriesPlan:
        """The same series with every slice selected."""
        return SeriesPlan(self.stack_id, self.members, tuple(range(len(self.members))))

    def refused(self, error: Rejected | CatalogueError) -> NotScoredSeries:
        """Return the record of a refusal; a missing or damaged pixel object counts as unreadable."""
        rejected = isinstance(error, Rejected)
        code, sentence = (
            (cast(Rejected, error).code, cast(Rejected, error).sentence)
            if rejected
            else (RejectionCode.UNREADABLE, str(error))
        )
        return NotScoredSeries(self.members[0].series_id, self.members[0].study_id, code.value, sentence)


def plan(
    slices: Sequence[SliceRef], members: Mapping[str, Sequence[SliceRef]] | None, needs_series: bool
) -> list[SeriesPlan]:
    """Group slices by series, in order of first appearance.

    Raises:
        ConfigError: statistics over whole series are needed, but `members` lacks a series or one of its slices.
    """
    if needs_series and members is None and slices:
        raise ConfigError(
            "This normaliser estimates its range from whole series, and the slices alone do not tell what else their "
            "series contain. Pass members=selection.members."
        )
    by_series: dict[str, list[SliceRef]] = {}
    for ref in slices:
        by_series.setdefault(ref.stack_id, []).append(ref)
    return [_plan_series(stack_id, refs, members, needs_series) for stack_id, refs in by_series.items()]


def _plan_series(
    stack_id: str, refs: list[SliceRef], members: Mapping[str, Sequence[SliceRef]] | None, needs_series: bool
) -> SeriesPlan:
    whole = tuple((members or {}).get(stack_id, ())) if needs_series else tuple(refs)
    place = {ref.slice_id: index for index, ref in enumerate(whole)}
    missing = [ref.slice_id for ref in refs if ref.slice_id not in place]
    if missing:
        raise ConfigError(
            f"Slice {missing[0]} is selected, but the members given for its series do not contain it. Take slices and "
            "members from the same selection."
        )
    return SeriesPlan(stack_id, whole, tuple(place[ref.slice_id] for ref in refs))


class SeriesReader:
    """Reads and normalises whole series, with at most one of them in memory."""

    def __init__(self, store: FrameStore, normaliser: Normaliser) -> None:
        self.store, self.normaliser = store, normaliser

    def normalise(self, series: SeriesPlan) -> list[Normalised]:
        """Return the selected slices, normalised with the statistics of all members.

        Raises:
            Rejected, CatalogueError: the series cannot be used; no part of it is returned.
        """
        held: dict[int, Plane]
        estimated, held = None, {}
        if self.normaliser.needs_series:
            total = sum(prod(pixel_shape(ref)) for ref in series.members)
            keep = set(series.selected) if total <= HOLD_PIXELS else set()
            estimated = self.normaliser.estimate(self._planes(series, keep, held), total)
        items = []
        for index in series.selected:
            plane = held.pop(index, None) or load_plane(self.store, series.members[index])
            items.append(self.normaliser.apply(plane, estimated))
        return items

    def _planes(self, series: SeriesPlan, keep: set[int], held: dict[int, Plane]) -> Iterator[Plane]:
        for index, ref in enumerate(series.members):
            plane = load_plane(self.store, ref)
            if index in keep:
                held[index] = plane
            yield plane

"""Images of a study in reading order: series by series, each a stack of slices."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from cachetools import TTLCache, cachedmethod

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.sets.selection import NotScoredSeries, select_slices
from pipeline.dicom.decode.geometry import Allowed
from pipeline.types import SliceRef

KEPT = 64  # studies whose order is cached, since a reader goes back and forth between a few
KEPT_S = 60.0  # a study may still grow
CHANGED = "Images were added to or removed from this scan after the page was loaded. Load it again."
ANY_STACK = Allowed(gaps=True, tilt=True)  # a reader may view series that a model may not score


@dataclass(frozen=True, slots=True)
class Stack:
    """One series, or one stack of it as a reader scrolls through it."""

    series_id: str
    refs: tuple[SliceRef, ...]

    @property
    def stack_id(self) -> str:
        """The series, or the stack within it."""
        return self.refs[0].stack_id

    def place(self, instance_id: str, frame: int) -> int | None:
        """Return the position of a slice in the stack, or None if it is not in this series."""
        places = (i for i, ref in enumerate(self.refs) if ref.instance_id == instance_id and ref.frame == frame)
        return next(places, None)


@dataclass(frozen=True, slots=True)
class Stacks:
    """All stacks of a study, and the series that cannot be shown as a stack, with the reasons.

    `layout` changes when images are added, removed or moved; as long as it is the same, image numbers are valid.
    """

    study_id: str
    stacks: tuple[Stack, ...]
    left_out: tuple[NotScoredSeries, ...]
    layout: str

    def place(self, instance_id: str, frame: int) -> tuple[int, int] | None:
        """Return (stack, slice) of an image, or None if it is not in the study."""
        for number, stack in enumerate(self.stacks):
            place = stack.place(instance_id, frame)
            if place is not None:
                return number, place
        return None

    def ref(self, stack: int, index: int) -> SliceRef | None:
        """Return one slice, or None if the numbers are out of range."""
        if not 0 <= stack < len(self.stacks) or not 0 <= index < len(self.stacks[stack].refs):
            return None
        return self.stacks[stack].refs[index]


class StudyStacks:
    """Read the stacks of studies and cache the latest for a minute; safe to share between threads."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._cache: TTLCache[Hashable, Stacks] = TTLCache(KEPT, KEPT_S)
        self._lock = threading.Lock()

    @cachedmethod(attrgetter("_cache"), lock=attrgetter("_lock"))
    def read(self, study_id: str) -> Stacks:
        """Return the stacks of a study; empty if the study is no longer in the catalogue."""
        selection = select_slices(self._catalogue, study_ids=[study_id], allowed=ANY_STACK)
        stacks = tuple(Stack(refs[0].series_id, refs) for refs in selection.members.values())
        return Stacks(study_id, stacks, selection.not_scored, _layout(stacks))


def _layout(stacks: Sequence[Stack]) -> str:
    words = [" ".join(f"{ref.pixel_key}/{ref.frame}" for ref in stack.refs) for stack in stacks]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]

"""The images of a study in the order in which they are read: series by series, each a stack of slices."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from pipeline.data.catalogue import Catalogue
from pipeline.data.selection import select_slices
from pipeline.data.series import NotScoredSeries
from pipeline.dicom.geometry import Allowed
from pipeline.types import SliceRef

KEPT = 64  # studies whose order is remembered; a reader goes back and forth between a few
ANY_STACK = Allowed(gaps=True, tilt=True)  # a reader may look at what a model may not score


@dataclass(frozen=True, slots=True)
class Stack:
    """One series as a reader scrolls through it."""

    series_id: str
    refs: tuple[SliceRef, ...]

    def place(self, instance_id: str, frame: int) -> int | None:
        """Return the position of a slice in the stack, None where it is not of this series."""
        found = (i for i, ref in enumerate(self.refs) if ref.instance_id == instance_id and ref.frame == frame)
        return next(found, None)


@dataclass(frozen=True, slots=True)
class Stacks:
    """All stacks of a study, and the series that cannot be laid out as one, with the reasons."""

    study_id: str
    stacks: tuple[Stack, ...]
    left_out: tuple[NotScoredSeries, ...]

    def place(self, instance_id: str, frame: int) -> tuple[int, int] | None:
        """Return (stack, slice) of an image, None where the study does not hold it."""
        for number, stack in enumerate(self.stacks):
            place = stack.place(instance_id, frame)
            if place is not None:
                return number, place
        return None

    def ref(self, stack: int, index: int) -> SliceRef | None:
        """Return one slice, None where there is none of these numbers."""
        if not 0 <= stack < len(self.stacks) or not 0 <= index < len(self.stacks[stack].refs):
            return None
        return self.stacks[stack].refs[index]


class StudyStacks:
    """Reads the stacks of studies, and remembers the latest; shared by threads."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue, self._lock = catalogue, threading.Lock()
        self._kept: OrderedDict[str, Stacks] = OrderedDict()

    def of(self, study_id: str) -> Stacks:
        """Return the stacks of a study; none where the catalogue does not know it any more."""
        with self._lock:
            if study_id in self._kept:
                self._kept.move_to_end(study_id)
                return self._kept[study_id]
        found = self._read(study_id)
        with self._lock:
            self._kept[study_id] = found
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found

    def _read(self, study_id: str) -> Stacks:
        selection = select_slices(self._catalogue, study_ids=[study_id], allowed=ANY_STACK)
        stacks = tuple(Stack(series_id, refs) for series_id, refs in selection.members.items())
        return Stacks(study_id, stacks, selection.not_scored)

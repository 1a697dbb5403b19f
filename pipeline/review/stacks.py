"""The images of a study in the order in which they are read: series by series, each a stack of slices."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.sets.selection import NotScoredSeries, select_slices
from pipeline.dicom.decode.geometry import Allowed
from pipeline.review.lately import Lately
from pipeline.types import SliceRef

KEPT = 64  # studies whose order is remembered; a reader goes back and forth between a few
KEPT_S = 60.0  # a study may still grow
CHANGED = "Images of this scan came or went since the page was made: load it again."
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
    """All stacks of a study, and the series that cannot be laid out as one, with the reasons.

    `layout` changes when images come, go or move: while it is the same, a number means the image that a page showed.
    """

    study_id: str
    stacks: tuple[Stack, ...]
    left_out: tuple[NotScoredSeries, ...]
    layout: str

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
    """Reads the stacks of studies, and remembers the latest for a minute; shared by threads."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._kept: Lately[str, Stacks] = Lately(KEPT_S, KEPT)

    def of(self, study_id: str) -> Stacks:
        """Return the stacks of a study; none where the catalogue does not know it any more."""
        return self._kept.get(study_id, self._read)

    def _read(self, study_id: str) -> Stacks:
        selection = select_slices(self._catalogue, study_ids=[study_id], allowed=ANY_STACK)
        stacks = tuple(Stack(series_id, refs) for series_id, refs in selection.members.items())
        return Stacks(study_id, stacks, selection.not_scored, _layout(stacks))


def _layout(stacks: Sequence[Stack]) -> str:
    words = [" ".join(f"{ref.pixel_key}/{ref.frame}" for ref in stack.refs) for stack in stacks]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]

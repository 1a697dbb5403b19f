"""Label in effect for a slice: that of the most specific level with a label, and on that level the newest row."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.database import chunks
from pipeline.data.catalogue.schema import LabelRow
from pipeline.data.labels.patient_level import PATIENT_STUDY
from pipeline.data.labels.review_labels import DISMISSED_FLAG
from pipeline.types import Label, SliceRef

LEVELS = ("instance", "series", "study", PATIENT_STUDY, "patient")  # most specific first
WHOLE = 50_000  # for more subjects than this the whole table is read at once


@dataclass(frozen=True, slots=True)
class Standing:
    """The label rows of one subject combined: the newest row's label, and the newest mask and position.

    `without_flags` is the newest label from a source other than dismissed flags, None without one.
    """

    label: Label
    mask_key: str | None
    relative_position: float | None
    without_flags: Label | None


class StandingLabels:
    """The labels in effect for a set of subjects, resolved level by level."""

    def __init__(self, by_level: Mapping[str, Mapping[str, Standing]]) -> None:
        self._by_level = by_level

    @classmethod
    def read(cls, session: Session, subjects: Mapping[str, Collection[str]]) -> StandingLabels:
        """Read the labels of `subjects` (level -> pseudonyms) in a few queries."""
        by_level: dict[str, dict[str, Standing]] = {level: {} for level in LEVELS}
        for row in _rows(session, subjects):
            of_level = by_level[row.level]
            of_level[row.subject] = _after(of_level.get(row.subject), row)
        return cls(by_level)

    def label(self, ref: SliceRef) -> Label:
        """Return the label of the most specific level that has one; "unknown" where no level has one.

        A newest row with "unknown" counts too: it overrides the label of a less specific level.
        """
        for level in LEVELS:
            standing = self._of(level, ref)
            if standing is not None:
                return standing.label
        return "unknown"

    def dismissed_flag(self, ref: SliceRef) -> bool:
        """Return whether a normal label depends on a dismissed flag."""
        if self.label(ref) != "normal":
            return False
        by_level = (self._of(level, ref) for level in LEVELS)
        others = (standing.without_flags for standing in by_level if standing is not None)
        return next((label for label in others if label is not None), "unknown") != "normal"

    def mask_key(self, ref: SliceRef) -> str | None:
        """Return the instance's lesion mask, or None where the label in effect is normal."""
        standing = self._of("instance", ref)
        return None if standing is None or standing.label == "normal" else standing.mask_key

    def relative_position(self, ref: SliceRef) -> float | None:
        """Return the position that came with the data, or None."""
        standing = self._of("instance", ref)
        return None if standing is None else standing.relative_position

    def _of(self, level: str, ref: SliceRef) -> Standing | None:
        subject = {
            "instance": ref.instance_id,
            "series": ref.series_id,
            "study": ref.study_id,
            PATIENT_STUDY: ref.study_id,
            "patient": ref.patient_id,
        }[level]
        return self._by_level[level].get(subject)


def _rows(session: Session, subjects: Mapping[str, Collection[str]]) -> Iterator[Row]:
    columns = (
        LabelRow.level,
        LabelRow.subject,
        LabelRow.label,
        LabelRow.mask_key,
        LabelRow.relative_position,
        LabelRow.source,
    )
    query = select(*columns).order_by(LabelRow.id)
    if sum(map(len, subjects.values())) > WHOLE:
        rows = session.execute(query.execution_options(yield_per=10_000))
        return (row for row in rows if row.level in LEVELS)
    return chain.from_iterable(
        session.execute(query.where(LabelRow.level == level, LabelRow.subject.in_(part)))
        for level in LEVELS
        for part in chunks(subjects.get("study" if level == PATIENT_STUDY else level, ()))
    )


def _after(standing: Standing | None, row: Row) -> Standing:
    """Return the combination after `row`. A later label without position or mask keeps the earlier ones."""
    mask, position = row.mask_key, row.relative_position
    others = None if row.source == DISMISSED_FLAG else row.label
    if standing is not None:
        others = standing.without_flags if others is None else others
        mask = standing.mask_key if mask is None else mask
        position = standing.relative_position if position is None else position
    return Standing(row.label, mask, position, others)

"""Labels, with which a hospital states which scans are normal: pseudonymised on import, append-only, never dropped.

The newest row per subject is in effect (`pipeline.data.labels.effective_label`). A row identical to an existing one is
not added again, so the same file may be imported every night. To restore a label that a later row has replaced, give
the new row its own date.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import LabelRow, Patient
from pipeline.data.labels.label_csv import IgnoredColumns, LabelLine, LabelProblem, read_label_csv
from pipeline.data.labels.label_matching import Match, Matcher, Unmatched
from pipeline.data.labels.label_values import BadValue, LabelValues, check_label_values
from pipeline.data.labels.masks import MaskRefused, read_mask
from pipeline.data.labels.patient_level import PATIENT_STUDY, match_patient, names_patient_alone
from pipeline.data.store.pixel_store import PixelStore
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.pseudonyms import Pseudonyms
from pipeline.errors import ConfigError
from pipeline.types import Label

_SAID = ("label", "source", "reader", "labelled_on", "official_set", "relative_position")
_COLUMNS = ("level", "subject", *_SAID, "mask_key")
LEVELS = ("patient", PATIENT_STUDY, "study", "series", "instance")
_CHUNK = 500
Key = tuple[Any, ...]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class LabelReport:
    """Result of an import.

    Attributes:
        rows: number of lines read, without blank ones.
        added: number of new label rows.
        unchanged: number of rows that existed already.
        superseded: number of these rows that a later label has replaced; they stay replaced.
        problems: lines that were not used, with the reason.
        ignored: columns that are not of a label table.
    """

    rows: int
    added: int
    unchanged: int
    superseded: int
    problems: tuple[LabelProblem, ...]
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ready:
    """A line that was understood: its subject, its values, and its mask in the store."""

    match: Match
    values: LabelValues
    mask_key: str | None

    def columns(self) -> dict[str, Any]:
        """Return the values of the label row."""
        said = {name: getattr(self.values, name) for name in _SAID}
        return {"level": self.match.level, "subject": self.match.subject, "mask_key": self.mask_key, **said}


def import_labels(csv_path: Path, settings: Settings, patient_level: bool = False) -> LabelReport:
    """Import a label file (`pipeline.dicom.wrap.label_table`); importing it again adds nothing.

    With `patient_level`, a line that names a patient alone labels the studies that it covers (`patient_level`); without
    it, such a line is a problem.

    Masks go into the pixel store. A line that matches no subject or several, or whose mask does not fit, is reported
    with its number and adds nothing; the other lines are imported.

    Raises:
        ConfigError: the file cannot be read, or is not a label table.
    """
    problems: list[LabelProblem] = []
    ignored: list[str] = []
    counts = dict.fromkeys(("rows", "added", "unchanged", "superseded"), 0)
    with (
        Pseudonyms.open(settings) as pseudonyms,
        Crosswalk.open(settings) as crosswalk,
        Catalogue.open(settings) as catalogue,
    ):
        people = crosswalk if patient_level else None
        door = _Door(csv_path, Matcher(crosswalk, pseudonyms), PixelStore(settings.store), problems, people)
        for part in _parts(_noting(read_label_csv(csv_path), ignored)):
            with catalogue.reading() as session, crosswalk.transaction():
                ready = [item for line in part for item in door.admit(session, line)]
            with catalogue.session() as session:
                outcomes = add_labels(session, [item.columns() for item in ready])
                _mark_image_subjects(session, ready)
            counts["rows"] += len(part)
            for outcome in outcomes:
                counts["added" if outcome == "added" else "unchanged"] += 1
                counts["superseded"] += outcome == "superseded"
    return LabelReport(**counts, problems=tuple(problems), ignored=tuple(ignored))


def _noting(
    items: Iterable[LabelLine | LabelProblem | IgnoredColumns], ignored: list[str]
) -> Iterator[LabelLine | LabelProblem]:
    """Yield the lines, and append the names of ignored columns to `ignored`."""
    for item in items:
        if isinstance(item, IgnoredColumns):
            ignored.extend(item.names)
        else:
            yield item


@dataclass(frozen=True, slots=True)
class _Door:
    """Boundary of real identifiers: a line enters, and a pseudonymised row or a problem leaves."""

    table: Path
    matcher: Matcher
    store: PixelStore
    problems: list[LabelProblem]
    people: Crosswalk | None = None  # to find the studies of a patient, where lines may be about one

    def admit(self, session: Session, line: LabelLine | LabelProblem) -> list[_Ready]:
        """Match a line to the catalogue, check its values and store its mask; nothing, with a problem, if one fails."""
        if isinstance(line, LabelProblem):
            self.problems.append(line)
            return []
        try:
            values = check_label_values(line)
            if self.people is not None and names_patient_alone(line):
                matches = match_patient(session, self.people, line, values)
            else:
                matches = [self.matcher.match(session, line)]
            return [_Ready(match, values, self._mask(match, values)) for match in matches]
        except (BadValue, Unmatched, MaskRefused) as error:
            self.problems.append(LabelProblem(line.number, str(error)))
            return []

    def _mask(self, match: Match, values: LabelValues) -> str | None:
        if not values.mask:
            return None
        if match.shape is None:
            raise MaskRefused(f"its mask belongs to an instance, but it names a {match.level}; add the SOPInstanceUID")
        mask = read_mask(self.table, values.mask, match.shape)
        if values.label == "normal" and mask.any():
            raise MaskRefused("it is labelled normal, but its mask marks a lesion; correct one of the two")
        return self.store.put(mask)


def _parts(lines: Iterator[Item]) -> Iterator[list[Item]]:
    while part := list(islice(lines, _CHUNK)):
        yield part


def add_label(
    session: Session,
    level: str,
    subject: str,
    label: Label,
    *,
    source: str,
    reader: str = "",
    labelled_on: str = "",
    official_set: str = "",
    mask_key: str | None = None,
    relative_position: float | None = None,
) -> bool:
    """Append one label to a pseudonym; return False where the same row exists already.

    Raises:
        ConfigError: the level does not exist.
    """
    if level not in LEVELS:
        raise ConfigError(f"The label level {level[:20]!r} does not exist. Use one of {', '.join(LEVELS)}.")
    row: dict[str, Any] = {"level": level, "subject": subject, "label": label, "source": source, "reader": reader}
    row |= {"labelled_on": labelled_on, "official_set": official_set}
    row |= {"mask_key": mask_key, "relative_position": relative_position}
    return add_labels(session, [row]) == ["added"]


def add_labels(session: Session, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Append label rows in order; return for each "added", "unchanged", or "superseded" (and replaced since)."""
    existing, newest = _existing(session, {row["subject"] for row in rows})
    new, outcomes = [], []
    for row in rows:
        key, subject = _key(row), (row["level"], row["subject"])
        if key in existing:
            outcomes.append("unchanged" if newest[subject] == row["label"] else "superseded")
            continue
        existing.add(key)
        newest[subject] = row["label"]
        new.append(row)
        outcomes.append("added")
    if new:
        session.execute(insert(LabelRow), new)
    return outcomes


def _existing(session: Session, subjects: set[str]) -> tuple[set[Key], dict[tuple[str, str], str]]:
    query = select(*(getattr(LabelRow, name) for name in _COLUMNS)).order_by(LabelRow.id)
    rows = session.execute(query.where(LabelRow.subject.in_(subjects))).mappings().all()
    return {_key(row) for row in rows}, {(row["level"], row["subject"]): row["label"] for row in rows}


def _key(row: Any) -> Key:
    return tuple(row[name] for name in _COLUMNS)


def _mark_image_subjects(session: Session, ready: Iterable[_Ready]) -> None:
    """Record that these patients are single images of unknown persons."""
    patients = {item.match.patient_id for item in ready if item.values.image_is_subject}
    if patients:
        session.execute(update(Patient).where(Patient.patient_id.in_(patients)).values(image_is_subject=True))


def list_labels(catalogue: Catalogue) -> list[dict[str, Any]]:
    """Return every label row, oldest first: level, subject (a pseudonym), label, source, reader, date, set, mask."""
    with catalogue.reading() as session:
        return [_shown(row) for row in session.scalars(select(LabelRow).order_by(LabelRow.id))]


def _shown(row: LabelRow) -> dict[str, Any]:
    return {
        "level": row.level,
        "subject": row.subject,
        "label": row.label,
        "source": row.source,
        "reader": row.reader,
        "date": row.labelled_on,
        "official_set": row.official_set,
        "mask": row.mask_key is not None,
        "relative_position": row.relative_position,
        "imported_at": row.imported_at.isoformat(sep=" "),
    }

"""Admission of instances to the catalogue: each enters once, completely, and never overwrites another.

An instance is identified by the pseudonym of its SOP Instance UID. A second arrival is the *same* object when its
pixels, identity and attributes are equal, whatever its transfer syntax; a *new version* when pixels and identity are
equal but other attributes differ (the old ones move to `instance_versions`); and a *conflicting duplicate*, which is
rejected, when the pixels differ or it claims another series, study or patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update
from sqlalchemy.exc import DataError, IntegrityError, StatementError
from sqlalchemy.orm import InstrumentedAttribute, Session

from pipeline.data.catalogue.content_hash import draw_of, hashes, shared_attributes
from pipeline.data.catalogue.erasure_schema import Erasure
from pipeline.data.catalogue.refuse_again import refuse_erased, refuse_other_owner, refuse_removed
from pipeline.data.catalogue.removed_pixels import read_removals
from pipeline.data.catalogue.schema import Base, Instance, InstanceVersion, MergedPatient, Patient, Series, Study
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.errors import Rejected, RejectionCode

if TYPE_CHECKING:
    from pipeline.dicom.identity.pseudonyms import Ids

_MODALITY_LENGTH = 16  # VR CS, PS3.5 section 6.2
# In the order in which rows must be written: foreign keys need their parents.
_TABLES = (Patient, Study, Series, Instance, InstanceVersion)
_VERSIONED = ("instance_id", "version", "attributes_hash", "attributes", "frame_of_reference_id")
_INSTANCE_COLUMNS = tuple(column.key for column in Instance.__table__.columns if column.key != "ingested_at")


class Outcome(StrEnum):
    """Effect of an accepted arrival on the catalogue."""

    ADDED = "added"
    SAME = "same"
    NEW_VERSION = "new-version"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One decoded instance whose pixels are in the store already. An empty `content_hash` is computed."""

    ids: Ids
    attributes: InstanceAttributes
    pixel_key: str
    image_is_subject: bool = False
    content_hash: str = ""


@dataclass(slots=True)
class _State:
    """Rows of the catalogue that a batch touches, and the rows that the batch adds."""

    merged: dict[str, str] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)
    removed: dict[str, datetime] = field(default_factory=dict)
    patients: set[str] = field(default_factory=set)
    studies: dict[str, str] = field(default_factory=dict)
    series: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    instances: dict[str, dict[str, Any]] = field(default_factory=dict)
    new: dict[type[Base], list[dict[str, Any]]] = field(default_factory=lambda: {table: [] for table in _TABLES})
    narrowed_series: set[str] = field(default_factory=set)
    corrected: dict[str, str] = field(default_factory=dict)  # instance_id -> series_id


def admit(session: Session, arrivals: Sequence[Arrival]) -> list[Outcome | Rejected]:
    """Enter a batch in order; an instance that cannot be entered is rejected alone, and the others remain.

    Returns one outcome or rejection per arrival. The caller commits or rolls back. Its transaction must be a writing
    one, so that no other process decides on the same rows meanwhile.
    """
    try:
        # Most batches succeed as a whole. Only if one fails, each arrival gets a savepoint of its own.
        with session.begin_nested():
            return _admit_all(session, arrivals)
    except (StatementError, ValueError, OverflowError) as error:
        if not _is_about_values(error):
            raise
    return [_admit_alone(session, arrival) for arrival in arrivals]


def _is_about_values(error: Exception) -> bool:
    # Drivers raise a plain ValueError or OverflowError for values that they cannot send. Every other driver error is a
    # problem of the database (disk full, locked, unreachable) and must not look like a bad file.
    if not isinstance(error, StatementError) or isinstance(error, IntegrityError | DataError):
        return True
    return error.orig is None or isinstance(error.orig, ValueError | OverflowError)


def _admit_alone(session: Session, arrival: Arrival) -> Outcome | Rejected:
    try:
        with session.begin_nested():
            return _admit_all(session, [arrival])[0]
    except (StatementError, ValueError, OverflowError) as error:
        if not _is_about_values(error):
            raise
        return Rejected(
            RejectionCode.CORRUPT_HEADER,
            "The catalogue cannot store an attribute of this file (too long, or not valid text). Correct the header.",
        )


def _admit_all(session: Session, arrivals: Sequence[Arrival]) -> list[Outcome | Rejected]:
    state = _load(session, arrivals)
    outcomes: list[Outcome | Rejected] = []
    for arrival in arrivals:
        try:
            outcomes.append(_decide(state, arrival))
        except Rejected as rejected:
            outcomes.append(rejected)
    _write(session, state)
    return outcomes


def _load(session: Session, arrivals: Sequence[Arrival]) -> _State:
    state = _State()

    def rows(column: InstrumentedAttribute[str], keys: set[str], *columns: Any) -> Any:
        return session.execute(select(*columns).where(column.in_(keys)))

    ids = [arrival.ids for arrival in arrivals]
    patients = {i.patient_id for i in ids}
    merged = (MergedPatient.absorbed_id, MergedPatient.patient_id)
    state.merged = dict(rows(MergedPatient.absorbed_id, patients, *merged).all())
    patients |= set(state.merged.values())
    erased = select(Erasure.patient_id).where(Erasure.patient_id.in_(patients), Erasure.readmitted_at.is_(None))
    state.erased = set(session.scalars(erased))
    state.removed = read_removals(session, {i.series_id for i in ids})
    state.patients = set(session.scalars(select(Patient.patient_id).where(Patient.patient_id.in_(patients))))
    state.studies = dict(rows(Study.study_id, {i.study_id for i in ids}, Study.study_id, Study.patient_id).all())
    columns = (Series.series_id, Series.study_id, Series.attributes)
    for series_id, study_id, attributes in rows(Series.series_id, {i.series_id for i in ids}, *columns):
        state.series[series_id] = (study_id, attributes)
    for row in session.scalars(select(Instance).where(Instance.instance_id.in_({i.instance_id for i in ids}))):
        state.instances[row.instance_id] = _row_of(row)
    return state


def _row_of(row: Instance) -> dict[str, Any]:
    return {column: getattr(row, column) for column in _INSTANCE_COLUMNS}


def _decide(state: _State, arrival: Arrival) -> Outcome:
    ids, attributes = arrival.ids, arrival.attributes
    _check_modality(attributes)
    patient_id = state.merged.get(ids.patient_id, ids.patient_id)
    if patient_id in state.erased:
        raise refuse_erased(patient_id)
    if ids.series_id in state.removed:
        raise refuse_removed(state.removed[ids.series_id], ids.study_id)
    _check_owner("study", state.studies.get(ids.study_id, patient_id), patient_id)
    _check_owner("series", state.series.get(ids.series_id, (ids.study_id,))[0], ids.study_id)
    row = _new_row(arrival)
    old = state.instances.get(ids.instance_id)
    if old is not None:
        _check_owner("SOP instance", old["series_id"], ids.series_id)
        return _again(state, old, row)
    _place(state, arrival, patient_id, row["attributes"])
    _narrow(state, row)
    state.instances[ids.instance_id] = row
    state.new[Instance].append(row)
    return Outcome.ADDED


def _check_modality(attributes: InstanceAttributes) -> None:
    if len(attributes.modality) > _MODALITY_LENGTH:
        raise Rejected(
            RejectionCode.CORRUPT_HEADER,
            f"Modality has {len(attributes.modality)} characters; a code string has at most {_MODALITY_LENGTH}. "
            "Correct the header.",
        )


def _check_owner(what: str, owner: str, claimed: str) -> None:
    if owner != claimed:
        raise refuse_other_owner(what, owner, claimed)


def _new_row(arrival: Arrival) -> dict[str, Any]:
    attributes = arrival.attributes.to_json()
    content, described = hashes(attributes, arrival.pixel_key)
    return {
        "instance_id": arrival.ids.instance_id,
        "series_id": arrival.ids.series_id,
        "content_hash": arrival.content_hash or content,
        "attributes_hash": described,
        "pixel_key": arrival.pixel_key,
        "frames": arrival.attributes.frames,
        "attributes": attributes,
        "frame_of_reference_id": arrival.ids.frame_of_reference_id,
        "version": 1,
    }


def _again(state: _State, old: dict[str, Any], row: dict[str, Any]) -> Outcome:
    if old["pixel_key"] != row["pixel_key"]:
        raise Rejected(
            RejectionCode.CONFLICTING_DUPLICATE,
            f"The SOP instance already exists with different pixels (stored {old['pixel_key'][:12]}, this file "
            f"{row['pixel_key'][:12]}). The first one is kept and nothing was overwritten. If the pixels were "
            "changed on purpose, send the whole series again with new Series and SOP Instance UIDs: beside the "
            "first in its series, a changed image would be a second slice at one position.",
        )
    if (old["content_hash"], old["attributes_hash"]) == (row["content_hash"], row["attributes_hash"]):
        former, frame = old["frame_of_reference_id"], row["frame_of_reference_id"]
        if not former and frame:  # of a catalogue of before frames of reference were recorded
            old["frame_of_reference_id"] = frame
            state.corrected[row["instance_id"]] = row["series_id"]
        if not former or frame in ("", former):
            return Outcome.SAME
    replaced = {name: old[name] for name in _VERSIONED}
    state.new[InstanceVersion].append(replaced)
    old.update(row, version=old["version"] + 1)
    state.corrected[row["instance_id"]] = row["series_id"]
    return Outcome.NEW_VERSION


def _place(state: _State, arrival: Arrival, patient_id: str, attributes: dict[str, Any]) -> None:
    """Add the patient, study and series of an instance where they are missing."""
    if patient_id not in state.patients:
        state.patients.add(patient_id)
        state.new[Patient].append(
            {
                "patient_id": patient_id,
                "draw": draw_of(patient_id),
                "identified": arrival.ids.identified,
                "image_is_subject": arrival.image_is_subject,
            }
        )
    study_id = arrival.ids.study_id
    if study_id not in state.studies:
        state.studies[study_id] = patient_id
        state.new[Study].append({"study_id": study_id, "patient_id": patient_id})
    if arrival.ids.series_id not in state.series:
        _start_series(state, arrival, attributes)


def _start_series(state: _State, arrival: Arrival, attributes: dict[str, Any]) -> None:
    series_id = arrival.ids.series_id
    state.series[series_id] = (arrival.ids.study_id, attributes)
    state.new[Series].append(
        {
            "series_id": series_id,
            "study_id": arrival.ids.study_id,
            "modality": arrival.attributes.modality,
            "attributes": attributes,
        }
    )


def _narrow(state: _State, row: dict[str, Any]) -> None:
    """Reduce the series' attributes to those that this instance shares."""
    study_id, attributes = state.series[row["series_id"]]
    shared = shared_attributes(attributes, row["attributes"])
    if shared != attributes:
        state.series[row["series_id"]] = (study_id, shared)
        state.narrowed_series.add(row["series_id"])


def _write(session: Session, state: _State) -> None:
    for row in state.new[Series]:
        row["attributes"] = state.series[row["series_id"]][1]
        state.narrowed_series.discard(row["series_id"])
    for table in _TABLES:
        if state.new[table]:
            session.execute(insert(table.__table__), state.new[table])
    _correct(session, state)
    for series_id in state.narrowed_series:
        shared = state.series[series_id][1]
        session.execute(update(Series).where(Series.series_id == series_id).values(attributes=shared))


def _correct(session: Session, state: _State) -> None:
    """Write corrected instances and recompute what their series share: a correction may also widen it."""
    for instance_id in state.corrected:
        values = {name: state.instances[instance_id][name] for name in _INSTANCE_COLUMNS if name != "instance_id"}
        session.execute(update(Instance).where(Instance.instance_id == instance_id).values(**values))
    for series_id in set(state.corrected.values()):
        shared: dict[str, Any] | None = None
        for attributes in session.scalars(
            select(Instance.attributes).where(Instance.series_id == series_id).execution_options(yield_per=500)
        ):
            shared = attributes if shared is None else shared_attributes(shared, attributes)
        state.series[series_id] = (state.series[series_id][0], shared or {})
        state.narrowed_series.add(series_id)

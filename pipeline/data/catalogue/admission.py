"""How an instance enters the catalogue: once, whole, and never over another.

An instance is known by the pseudonym of its SOP Instance UID. A second arrival is the *same* object when its pixels,
identity and attributes are equal, whatever its transfer syntax; a *new version* when pixels and identity are equal and
other attributes differ (the old ones are kept in `instance_versions`); and a *conflicting duplicate*, rejected, when
the pixels differ or it claims another series, study or patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update
from sqlalchemy.exc import DataError, IntegrityError, StatementError
from sqlalchemy.orm import InstrumentedAttribute, Session

from pipeline.data.catalogue.content_hash import draw_of, hashes, shared_attributes
from pipeline.data.catalogue.schema import Base, Instance, InstanceVersion, MergedPatient, Patient, Series, Study
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.errors import Rejected, RejectionCode

if TYPE_CHECKING:
    from pipeline.dicom.identity.pseudonyms import Ids

_MODALITY_LENGTH = 16  # VR CS, PS3.5 section 6.2
# In the order in which rows must be written.
_TABLES = (Patient, Study, Series, Instance, InstanceVersion)
_INSTANCE_COLUMNS = tuple(column.key for column in Instance.__table__.columns if column.key != "ingested_at")


class Outcome(StrEnum):
    """What an accepted arrival meant for the catalogue."""

    ADDED = "added"
    SAME = "same"
    NEW_VERSION = "new-version"


@dataclass(frozen=True, slots=True)
class Arrival:
    """One decoded instance whose pixels are in the store already. `content_hash` is made from the rest when empty."""

    ids: Ids
    attributes: InstanceAttributes
    pixel_key: str
    image_is_subject: bool = False
    content_hash: str = ""


@dataclass(slots=True)
class _Known:
    """What the catalogue holds of everything that a batch touches, and what the batch adds to it."""

    merged: dict[str, str] = field(default_factory=dict)
    patients: set[str] = field(default_factory=set)
    studies: dict[str, str] = field(default_factory=dict)
    series: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    instances: dict[str, dict[str, Any]] = field(default_factory=dict)
    new: dict[type[Base], list[dict[str, Any]]] = field(default_factory=lambda: {table: [] for table in _TABLES})
    narrowed_series: set[str] = field(default_factory=set)
    corrected: dict[str, str] = field(default_factory=dict)  # instance_id -> series_id


def admit(session: Session, arrivals: Sequence[Arrival]) -> list[Outcome | Rejected]:
    """Enter a batch, in order; one that cannot be entered is rejected alone, its neighbours stay.

    Returns one outcome or rejection an arrival. The caller's transaction decides whether anything is kept, and must be
    a writing one, so that nobody else decides on the same rows meanwhile.
    """
    try:
        with session.begin_nested():
            return _admit_all(session, arrivals)
    except (StatementError, ValueError, OverflowError) as error:
        if not _is_about_values(error):
            raise
    return [_admit_alone(session, arrival) for arrival in arrivals]


def _is_about_values(error: Exception) -> bool:
    # Drivers raise ValueError and OverflowError as they are for values that they cannot send. Every other error of a
    # driver is the database's own trouble (disk full, locked, gone) and must not look like a bad file.
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
            "The catalogue cannot hold an attribute of this file (too long, or no valid text). Repair the header.",
        )


def _admit_all(session: Session, arrivals: Sequence[Arrival]) -> list[Outcome | Rejected]:
    known = _load(session, arrivals)
    outcomes: list[Outcome | Rejected] = []
    for arrival in arrivals:
        try:
            outcomes.append(_decide(known, arrival))
        except Rejected as rejected:
            outcomes.append(rejected)
    _write(session, known)
    return outcomes


def _load(session: Session, arrivals: Sequence[Arrival]) -> _Known:
    known = _Known()

    def rows(column: InstrumentedAttribute[str], wanted: set[str], *columns: Any) -> Any:
        return session.execute(select(*columns).where(column.in_(wanted)))

    ids = [arrival.ids for arrival in arrivals]
    patients = {i.patient_id for i in ids}
    merged = (MergedPatient.absorbed_id, MergedPatient.patient_id)
    known.merged = dict(rows(MergedPatient.absorbed_id, patients, *merged).all())
    patients |= set(known.merged.values())
    known.patients = set(session.scalars(select(Patient.patient_id).where(Patient.patient_id.in_(patients))))
    known.studies = dict(rows(Study.study_id, {i.study_id for i in ids}, Study.study_id, Study.patient_id).all())
    columns = (Series.series_id, Series.study_id, Series.attributes)
    for series_id, study_id, attributes in rows(Series.series_id, {i.series_id for i in ids}, *columns):
        known.series[series_id] = (study_id, attributes)
    for row in session.scalars(select(Instance).where(Instance.instance_id.in_({i.instance_id for i in ids}))):
        known.instances[row.instance_id] = _row_of(row)
    return known


def _row_of(row: Instance) -> dict[str, Any]:
    return {column: getattr(row, column) for column in _INSTANCE_COLUMNS}


def _decide(known: _Known, arrival: Arrival) -> Outcome:
    ids, attributes = arrival.ids, arrival.attributes
    _check_modality(attributes)
    patient_id = known.merged.get(ids.patient_id, ids.patient_id)
    _check_owner("study", known.studies.get(ids.study_id, patient_id), patient_id)
    _check_owner("series", known.series.get(ids.series_id, (ids.study_id,))[0], ids.study_id)
    row = _new_row(arrival)
    old = known.instances.get(ids.instance_id)
    if old is not None:
        _check_owner("SOP instance", old["series_id"], ids.series_id)
        return _again(known, old, row)
    _place(known, arrival, patient_id)
    _narrow(known, row)
    known.instances[ids.instance_id] = row
    known.new[Instance].append(row)
    return Outcome.ADDED


def _check_modality(attributes: InstanceAttributes) -> None:
    if len(attributes.modality) > _MODALITY_LENGTH:
        raise Rejected(
            RejectionCode.CORRUPT_HEADER,
            f"Modality has {len(attributes.modality)} characters; a code string has at most {_MODALITY_LENGTH}. "
            "Repair the header.",
        )


def _check_owner(what: str, owner: str, claimed: str) -> None:
    if owner != claimed:
        raise Rejected(
            RejectionCode.CONFLICTING_DUPLICATE,
            f"The {what} is known already, as a part of {owner[:12]}, and this file claims {claimed[:12]}. The first "
            "one stands and nothing was overwritten. If two patients are one person, merge them; else correct the "
            "sender.",
        )


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
        "version": 1,
    }


def _again(known: _Known, old: dict[str, Any], row: dict[str, Any]) -> Outcome:
    if old["pixel_key"] != row["pixel_key"]:
        raise Rejected(
            RejectionCode.CONFLICTING_DUPLICATE,
            f"The SOP instance is known with other pixels (stored {old['pixel_key'][:12]}, this file "
            f"{row['pixel_key'][:12]}). The first one stands and nothing was overwritten. Changed pixels need a new "
            "SOP Instance UID.",
        )
    if (old["content_hash"], old["attributes_hash"]) == (row["content_hash"], row["attributes_hash"]):
        return Outcome.SAME
    kept = {name: old[name] for name in ("instance_id", "version", "attributes_hash", "attributes")}
    known.new[InstanceVersion].append(kept)
    old.update(row, version=old["version"] + 1)
    known.corrected[row["instance_id"]] = row["series_id"]
    return Outcome.NEW_VERSION


def _place(known: _Known, arrival: Arrival, patient_id: str) -> None:
    """Make sure that the patient and the study of an instance exist."""
    if patient_id not in known.patients:
        known.patients.add(patient_id)
        known.new[Patient].append(
            {
                "patient_id": patient_id,
                "draw": draw_of(patient_id),
                "identified": arrival.ids.identified,
                "image_is_subject": arrival.image_is_subject,
            }
        )
    study_id = arrival.ids.study_id
    if study_id not in known.studies:
        known.studies[study_id] = patient_id
        known.new[Study].append({"study_id": study_id, "patient_id": patient_id})
    if arrival.ids.series_id not in known.series:
        _start_series(known, arrival)


def _start_series(known: _Known, arrival: Arrival) -> None:
    series_id, attributes = arrival.ids.series_id, arrival.attributes.to_json()
    known.series[series_id] = (arrival.ids.study_id, attributes)
    known.new[Series].append(
        {
            "series_id": series_id,
            "study_id": arrival.ids.study_id,
            "modality": arrival.attributes.modality,
            "attributes": attributes,
        }
    )


def _narrow(known: _Known, row: dict[str, Any]) -> None:
    """Keep of the series' attributes what this instance shares."""
    study_id, attributes = known.series[row["series_id"]]
    shared = shared_attributes(attributes, row["attributes"])
    if shared != attributes:
        known.series[row["series_id"]] = (study_id, shared)
        known.narrowed_series.add(row["series_id"])


def _write(session: Session, known: _Known) -> None:
    for row in known.new[Series]:
        row["attributes"] = known.series[row["series_id"]][1]
        known.narrowed_series.discard(row["series_id"])
    for table in _TABLES:
        if known.new[table]:
            session.execute(insert(table), known.new[table])
    _correct(session, known)
    for series_id in known.narrowed_series:
        shared = known.series[series_id][1]
        session.execute(update(Series).where(Series.series_id == series_id).values(attributes=shared))


def _correct(session: Session, known: _Known) -> None:
    """Write corrected instances, and find again what their series share: a correction may also widen it."""
    for instance_id in known.corrected:
        values = {name: known.instances[instance_id][name] for name in _INSTANCE_COLUMNS if name != "instance_id"}
        session.execute(update(Instance).where(Instance.instance_id == instance_id).values(**values))
    for series_id in set(known.corrected.values()):
        shared: dict[str, Any] | None = None
        for attributes in session.scalars(
            select(Instance.attributes).where(Instance.series_id == series_id).execution_options(yield_per=500)
        ):
            shared = attributes if shared is None else shared_attributes(shared, attributes)
        known.series[series_id] = (known.series[series_id][0], shared or {})
        known.narrowed_series.add(series_id)

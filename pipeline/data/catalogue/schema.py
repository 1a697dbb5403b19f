"""Tables of the catalogue. Pseudonyms and allow-listed attributes only: nothing here identifies a person.

Ids (`patient_id`, `study_id`, `series_id`, `instance_id`) are keyed pseudonyms made by
`pipeline.dicom.identity.pseudonyms`; the crosswalk, another database, leads back.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, MetaData, String, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pipeline.wall_clock import read_stored_time

if TYPE_CHECKING:
    from sqlalchemy import Table


def now() -> datetime:
    """Return the current time in UTC without time zone, as stored in every `*_at` column."""
    return read_stored_time()


class Base(DeclarativeBase):
    """Declarative base; fixed constraint names make migrations the same on every database."""

    if TYPE_CHECKING:
        __table__: ClassVar[Table]

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON}


class Patient(Base):
    """One person at one issuer. `set_name` is assigned once and changed only by a merge (test wins).

    `draw` is the uniform number in [0, 1) that decides the set: fixed when the patient is first seen, so that a key
    rotation moves nobody. `identified` is False for an empty PatientID: such a patient is never used for training.
    `image_is_subject` marks wrapped data without patient ids.
    """

    __tablename__ = "patients"
    patient_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    draw: Mapped[float]
    set_name: Mapped[str | None] = mapped_column(String(16), index=True)
    set_reason: Mapped[str] = mapped_column(default="")
    identified: Mapped[bool] = mapped_column(default=True)
    image_is_subject: Mapped[bool] = mapped_column(default=False)
    first_seen_at: Mapped[datetime] = mapped_column(default=now)


class MergedPatient(Base):
    """A pseudonym absorbed by a patient merge: files that still carry the old identifier go to `patient_id`."""

    __tablename__ = "merged_patients"
    absorbed_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    patient_id: Mapped[str] = mapped_column(ForeignKey("patients.patient_id", onupdate="CASCADE"), index=True)
    merged_at: Mapped[datetime] = mapped_column(default=now)


class Study(Base):
    """One imaging study."""

    __tablename__ = "studies"
    study_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    patient_id: Mapped[str] = mapped_column(ForeignKey("patients.patient_id", onupdate="CASCADE"), index=True)
    first_seen_at: Mapped[datetime] = mapped_column(default=now)


class Series(Base):
    """One series; `attributes` holds the allow-listed attributes that all its instances share (routing, subgroups)."""

    __tablename__ = "series"
    series_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.study_id", onupdate="CASCADE"), index=True)
    modality: Mapped[str] = mapped_column(String(16), index=True)
    attributes: Mapped[dict[str, Any]]
    first_seen_at: Mapped[datetime] = mapped_column(default=now)


class Instance(Base):
    """Current version of a SOP instance. `content_hash` covers decoded pixels and geometry, not the encoding.

    `pixel_key` locates the stored values in the pixel store; `attributes` is `InstanceAttributes.to_json()`.
    Positions of instances can be compared only where `frame_of_reference_id` is the same (PS3.3 C.7.4.1); "" where the
    file does not say, or was ingested before it was recorded.
    """

    __tablename__ = "instances"
    instance_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    series_id: Mapped[str] = mapped_column(ForeignKey("series.series_id", onupdate="CASCADE"), index=True)
    content_hash: Mapped[str] = mapped_column(String(64))
    attributes_hash: Mapped[str] = mapped_column(String(64))
    pixel_key: Mapped[str] = mapped_column(String(128), index=True)
    frames: Mapped[int]
    attributes: Mapped[dict[str, Any]]
    frame_of_reference_id: Mapped[str] = mapped_column(String(64), default="", server_default=text("''"))
    version: Mapped[int] = mapped_column(default=1)
    ingested_at: Mapped[datetime] = mapped_column(default=now)


class InstanceVersion(Base):
    """Attributes of an instance before a metadata correction; append-only."""

    __tablename__ = "instance_versions"
    id: Mapped[int] = mapped_column(primary_key=True)
    instance_id: Mapped[str] = mapped_column(ForeignKey("instances.instance_id", onupdate="CASCADE"), index=True)
    version: Mapped[int]
    attributes_hash: Mapped[str] = mapped_column(String(64))
    attributes: Mapped[dict[str, Any]]
    frame_of_reference_id: Mapped[str] = mapped_column(String(64), default="", server_default=text("''"))
    replaced_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (UniqueConstraint("instance_id", "version"),)


class SourceFile(Base):
    """A file that was read: size and time let the next ingest skip it. The path itself is in the crosswalk.

    `path_id` is the pseudonym of the path; `outcome` is "accepted", "same" or a rejection code; `rules` names those by
    which the file was judged (`ingest.reading_rules`), "" before they were recorded.
    """

    __tablename__ = "source_files"
    path_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)  # this and the next overflow PostgreSQL's 32-bit integer
    modified_ns: Mapped[int] = mapped_column(BigInteger)
    outcome: Mapped[str] = mapped_column(String(40), index=True)
    instance_id: Mapped[str | None] = mapped_column(String(64), index=True)
    seen_at: Mapped[datetime] = mapped_column(default=now)
    rules: Mapped[str] = mapped_column(String(16), default="", server_default=text("''"))


class RejectionRow(Base):
    """One refused file (`subject` = path_id), instance or series, with its reason; one row per subject and code."""

    __tablename__ = "rejections"
    id: Mapped[int] = mapped_column(primary_key=True)
    subject: Mapped[str] = mapped_column(String(64))
    level: Mapped[str] = mapped_column(String(16))  # file | instance | series
    code: Mapped[str] = mapped_column(String(40), index=True)
    sentence: Mapped[str]
    first_seen_at: Mapped[datetime] = mapped_column(default=now)
    last_seen_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (UniqueConstraint("subject", "code"),)


class LabelRow(Base):
    """A source's label of a patient, study, series or instance. Append-only: the newest row per level is in effect.

    A `patient-study` row was said of a patient and applies to one of the studies; its subject is the study.
    """

    __tablename__ = "labels"
    id: Mapped[int] = mapped_column(primary_key=True)
    level: Mapped[str] = mapped_column(String(16))  # patient | patient-study | study | series | instance
    subject: Mapped[str] = mapped_column(String(64))  # the pseudonym at that level
    label: Mapped[str] = mapped_column(String(16))  # normal | abnormal | unknown
    source: Mapped[str] = mapped_column(String(64))
    reader: Mapped[str] = mapped_column(String(64), default="")
    labelled_on: Mapped[str] = mapped_column(String(10), default="")
    official_set: Mapped[str] = mapped_column(String(16), default="")
    mask_key: Mapped[str | None] = mapped_column(String(128))
    relative_position: Mapped[float | None] = mapped_column(Float)
    imported_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (Index(None, "level", "subject"),)


class RunRow(Base):
    """One training, scoring or evaluation run and its folder, relative to the workspace."""

    __tablename__ = "runs"
    run_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), index=True)  # train | score | evaluate | generate
    route: Mapped[str] = mapped_column(String(64), default="")
    folder: Mapped[str]
    sha256: Mapped[str] = mapped_column(String(64), default="")
    summary: Mapped[dict[str, Any]] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(String(16), default="running")  # running | done | failed
    started_at: Mapped[datetime] = mapped_column(default=now)
    ended_at: Mapped[datetime | None]


class FindingRow(Base):
    """Result of one detector for one study on one route; `evidence` lists the slices, most anomalous first."""

    __tablename__ = "findings"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.study_id", onupdate="CASCADE"), index=True)
    patient_id: Mapped[str] = mapped_column(ForeignKey("patients.patient_id", onupdate="CASCADE"), index=True)
    route: Mapped[str] = mapped_column(String(64))
    model_sha256: Mapped[str] = mapped_column(String(64))
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.run_id"), index=True)
    score: Mapped[float]
    p_value: Mapped[float | None]
    n_calibration: Mapped[int] = mapped_column(default=0)
    guarantee: Mapped[str] = mapped_column(default="")
    flagged: Mapped[bool | None] = mapped_column(index=True)
    rule: Mapped[str] = mapped_column(String(64), default="")
    evidence: Mapped[list[Any]] = mapped_column(default=list)
    scored_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (UniqueConstraint("study_id", "route", "model_sha256"),)


class NotScored(Base):
    """A series that no route takes, or that its route cannot use, with the code of the reason."""

    __tablename__ = "not_scored"
    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[str] = mapped_column(ForeignKey("series.series_id", onupdate="CASCADE"), index=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.run_id"), index=True)
    code: Mapped[str] = mapped_column(String(40))
    sentence: Mapped[str]


class ExportRow(Base):
    """One object made from a finding, and its state at one destination.

    `object_uid` is the SOP Instance UID that we gave it, derived from run, model and finding, never from a patient.
    `state` is pending, sent or failed; `reason` gives the cause of a failure.
    """

    __tablename__ = "exports"
    id: Mapped[int] = mapped_column(primary_key=True)
    finding_id: Mapped[int] = mapped_column(ForeignKey("findings.id"), index=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.run_id"), index=True)
    kind: Mapped[str] = mapped_column(String(8))  # seg | sc | sr | ko
    object_uid: Mapped[str] = mapped_column(String(64))
    destination: Mapped[str] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    reason: Mapped[str] = mapped_column(default="")
    changed_at: Mapped[datetime] = mapped_column(default=now)
    __table_args__ = (UniqueConstraint("object_uid", "destination"),)


class TestOpening(Base):
    """One reading of the test set; each has a row, which the report prints."""

    __tablename__ = "test_openings"
    id: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.run_id"), index=True)
    purpose: Mapped[str]
    opened_at: Mapped[datetime] = mapped_column(default=now)

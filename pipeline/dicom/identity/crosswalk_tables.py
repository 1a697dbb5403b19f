"""Tables of the crosswalk, which hold real identifiers. They have their own metadata, so no migration touches them."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, ClassVar

from sqlalchemy import ForeignKey, LargeBinary, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pipeline.wall_clock import read_stored_time

if TYPE_CHECKING:
    from sqlalchemy import Table


def now() -> datetime:
    """Return the current time in UTC, without time zone."""
    return read_stored_time()


class CrosswalkBase(DeclarativeBase):
    """Declarative base of the crosswalk only."""

    if TYPE_CHECKING:
        __table__: ClassVar[Table]


class KeyState(CrosswalkBase):
    """The keys that made pseudonyms, by their id; exactly one is not retired."""

    __tablename__ = "keys"
    key_id: Mapped[str] = mapped_column(String(16), primary_key=True)
    since: Mapped[datetime] = mapped_column(default=now)
    retired_at: Mapped[datetime | None]


class Person(CrosswalkBase):
    """A Patient ID of an issuer (or site). Where the Patient ID is empty, `unnamed_study_uid` takes its place."""

    __tablename__ = "persons"
    person_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    issuer: Mapped[str]
    patient_id: Mapped[str] = mapped_column(index=True)
    unnamed_study_uid: Mapped[str] = mapped_column(default="")


class Study(CrosswalkBase):
    """A study's real identifiers."""

    __tablename__ = "studies"
    study_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    person_id: Mapped[str] = mapped_column(ForeignKey("persons.person_id", onupdate="CASCADE"), index=True)
    study_uid: Mapped[str] = mapped_column(index=True)
    accession_number: Mapped[str] = mapped_column(default="", index=True)
    study_date: Mapped[str] = mapped_column(default="")


class Series(CrosswalkBase):
    """A series' real identifier."""

    __tablename__ = "series"
    series_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    study_id: Mapped[str] = mapped_column(ForeignKey("studies.study_id", onupdate="CASCADE"), index=True)
    series_uid: Mapped[str]


class Instance(CrosswalkBase):
    """An instance's real identifier."""

    __tablename__ = "instances"
    instance_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    series_id: Mapped[str] = mapped_column(ForeignKey("series.series_id", onupdate="CASCADE"), index=True)
    sop_uid: Mapped[str]


class FrameOfReference(CrosswalkBase):
    """The real identifier of a frame of reference, which several series share (PS3.3 C.7.4.1)."""

    __tablename__ = "frames_of_reference"
    frame_of_reference_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    frame_of_reference_uid: Mapped[str]


class Path_(CrosswalkBase):
    """A file path, stored as bytes because file names need not be valid text."""

    __tablename__ = "paths"
    path_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    path: Mapped[bytes] = mapped_column(LargeBinary)


class FormerId(CrosswalkBase):
    """A pseudonym of a retired key and the one that replaced it, so that old reports can still be resolved."""

    __tablename__ = "former_ids"
    former_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    current_id: Mapped[str] = mapped_column(String(64), index=True)


class RotationMap(CrosswalkBase):
    """Renames of a rotation in progress; empty at all other times."""

    __tablename__ = "rotation_map"
    former_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    next_id: Mapped[str] = mapped_column(String(64))


metadata = CrosswalkBase.metadata

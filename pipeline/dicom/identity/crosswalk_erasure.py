"""Removal of a patient from the crosswalk: afterwards nothing leads from their pseudonym back to them."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, func, select

from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.crosswalk_tables import (
    FormerId,
    FrameOfReference,
    Instance,
    Path_,
    Person,
    Series,
    Study,
)

_AT_ONCE = 500


def list_identifiers(crosswalk: Crosswalk, lists: Mapping[str, Sequence[str]]) -> set[bytes]:
    """Return the real identifiers behind pseudonyms of `patients`, `studies`, `series` and `instances`, as bytes.

    PHI: for a search only. Empty ones are left out.
    """
    columns = (
        ("patients", Person.person_id, (Person.patient_id, Person.unnamed_study_uid)),
        ("studies", Study.study_id, (Study.study_uid, Study.accession_number)),
        ("series", Series.series_id, (Series.series_uid,)),
        ("instances", Instance.instance_id, (Instance.sop_uid,)),
    )
    with crosswalk.transaction() as connection:
        rows = [row for name, key, read in columns for row in _rows(connection, read, key, lists[name])]
    return {value.encode() for row in rows for value in row if value}


def list_paths(crosswalk: Crosswalk, lists: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the files that the patient's images came from, as `Settings.relative` writes them down. PHI."""
    with crosswalk.transaction() as connection:
        rows = _rows(connection, (Path_.path,), Path_.path_id, lists["paths"])
        return sorted(os.fsdecode(path) for (path,) in rows)


def list_former_ids(crosswalk: Crosswalk, pseudonyms: Collection[str]) -> set[str]:
    """Return the retired pseudonyms that these replaced."""
    with crosswalk.transaction() as connection:
        return {former for (former,) in _rows(connection, (FormerId.former_id,), FormerId.current_id, pseudonyms)}


def erase_identity(crosswalk: Crosswalk, lists: Mapping[str, Sequence[str]], shared_frames: Collection[str]) -> int:
    """Remove all that leads to a patient in one transaction, and return the number of rows.

    Paths that hold one of the patient's identifiers go as well, whatever came of those files.

    Args:
        crosswalk: an open one.
        lists: pseudonyms by kind: patients, studies, series, instances, frames, paths.
        shared_frames: frames of reference that images of others have, which stay.
    """
    named = [value for value in list_identifiers(crosswalk, lists) if len(value) >= 4]
    everybody = [
        one for name in ("patients", "studies", "series", "instances", "frames", "paths") for one in lists[name]
    ]
    with crosswalk.transaction() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA secure_delete=ON")
        paths = {*lists["paths"], *_paths_naming(connection, named)}
        gone = _delete(connection, FormerId, FormerId.current_id, everybody)
        gone += _delete(connection, Path_, Path_.path_id, paths)
        gone += _delete(connection, FrameOfReference, FrameOfReference.frame_of_reference_id,
                        set(lists["frames"]) - set(shared_frames))  # fmt: skip
        for table, key, name in (
            (Instance, Instance.instance_id, "instances"),
            (Series, Series.series_id, "series"),
            (Study, Study.study_id, "studies"),
            (Person, Person.person_id, "patients"),
        ):
            gone += _delete(connection, table, key, lists[name])
        return gone


def _paths_naming(connection: Connection, values: Sequence[bytes]) -> list[str]:
    rows = connection.execute(select(Path_.path_id, Path_.path))
    return [path_id for path_id, path in rows if any(value in bytes(path) for value in values)]


def _rows(connection: Connection, read: Sequence[Any], key: Any, values: Iterable[str]) -> Iterator[Any]:
    for part in _parts(values):
        yield from connection.execute(select(*read).where(key.in_(part)))


def _delete(connection: Connection, table: Any, key: Any, values: Iterable[str]) -> int:
    gone = 0
    for part in _parts(values):
        gone += connection.execute(select(func.count()).select_from(table).where(key.in_(part))).scalar_one()
        connection.execute(delete(table).where(key.in_(part)))
    return gone


def _parts(values: Iterable[str]) -> Iterator[list[str]]:
    ordered = sorted(set(values))
    return (ordered[start : start + _AT_ONCE] for start in range(0, len(ordered), _AT_ONCE))

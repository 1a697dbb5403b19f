"""Crosswalk: the table from pseudonyms back to real identifiers, needed to return results to the real study.

It has its own database and tables, apart from the catalogue, mode 0600 in a folder of mode 0700 (SQLite gives its
`-wal` and `-shm` files the mode of the database). It is written before the catalogue stores a pseudonym, so every
pseudonym in the catalogue can be resolved, and it records which key made them.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Table, bindparam, func, select

from pipeline.config import Settings
from pipeline.dicom.decode.attributes import RawIdentity
from pipeline.dicom.identity.crosswalk_database import bind_key, open_engine, read_current_key, translate_errors, upsert
from pipeline.dicom.identity.crosswalk_rows import rows_of
from pipeline.dicom.identity.crosswalk_tables import (
    FormerId,
    FrameOfReference,
    Instance,
    Path_,
    Person,
    Series,
    Study,
)
from pipeline.dicom.identity.keyfile import read_key
from pipeline.dicom.identity.pseudonyms import Ids, Kind, Pseudonyms, trim
from pipeline.errors import IdentityError

if TYPE_CHECKING:
    from sqlalchemy import BindParameter

_REMEMBERED = 100_000  # rows remembered in memory, so that a study of 2 000 slices writes its patient only once


class Crosswalk:
    """Real identifiers behind pseudonyms. PHI: never print, log or commit its results, except where a person asks."""

    def __init__(self, engine: Engine, settings: Settings, key_id: str) -> None:
        self.engine = engine
        self.key_id = key_id
        self._settings = settings
        self._open: Connection | None = None
        self._known: set[tuple[str, ...]] = set()

    @classmethod
    def open(cls, settings: Settings) -> Crosswalk:
        """Open the workspace's crosswalk, creating it on first use, and check that the pseudonym key is its own.

        Raises:
            IdentityError: its file is exposed, it was written with another key, or the key is missing.
        """
        if settings.key_file.exists():
            read_key(settings.key_file)  # before a database is made: nothing is written under a key that is not there
        engine = open_engine(settings)
        try:
            with translate_errors():
                current = read_current_key(engine)
            if current and not settings.key_file.exists():
                raise IdentityError(
                    "The pseudonym key is missing, but the crosswalk holds pseudonyms made with it. Restore the key "
                    "file from your backup; a new key would give every known patient a second pseudonym."
                )
            with Pseudonyms.open(settings) as pseudonyms, translate_errors():
                bind_key(engine, pseudonyms.key_id)
                return cls(engine, settings, pseudonyms.key_id)
        except BaseException:
            engine.dispose()
            raise

    def __enter__(self) -> Crosswalk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self.engine.dispose()

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Group many `remember` calls into one durable commit; nested calls join the outer one."""
        if self._open is not None:
            yield self._open
            return
        try:
            with translate_errors(), self.engine.begin() as connection:
                self._open = connection
                yield connection
        except BaseException:
            self._known.clear()  # rows of the failed transaction are not in the database
            raise
        finally:
            self._open = None

    def remember(self, ids: Ids, identity: RawIdentity) -> None:
        """Record the real identifiers behind the pseudonyms; recording them again changes nothing.

        Raises:
            IdentityError: the pseudonyms were made with another key than the crosswalk's.
        """
        self.remember_many([(ids, identity)])

    def remember_many(self, entries: Iterable[tuple[Ids, RawIdentity]]) -> None:
        """Do what `remember` does for each entry in turn, all or none, in a fraction of the time.

        Raises:
            IdentityError: pseudonyms were made with another key than the crosswalk's.
        """
        fresh: dict[Table, dict[tuple[str, ...], dict[str, str]]] = defaultdict(dict)
        for ids, identity in entries:
            if ids.key_id and ids.key_id != self.key_id:
                raise IdentityError(
                    "These pseudonyms were made with a key that has been rotated since. Run the command again."
                )
            for table, row in rows_of(ids, identity, self._settings.site):
                key = (table.name, *row.values())
                if key not in self._known:
                    fresh[table].setdefault(key, row)
        with self.transaction() as connection:
            for table in _PARENTS_FIRST:
                upsert(connection, table, _ordered(table, fresh[table].values()))
                self._learn(fresh[table])

    def remember_path(self, path_id: str, path: str | Path) -> None:
        """Record the path behind a path pseudonym."""
        self.remember_paths([(path_id, path)])

    def remember_paths(self, paths: Iterable[tuple[str, str | Path]]) -> None:
        """Record the paths behind path pseudonyms, as `Settings.relative` writes them down, all or none."""
        rows = [{"path_id": path_id, "path": os.fsencode(path)} for path_id, path in paths]
        with self.transaction() as connection:
            upsert(connection, Path_.__table__, _ordered(Path_.__table__, rows))

    def _learn(self, keys: Iterable[tuple[str, ...]]) -> None:
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        # Each instance arrives only once, so remembering it would only fill memory.
        self._known.update(key for key in keys if key[0] != "instances")

    def find_identity(self, pseudonym: str) -> RawIdentity:
        """Return the identifiers behind a pseudonym of anything but a path, retired pseudonyms included.

        Fields below the level of the pseudonym are "".

        Raises:
            IdentityError: the pseudonym is not in the crosswalk.
        """
        with self.transaction() as connection:
            current = _current(connection, pseudonym)
            for statement in _LEVELS:
                row = connection.execute(statement, {"id": current}).mappings().first()
                if row is not None:
                    return RawIdentity(**{name: value or "" for name, value in row.items()})
        raise IdentityError(
            f"The pseudonym {pseudonym[:12]} is not in this workspace's crosswalk. Check it, and the workspace (-w)."
        )

    def reveal(self, pseudonym: str) -> dict[str, str]:
        """Return the non-empty real identifiers (or the path) behind any pseudonym, by name.

        Raises:
            IdentityError: the pseudonym is not in the crosswalk.
        """
        path = self.find_path(pseudonym)
        if path is not None:
            return {"path": path}
        identity = self.find_identity(pseudonym)
        return {name: value for name in RawIdentity.__slots__ if (value := getattr(identity, name))}

    def find_path(self, path_id: str) -> str | None:
        """Return the absolute path behind a path pseudonym, or None where it is not in the crosswalk."""
        with self.transaction() as connection:
            query = select(Path_.path).where(Path_.path_id == _current(connection, path_id))
            path = connection.execute(query).scalar()
        return None if path is None else str(self._settings.absolute(os.fsdecode(path)))

    def find_studies(
        self, *, study_uid: str = "", accession: str = "", patient_id: str = "", date: str = "", issuer: str = ""
    ) -> list[str]:
        """Return the pseudonyms of the studies that match all identifiers given, sorted; without any, no study.

        `date` is YYYYMMDD. `patient_id` alone matches all studies of the person under any issuer.
        """
        arguments = zip(_SEARCHED, map(trim, (study_uid, accession, patient_id, date, issuer)), strict=True)
        criteria = {name: value for name, value in arguments if value}
        if not criteria:
            return []
        with self.transaction() as connection:
            return sorted(connection.execute(_search(tuple(criteria)), criteria).scalars())

    def find_study_dates(self, study_ids: Collection[str]) -> dict[str, str]:
        """Return the study date (YYYYMMDD, as the files had it) of each study pseudonym that has one."""
        query = select(Study.study_id, Study.study_date).where(Study.study_id.in_(study_ids), Study.study_date != "")
        with self.transaction() as connection:
            return {row.study_id: row.study_date for row in connection.execute(query)}

    def find_patients(self, patient_id: str, issuer: str = "") -> list[str]:
        """Return the pseudonyms of a Patient ID, sorted: of all its issuers, or only of `issuer`.

        An empty Patient ID matches nobody.
        """
        query = select(Person.person_id).where(Person.patient_id == trim(patient_id), Person.unnamed_study_uid == "")
        if trim(issuer):
            query = query.where(Person.issuer == trim(issuer))
        if not trim(patient_id):
            return []
        with self.transaction() as connection:
            return sorted(connection.execute(query).scalars())

    def has_patient(self, pseudonym: str) -> bool:
        """Return whether a patient has this pseudonym, also one whose every file was refused."""
        query = select(Person.person_id).where(Person.person_id == pseudonym)
        with self.transaction() as connection:
            return connection.execute(query).scalar() is not None

    def current_id(self, pseudonym: str) -> str:
        """Return the pseudonym that replaced one retired by a key rotation; others are returned unchanged."""
        with self.transaction() as connection:
            return _current(connection, pseudonym)

    def count(self, kind: Kind) -> int:
        """Return the number of pseudonyms of a kind in the crosswalk."""
        tables = {"patient": Person, "study": Study, "series": Series, "instance": Instance, "path": Path_}
        tables["frame-of-reference"] = FrameOfReference
        with self.transaction() as connection:
            return connection.execute(select(func.count()).select_from(tables[kind])).scalar_one()


_PARENTS_FIRST: tuple[Table, ...] = tuple(
    table.__table__ for table in (Person, Study, Series, Instance, FrameOfReference)
)


def _ordered(table: Table, rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sort rows by pseudonym: processes that lock rows in one order cannot deadlock. The sort is stable."""
    (key,) = table.primary_key.columns.keys()
    return sorted(rows, key=lambda row: row[key])


_SEARCHED: dict[str, Any] = {
    "study_uid": Study.study_uid,
    "accession": Study.accession_number,
    "patient_id": Person.patient_id,
    "date": Study.study_date,
    "issuer": Person.issuer,
}


@cache
def _search(names: tuple[str, ...]) -> Any:
    """Return the query for these identifiers, built once because building it takes longer than running it."""
    conditions = [_SEARCHED[name] == bindparam(name) for name in names]
    return select(Study.study_id).join(Person, Person.person_id == Study.person_id).where(*conditions)


_PERSON = (Person.issuer, Person.patient_id)
_STUDY = (*_PERSON, Study.study_uid, Study.accession_number, Study.study_date)
_TO_STUDY = Series.__table__.join(Study).join(Person)
_TO_SERIES = Instance.__table__.join(Series).join(Study).join(Person)


def _levels() -> tuple[Any, ...]:
    pseudonym: BindParameter[str] = bindparam("id")
    return (
        select(*_STUDY, Series.series_uid, Instance.sop_uid)
        .select_from(_TO_SERIES)
        .where(Instance.instance_id == pseudonym),
        select(*_STUDY, Series.series_uid).select_from(_TO_STUDY).where(Series.series_id == pseudonym),
        select(*_STUDY).select_from(Study.__table__.join(Person)).where(Study.study_id == pseudonym),
        select(*_PERSON).where(Person.person_id == pseudonym),
        select(FrameOfReference.frame_of_reference_uid).where(FrameOfReference.frame_of_reference_id == pseudonym),
    )


_LEVELS = _levels()


def _current(connection: Connection, pseudonym: str) -> str:
    query = select(FormerId.current_id).where(FormerId.former_id == pseudonym)
    return connection.execute(query).scalar() or pseudonym

"""Access to the crosswalk's database: private file, pragmas, upserts, and the key that it is bound to."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, Table, create_engine, event, func, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError

from pipeline.config import Settings
from pipeline.dicom.identity.crosswalk_tables import KeyState, metadata
from pipeline.dicom.identity.keyfile import check_private, make_private_folder
from pipeline.errors import ConfigError, IdentityError

_INSERTS = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}
_CREATOR_LOCK = 0x63726F7373  # any fixed number that no other advisory lock uses: "cross" in ASCII


def open_engine(settings: Settings) -> Engine:
    """Open the crosswalk's database with its tables; an SQLite file gets mode 0600 before the first byte is written.

    Errors of the engine never show bound values, because those are real identifiers.

    Raises:
        ConfigError: the URL names neither SQLite nor PostgreSQL.
        IdentityError: the file is exposed, or the database cannot be opened.
    """
    url = make_url(settings.crosswalk)
    if url.get_backend_name() not in _INSERTS:
        raise ConfigError(f"crosswalk_url names the database {url.get_backend_name()}. Use sqlite or postgresql.")
    if url.drivername == "postgresql":  # SQLAlchemy would take psycopg2, which is not a dependency
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite":
        return _open_file(url, settings.database_wait_seconds)
    engine = create_engine(url, hide_parameters=True)
    _create_tables(engine)
    return engine


def _open_file(url: URL, wait_seconds: float) -> Engine:
    path = Path(url.database or "")
    make_private_folder(path.parent)
    with _alone(path, wait_seconds):
        _private_file(path)
        # The driver sets the busy timeout on connecting, before the pragmas run, which may have to wait for a lock.
        engine = create_engine(url, connect_args={"timeout": wait_seconds}, hide_parameters=True)
        event.listen(engine, "connect", _pragmas)
        _create_tables(engine)
    return engine


@contextmanager
def _alone(path: Path, wait_seconds: float) -> Iterator[None]:
    """Let one process at a time create the file: SQLite does not wait for others when it changes the journal mode."""
    lock = FileLock(f"{path}.lock", timeout=wait_seconds, mode=0o600, poll_interval=0.01)
    try:
        lock.acquire()
    except Timeout:
        raise IdentityError(
            f"The crosswalk has been locked by another process for {wait_seconds:g} s. Find the nightread process that "
            "hangs, stop it, and run the command again."
        ) from None
    try:
        yield
    finally:
        lock.release()


def _create_tables(engine: Engine) -> None:
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":  # concurrent CREATE TABLEs collide in its system tables
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATOR_LOCK})
            metadata.create_all(connection)
    except DBAPIError as error:
        engine.dispose()
        sqlite = isinstance(error.orig, sqlite3.Error)
        step = "Free the disk, or end what locks the file" if sqlite else "Check that its database is running"
        raise IdentityError(
            f"The crosswalk cannot be opened ({type(error.orig).__name__}). {step}, and run the command again."
        ) from None


@contextmanager
def translate_errors() -> Iterator[None]:
    """Turn errors of the database into an IdentityError without bound values, which are real identifiers.

    Raises:
        IdentityError: the database is locked, full, read-only or unreachable.
    """
    try:
        yield
    except DBAPIError as error:
        reason = str(error.orig).strip().split("\n")[0] if isinstance(error.orig, sqlite3.Error) else ""
        own = IdentityError(
            f"The crosswalk could not be used: {reason or type(error.orig).__name__}. Nothing of this step was saved "
            "in it; remove the cause and repeat the step."
        )
        own.passing = True
        raise own from None


def _private_file(path: Path) -> None:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))  # created private, never chmod-ed later
    except FileExistsError:
        check_private(path.stat(), "crosswalk")


def _pragmas(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # in WAL mode only FULL survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def read_current_key(engine: Engine) -> str:
    """Return the id of the key that made the crosswalk's pseudonyms, "" where it has none yet."""
    with engine.connect() as connection:
        return connection.execute(select(KeyState.key_id).where(KeyState.retired_at.is_(None))).scalar() or ""


def bind_key(engine: Engine, key_id: str) -> None:
    """Record the key of a new crosswalk, or check that an existing crosswalk was made with it.

    Raises:
        IdentityError: its pseudonyms were made with another key.
    """
    with engine.begin() as connection:
        bound = connection.execute(select(KeyState.key_id).where(KeyState.retired_at.is_(None))).scalar()
        if bound is None:
            upsert(connection, KeyState.__table__, [{"key_id": key_id}])
        elif bound != key_id:
            raise IdentityError(
                f"The pseudonym key ({key_id}) is not the one that made this crosswalk's pseudonyms ({bound}). Restore "
                "the right key file from your backup."
            )


def upsert(connection: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert rows, or fill in fields that were empty (an accession number that only some files of a study carry).

    All rows go in one call: SQLAlchemy recompiles an insert with a conflict clause on every call, in about 1 ms.
    """
    if rows:
        connection.execute(_statement(connection.dialect.name, table), rows)


@cache
def _statement(dialect: str, table: Table) -> Any:
    insert: Any = _INSERTS[dialect](table)
    keys = list(table.primary_key.columns)
    filled = {
        name: func.coalesce(func.nullif(table.c[name], ""), insert.excluded[name])
        for name in ("accession_number", "study_date")
        if name in table.c
    }
    if not filled:
        return insert.on_conflict_do_nothing(index_elements=keys)
    return insert.on_conflict_do_update(index_elements=keys, set_=filled)

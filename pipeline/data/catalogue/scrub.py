"""Rewrite a database, so that deleted rows are no longer in its files."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from pipeline.data.catalogue.database import BUSY_SECONDS, translate_errors
from pipeline.errors import CatalogueError


def scrub(engine: Engine) -> str:
    """Rewrite a database without what was deleted, its write-ahead log included; return a sentence on what is left.

    SQLite: VACUUM copies the live rows into a new file, and the log is emptied. PostgreSQL: VACUUM FULL does the same
    table by table, but the server's own write-ahead log, its archive and its replicas hold the old rows until they
    expire, which no client can change.

    Raises:
        CatalogueError: somebody else has the database open and does not let go.
    """
    if engine.dialect.name == "postgresql":
        with (
            translate_errors("be rewritten after an erasure"),
            engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        ):
            connection.execute(text("VACUUM FULL"))
        return "PostgreSQL's write-ahead log, its archive and replicas, until they expire"
    raw = engine.raw_connection()
    try:
        _rewrite(raw.driver_connection)
    finally:
        raw.close()
    return ""


def scrub_file(path: Path, statements: Sequence[str] = ()) -> int:
    """Run statements on another program's SQLite file, rewrite it, and return the number of rows that they changed.

    A statement about a table that the file does not have changes nothing.

    Raises:
        CatalogueError: see `scrub`.
    """
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    changed = 0
    try:
        connection.execute("PRAGMA secure_delete=ON")
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for statement in statements:
            if not tables.isdisjoint(statement.split()):
                changed += max(0, connection.execute(statement).rowcount)
        _rewrite(connection)
    finally:
        connection.close()
    return changed


def _rewrite(connection: Any) -> None:
    try:
        connection.execute("PRAGMA secure_delete=ON")
        connection.execute("VACUUM")
        busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.Error as error:
        raise _in_use(str(error)) from None
    if busy:
        raise _in_use("its write-ahead log is being read")


def _in_use(reason: str) -> CatalogueError:
    return CatalogueError(
        f"A database could not be rewritten after an erasure: {reason}. Stop the review app, MLflow's and Prefect's "
        "servers and running nights, and run nightread forget again: it continues where it stopped."
    )

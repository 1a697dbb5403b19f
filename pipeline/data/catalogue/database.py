"""Access to the catalogue's database: SQLite or PostgreSQL by URL, with pragmas, locks and migrations."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pipeline import durable
from pipeline.data import migrations
from pipeline.data.migrations import HEAD, UNRELEASED
from pipeline.errors import CatalogueError, ConfigError

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

BUSY_SECONDS = 60.0
# One connection for each of the web server's 40 threads; who waits for one waits as long as for the database.
_POOL: dict[str, Any] = {"pool_size": 10, "max_overflow": 30, "pool_timeout": BUSY_SECONDS}
Id = TypeVar("Id", int, str)
CHUNK = 5_000  # pseudonyms per query; SQLite allows 32 766 variables, PostgreSQL 65 535
# One lock for all writers makes PostgreSQL behave like SQLite, which has a single writer.
_WRITER_LOCK = 0x6E69676874  # "night"
_BEGIN = "nightread_begin"


def open_engine(url: str, wait_seconds: float = BUSY_SECONDS) -> Engine:
    """Return an engine for an SQLite or PostgreSQL URL; its errors never show bound values.

    Args:
        url: the database.
        wait_seconds: how long an SQLite database that another process is writing is waited for.

    Raises:
        ConfigError: the URL is not valid, or names another database.
    """
    target = _parsed(url)
    if target.get_backend_name() == "postgresql":
        return create_engine(target, pool_pre_ping=True, hide_parameters=True, **_POOL)
    if target.database and target.database != ":memory:" and not target.database.startswith("file:"):
        _make_private(Path(target.database))
    engine = create_engine(target, connect_args={"timeout": wait_seconds}, hide_parameters=True, **_POOL)
    event.listen(engine, "connect", partial(_set_pragmas, wait_seconds))
    event.listen(engine, "begin", _begin)
    return engine


def _parsed(url: str) -> URL:
    try:
        target = make_url(url)
    except ArgumentError:
        sentence = (
            f"catalogue_url is not an SQLAlchemy URL (it starts with {url[:12]!r}). Write it like sqlite:///file."
        )
        raise ConfigError(sentence) from None
    if target.get_backend_name() not in {"sqlite", "postgresql"}:
        name = target.get_backend_name()
        raise ConfigError(f"catalogue_url names the database {name}. Use sqlite or postgresql.")
    # For a bare postgresql:// SQLAlchemy would take psycopg2, which is not a dependency.
    return target.set(drivername="postgresql+psycopg") if target.drivername == "postgresql" else target


def _make_private(file: Path) -> None:
    """Create the workspace and the file, if they are missing, before SQLite would create a file that all may read."""
    try:
        durable.make_private(file.parent)
        durable.create_database(file)
    except OSError as error:
        sentence = f"The catalogue cannot be created: {error.strerror}. Check the path and its permissions."
        raise CatalogueError(sentence) from None


def _set_pragmas(wait_seconds: float, connection: Any, _record: Any) -> None:
    # The driver must not open transactions itself: it would do so too late for BEGIN IMMEDIATE.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={int(wait_seconds * 1000)}")
    _enter_wal_mode(cursor, wait_seconds)
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute("PRAGMA synchronous=FULL")  # in WAL mode a power cut may lose commits otherwise
    cursor.close()


def _enter_wal_mode(cursor: sqlite3.Cursor, wait_seconds: float) -> None:
    """Switch a new database to WAL, again and again while others do the same.

    SQLite answers SQLITE_BUSY at once there, whatever the busy timeout: two who upgrade their locks would never end.
    """
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))


def writing(engine: Engine) -> Engine:
    """Return the engine with transactions that take SQLite's write lock at once.

    A transaction that reads first and then writes could fail at that point, because another writer was faster.
    """
    return engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})


def lock_writers(connection: Connection) -> None:
    """Wait until this transaction is the only writer (on PostgreSQL; SQLite is locked by its BEGIN)."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITER_LOCK})


def migrate(engine: Engine) -> None:
    """Bring the tables to the newest revision; safe when two processes do so at once.

    Raises:
        CatalogueError: the database was written by a newer Nightread, or by one before the first release.
    """
    revision = _revision(engine)
    if revision == HEAD:
        return
    if revision in UNRELEASED:
        raise CatalogueError(
            f"The catalogue has revision {revision}, from a development version before the first release, but this "
            f"version reads revision {HEAD} and later. Ingest into a new workspace: nightread -w NEW ingest FOLDER"
        )
    from alembic.util import CommandError

    with writing(engine).begin() as connection:
        lock_writers(connection)
        try:
            run_revisions(connection)
        except CommandError as error:
            raise CatalogueError(
                f"The catalogue cannot be migrated to this version: {error}. It was written by a newer Nightread: "
                "use that version."
            ) from None


def _revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not connection.dialect.has_table(connection, "alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def run_revisions(connection: Connection, down_to: str | None = None) -> None:
    """Run all missing revisions, or undo those after `down_to` ("base": all of them).

    `alembic.command` is not used because it keeps its state in module-level proxies, which threads of one process
    overwrite for each other (MLflow and Prefect run theirs in ours). Each revision receives its own operations instead.

    Raises:
        CommandError: the database is at an unknown revision.
    """
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    script = revisions()

    def steps(current: Any, _context: MigrationContext) -> Any:
        if down_to is None:
            return script._upgrade_revs("head", current)
        return script._downgrade_revs(down_to, current)

    # The caller's transaction holds the writers' lock and covers all revisions.
    context = MigrationContext.configure(connection, opts={"fn": steps, "transactional_ddl": True})
    context.run_migrations(op=Operations(context))


def revisions() -> ScriptDirectory:
    """Return the migration scripts inside the installed package."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(migrations.__file__).parent))


def chunks(ids: Collection[Id]) -> Iterator[list[Id]]:
    """Split sorted pseudonyms, or numbers of rows, into parts small enough for one query."""
    ordered = sorted(ids)
    return (ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK))


@contextlib.contextmanager
def translate_errors(what: str) -> Iterator[None]:
    """Turn errors of the database into a CatalogueError without bound values."""
    try:
        yield
    except SQLAlchemyError as error:
        reason = reason_of(error)
        raise CatalogueError(
            f"The catalogue could not {what}: {reason}. This step was rolled back; remove the cause and repeat it."
        ) from None


def reason_of(error: SQLAlchemyError) -> str:
    """Return the driver's first message, in one line and without bound values.

    The first, because a full disk makes SQLite roll back by itself; later errors only report the lost savepoint.
    """
    while isinstance(error.__context__, SQLAlchemyError):
        error = error.__context__
    return str(getattr(error, "orig", None) or type(error).__name__).strip().split("\n")[0]

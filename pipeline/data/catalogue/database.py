"""Opening the catalogue's database: SQLite or PostgreSQL by URL, its pragmas and locks, and its migrations."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from pipeline.data import migrations
from pipeline.data.migrations import HEAD, UNRELEASED
from pipeline.errors import CatalogueError, ConfigError

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

BUSY_SECONDS = 60.0
CHUNK = 5_000  # pseudonyms per query; SQLite takes 32 766 variables, PostgreSQL 65 535
# One lock for everything that reads, decides and writes; PostgreSQL then behaves as SQLite with its single writer.
_WRITER_LOCK = 0x6E69676874  # "night"
_BEGIN = "nightread_begin"


def open_engine(url: str) -> Engine:
    """Return an engine for a SQLite or PostgreSQL URL; its errors never show bound values.

    Raises:
        ConfigError: the URL is not understood, or its driver is not installed.
    """
    target = _parsed(url)
    if target.get_backend_name() == "postgresql":
        return create_engine(target, pool_pre_ping=True, hide_parameters=True)
    if target.database and target.database != ":memory:":
        _make_folder(Path(target.database).parent)
    engine = create_engine(target, connect_args={"timeout": BUSY_SECONDS}, hide_parameters=True)
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return engine


def _parsed(url: str) -> URL:
    try:
        target = make_url(url)
    except ArgumentError:
        raise ConfigError(f"catalogue_url is no SQLAlchemy URL (it starts with {url[:12]!r}).") from None
    if target.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ConfigError(f"The catalogue lives in SQLite or PostgreSQL, not in {target.get_backend_name()}.")
    # A bare postgresql:// would mean psycopg2, which is no dependency.
    return target.set(drivername="postgresql+psycopg") if target.drivername == "postgresql" else target


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CatalogueError(f"The folder of the catalogue cannot be made: {error.strerror}.") from None


def _set_pragmas(connection: Any, _record: Any) -> None:
    # The driver must not open transactions by itself: it would start them too late for BEGIN IMMEDIATE.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={int(BUSY_SECONDS * 1000)}",
        "journal_mode=WAL",
        "foreign_keys=ON",
        "synchronous=FULL",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get(_BEGIN, "BEGIN"))


def writing(engine: Engine) -> Engine:
    """Return the engine whose SQLite transactions take the write lock at once, so that none fails half-way."""
    return engine.execution_options(**{_BEGIN: "BEGIN IMMEDIATE"})


def lock_writers(connection: Connection) -> None:
    """Wait until this transaction is the only writer (PostgreSQL; SQLite is locked by its BEGIN)."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _WRITER_LOCK})


def migrate(engine: Engine) -> None:
    """Bring the tables to the newest revision; two processes may do so at once.

    Raises:
        CatalogueError: the database is of a newer Nightread, or of one before the first release.
    """
    revision = _revision(engine)
    if revision == HEAD:
        return
    if revision in UNRELEASED:
        raise CatalogueError(
            f"The catalogue has revision {revision}, of a development version before the first release, and this "
            f"version reads revision {HEAD} and later. Ingest into a new workspace: nightread -w NEW ingest FOLDER"
        )
    from alembic.util import CommandError

    with writing(engine).begin() as connection:
        lock_writers(connection)
        try:
            run_revisions(connection)
        except CommandError as error:
            raise CatalogueError(
                f"The catalogue cannot be brought to this version: {error}. It was written by a newer Nightread: "
                "use that one."
            ) from None


def _revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not connection.dialect.has_table(connection, "alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def run_revisions(connection: Connection, down_to: str | None = None) -> None:
    """Run the revisions that are missing up to the newest one, or undo those after `down_to` ("base": all of them).

    Not by `alembic.command`: that keeps its state in module-level proxies, which threads of one process overwrite for
    each other (MLflow and Prefect run theirs in ours), so each revision is handed its own operations instead.

    Raises:
        CommandError: the database stands at a revision that is not among ours.
    """
    from alembic.operations import Operations
    from alembic.runtime.migration import MigrationContext

    script = revisions()

    def steps(stands_at: Any, _context: MigrationContext) -> Any:
        if down_to is None:
            return script._upgrade_revs("head", stands_at)
        return script._downgrade_revs(down_to, stands_at)

    # The caller's transaction holds the writers' lock and covers every revision.
    context = MigrationContext.configure(connection, opts={"fn": steps, "transactional_ddl": True})
    context.run_migrations(op=Operations(context))


def revisions() -> ScriptDirectory:
    """Return the revisions inside the installed package."""
    from alembic.script import ScriptDirectory

    return ScriptDirectory(str(Path(migrations.__file__).parent))


def chunks(pseudonyms: Collection[str]) -> Iterator[list[str]]:
    """Split pseudonyms, sorted, into parts that one query may name."""
    ordered = sorted(pseudonyms)
    return (ordered[start : start + CHUNK] for start in range(0, len(ordered), CHUNK))


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn what the database says into a CatalogueError that names no bound value."""
    try:
        yield
    except SQLAlchemyError as error:
        reason = reason_of(error)
        raise CatalogueError(
            f"The catalogue could not {what}: {reason}. Nothing of this step was kept; repair the cause and repeat it."
        ) from None


def reason_of(error: SQLAlchemyError) -> str:
    """Return what the driver said first, in one line and without bound values.

    First, because a full disk makes SQLite roll back by itself, and what then complains is the lost savepoint.
    """
    while isinstance(error.__context__, SQLAlchemyError):
        error = error.__context__
    return str(getattr(error, "orig", None) or type(error).__name__).strip().split("\n")[0]

"""Catalogue of patients, studies, series and instances, of rejections, and of the runs and their findings.

SQLite in WAL mode by default, PostgreSQL by URL. Pseudonyms and allow-listed attributes only. Writers wait for each
other on both databases (SQLite by its nature, PostgreSQL by an advisory lock), so a session that reads, decides and
writes never decides on stale rows. Readers never wait.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, func, select
from sqlalchemy.orm import Session, sessionmaker

from pipeline.data.catalogue import (  # noqa: F401
    erasure_schema,
    operations_schema,
    retention_schema,
    review_schema,
    watch_schema,
)
from pipeline.data.catalogue.admission import Arrival, Outcome, admit
from pipeline.data.catalogue.database import BUSY_SECONDS, lock_writers, migrate, open_engine, translate_errors, writing
from pipeline.data.catalogue.run_records import RunRecords
from pipeline.data.catalogue.schema import RejectionRow, SourceFile, now
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.errors import CatalogueError, ConfigError, Rejected, RejectionCode

if TYPE_CHECKING:
    from pipeline.config import Settings
    from pipeline.dicom.identity.pseudonyms import Ids


class Catalogue(RunRecords):
    """An open catalogue; use it as a context manager or `close()` it. Safe to share between threads."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._write = sessionmaker(writing(engine), expire_on_commit=False)
        self._writers = threading.Lock()
        self._read = sessionmaker(engine, expire_on_commit=False)

    @staticmethod
    def check_exists(settings: Settings) -> None:
        """Refuse a workspace without a catalogue, as a wrong -w names it, where opening would create an empty one.

        Raises:
            ConfigError: it has no catalogue.
        """
        if settings.catalogue_url is None and not (settings.workspace / "catalogue.db").exists():
            raise ConfigError(
                "There is no catalogue in this workspace yet, so nothing can be reported. Choose another one with -w, "
                "or begin with nightread nightly FOLDER"
            )

    @classmethod
    def open(cls, settings: Settings) -> Catalogue:
        """Open the workspace's catalogue, creating it or migrating it to this version's tables.

        Raises:
            CatalogueError: the database cannot be reached or written, or was written by a newer version.
            ConfigError: the URL is not valid.
        """
        engine = open_engine(settings.catalogue, settings.database_wait_seconds)
        try:
            with translate_errors("be opened"):
                migrate(engine)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine)

    def close(self) -> None:
        """Close the database."""
        self.engine.dispose()

    def __enter__(self) -> Catalogue:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """A writing transaction, the only one at a time; commits on success, otherwise rolls back entirely.

        Do not nest it, and keep it short: other writers wait. Loaded rows stay readable afterwards.

        Raises:
            CatalogueError: any error of the database, without bound values.
        """
        with translate_errors("be written"), self._turn(), self._write.begin() as session:
            lock_writers(session.connection())
            yield session

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for this process's other writers without a connection, so that those who read find one.

        Raises:
            CatalogueError: another writer holds the catalogue for longer than the database would wait for it.
        """
        if not self._writers.acquire(timeout=BUSY_SECONDS):
            raise CatalogueError(
                f"The catalogue could not be written: another task of this process has been writing for more than "
                f"{BUSY_SECONDS:g} seconds. Nothing of this step was saved; repeat it."
            )
        try:
            yield
        finally:
            self._writers.release()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """A reading transaction: never waits, sees one consistent state, and saves no changes."""
        with translate_errors("be read"), self._read() as session:
            yield session

    def add_instance(
        self,
        session: Session,
        ids: Ids,
        attributes: InstanceAttributes,
        content_hash: str = "",
        pixel_key: str = "",
        *,
        image_is_subject: bool = False,
    ) -> Outcome:
        """Add one instance whose pixels are in the store; `admit` does the same for a batch.

        An empty `content_hash` is computed. Returns whether it was added, was the same, or is a new version.

        Raises:
            Rejected: a conflicting duplicate, or attributes that the database cannot store.
        """
        arrival = Arrival(ids, attributes, pixel_key, image_is_subject, content_hash)
        outcome = admit(session, [arrival])[0]
        if isinstance(outcome, Rejected):
            raise outcome
        return outcome

    def add_rejection(
        self, session: Session, subject: str, level: str, code: RejectionCode | str, sentence: str
    ) -> None:
        """Record a refused file, instance or series (`subject`: its pseudonym); a repetition only updates its date."""
        values: dict[str, Any] = {"subject": subject, "code": str(code), "level": level, "sentence": sentence}
        row = session.scalar(
            select(RejectionRow).where(RejectionRow.subject == subject, RejectionRow.code == values["code"])
        )
        if row is None:
            session.add(RejectionRow(**values))
            session.flush()
        else:
            row.level, row.sentence, row.last_seen_at = level, sentence, now()

    def count_rejections(self) -> dict[str, int]:
        """Return the number of refused subjects per code."""
        query = select(RejectionRow.code, func.count()).group_by(RejectionRow.code).order_by(RejectionRow.code)
        with self.reading() as session:
            return {code: count for code, count in session.execute(query)}

    def list_rejections(self, with_settled: bool = False) -> list[RejectionRow]:
        """Return what is refused, oldest first.

        A rejection stays on record when its file is read again and is accepted or refused for another reason; such ones
        are returned `with_settled` only.
        """
        query = select(RejectionRow).order_by(RejectionRow.id)
        if not with_settled:
            query = query.outerjoin(SourceFile, SourceFile.path_id == RejectionRow.subject)
            query = query.where(SourceFile.outcome.is_(None) | (SourceFile.outcome == RejectionRow.code))
        with self.reading() as session:
            return list(session.scalars(query))

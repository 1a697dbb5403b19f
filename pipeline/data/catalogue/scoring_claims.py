"""Claims of studies on a scoring run, by which several processes share its studies and each study is scored once.

A worker takes a few studies at a time, under a lease that it renews while it lives; what a dead worker had taken is
free again when the lease ends. A worker that was merely slow (a suspended machine) and reports after another has taken
over is refused. When nothing is left, the results become findings, the run ends and its claims go, in one transaction:
a kill at any point leaves either claims that the next worker continues, or a run that has ended.

Chunks shrink towards the end (guided self-scheduling, Polychronopoulos and Kuck 1987), so that workers end together.
"""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.database import chunks
from pipeline.data.catalogue.operations_schema import ScoringClaim
from pipeline.data.catalogue.run_records import begin_run
from pipeline.data.catalogue.schema import FindingRow, RunRow, Series, Study, now
from pipeline.wall_clock import read_utc

LEASE_SECONDS = 120.0
MOST = 32  # studies that a worker takes at once
DEATHS = 3  # workers that may die over one study before it is given up

OPEN, TAKEN, DONE, LEFT = "open", "taken", "done", "left"


@dataclass(frozen=True, slots=True)
class Taken:
    """Studies that a worker has taken, and those that are given up since workers died over them."""

    studies: tuple[str, ...] = ()
    given_up: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Claims:
    """A worker's share in a scoring run.

    Attributes:
        catalogue: the open catalogue.
        run_id: the scoring run.
        worker: name of this worker, unlike any other's.
    """

    catalogue: Catalogue
    run_id: str
    worker: str

    def take(self) -> Taken:
        """Take the next studies; () if none is free.

        A study that a worker died with is taken alone and last, so that one which kills its worker stops no other.
        """
        with self.catalogue.session() as session:
            moment = read_clock(session)
            ours = ScoringClaim.run_id == self.run_id
            fresh, lapsed = ours & (ScoringClaim.state == OPEN), ours & _lapsed(moment)
            given_up = _give_up(session, lapsed & (ScoringClaim.deaths >= DEATHS))
            size = max(1, min(MOST, (session.scalar(select(func.count()).where(fresh)) or 0) // 4))
            rows = _first(session, fresh, size) or _first(session, lapsed, 1)
            for row in rows:
                row.deaths += row.state == TAKEN
                row.state, row.worker, row.expires_at = TAKEN, self.worker, _lease(moment)
            return Taken(tuple(row.study_id for row in rows), given_up)

    def complete(self, results: Mapping[str, Mapping[str, Any]]) -> int:
        """Store the results of studies that this worker holds, and return how many; another's are left alone."""
        with self.catalogue.session() as session:
            mine = [row for part in chunks(set(results)) for row in session.scalars(self._mine(part))]
            for row in mine:
                row.state, row.expires_at, row.result = DONE, None, dict(results[row.study_id])
            return len(mine)

    def release(self) -> None:
        """Free what this worker holds, for others or a later run."""
        with self.catalogue.session() as session:
            session.execute(update(ScoringClaim).where(*self._held()).values(state=OPEN, worker="", expires_at=None))

    def leave(self) -> None:
        """Leave what nobody holds to a later run; a worker that joins this one before its end takes it up again."""
        with self.catalogue.session() as session:
            free = (ScoringClaim.state == OPEN) | _lapsed(read_clock(session))
            rest = update(ScoringClaim).where(ScoringClaim.run_id == self.run_id, free)
            session.execute(rest.values(state=LEFT, worker="", expires_at=None))

    def renew(self) -> None:
        """Extend the lease of everything that this worker holds."""
        with self.catalogue.session() as session:
            session.execute(update(ScoringClaim).where(*self._held()).values(expires_at=_lease(read_clock(session))))

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the lease in the background while the block runs, and free what is held when it raises."""
        ended = threading.Event()

        def run() -> None:
            while not ended.wait(LEASE_SECONDS / 4):
                with contextlib.suppress(Exception):  # a database that is away now may be back for the next one
                    self.renew()

        thread = threading.Thread(target=run, daemon=True, name="lease")
        thread.start()
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):
                self.release()
            raise
        finally:
            ended.set()
            thread.join(timeout=5)

    def count_left(self) -> int:
        """Return the number of studies that have no result yet and are not left to a later run, whoever holds them."""
        return self._count(ScoringClaim.state.in_((OPEN, TAKEN)))

    def count_left_to_later(self) -> int:
        """Return the number of studies that `leave` has left to a later run."""
        return self._count(ScoringClaim.state == LEFT)

    def read_results(self) -> dict[str, dict[str, Any]]:
        """Return the results by study."""
        query = select(ScoringClaim.study_id, ScoringClaim.result).where(
            ScoringClaim.run_id == self.run_id, ScoringClaim.state == DONE
        )
        with self.catalogue.reading() as session:
            return {study: result for study, result in session.execute(query.order_by(ScoringClaim.id))}

    @contextlib.contextmanager
    def closing(self, results: int) -> Iterator[tuple[Session, RunRow] | None]:
        """Yield a writing transaction in which the run ends; None if it has ended, or has other than these results."""
        with self.catalogue.session() as session:
            run = session.get_one(RunRow, self.run_id)
            ours = ScoringClaim.run_id == self.run_id
            busy = session.scalar(select(func.count()).where(ours, ScoringClaim.state.in_((OPEN, TAKEN))))
            done = select(func.count()).where(ours, ScoringClaim.state == DONE)
            if run.state == DONE or busy or results != session.scalar(done):
                yield None
                return
            yield session, run
            session.execute(delete(ScoringClaim).where(ours))
            run.state, run.ended_at = DONE, now()

    def fail(self) -> None:
        """Record that this worker failed, unless others are still at work; the claims stay for the next worker."""
        with self.catalogue.session() as session:
            busy = session.scalar(
                select(func.count()).where(ScoringClaim.run_id == self.run_id, ScoringClaim.state == TAKEN)
            )
            run = session.get_one(RunRow, self.run_id)
            if run.state != DONE and not busy:
                run.state, run.ended_at = "failed", now()

    def _count(self, condition: Any) -> int:
        query = select(func.count()).where(ScoringClaim.run_id == self.run_id, condition)
        with self.catalogue.reading() as session:
            return session.scalar(query) or 0

    def _held(self) -> tuple[Any, ...]:
        return (
            ScoringClaim.run_id == self.run_id,
            ScoringClaim.worker == self.worker,
            ScoringClaim.state == TAKEN,
        )

    def _mine(self, studies: Collection[str]) -> Any:
        return select(ScoringClaim).where(*self._held(), ScoringClaim.study_id.in_(studies))


def join_run(
    catalogue: Catalogue, route: str, folder: str, model_sha256: str, studies: Collection[str], again: bool = False
) -> Claims:
    """Join the open scoring run of a detector, or begin one, and add the studies that it lacks.

    Args:
        catalogue: the open catalogue.
        route, folder: of the run, where one begins.
        model_sha256: of the detector.
        studies: pseudonyms of the studies to be scored.
        again: also those that have a finding of this detector.
    """
    with catalogue.session() as session:
        opened = select(ScoringClaim.run_id).where(ScoringClaim.model_sha256 == model_sha256).limit(1)
        run_id = begin_run(session, "score", route, folder, session.scalar(opened) or "")
        again_open = update(ScoringClaim).where(ScoringClaim.run_id == run_id, ScoringClaim.state == LEFT)
        session.execute(again_open.values(state=OPEN))
        # Asked here, in the transaction: another worker may have ended its run since the studies were chosen.
        left_out = _claimed(session, model_sha256, studies)
        left_out |= set() if again else list_scored(session, model_sha256, studies)
        rows = [
            {"run_id": run_id, "study_id": study, "model_sha256": model_sha256, "state": OPEN, "worker": ""}
            for study in dict.fromkeys(studies)
            if study not in left_out
        ]
        if rows:
            session.execute(insert(ScoringClaim), [{**row, "deaths": 0, "result": {}} for row in rows])
    return Claims(catalogue, run_id, uuid.uuid4().hex)


def list_unscored(catalogue: Catalogue, model_sha256: str) -> tuple[set[str], set[str]]:
    """Return the studies without a finding of the detector, and those with series that came after theirs."""
    ours = (FindingRow.study_id == Study.study_id) & (FindingRow.model_sha256 == model_sha256)
    later = select(Study.study_id).join(FindingRow, ours).join(Series, Series.study_id == Study.study_id)
    with catalogue.reading() as session:
        fresh = session.scalars(select(Study.study_id).where(~select(FindingRow.id).where(ours).exists()))
        return set(fresh), set(session.scalars(later.where(Series.first_seen_at >= FindingRow.scored_at)))


def list_scored(session: Session, model_sha256: str, studies: Collection[str]) -> set[str]:
    """Return those of the studies that have a finding of the detector."""
    query = select(FindingRow.study_id).where(FindingRow.model_sha256 == model_sha256)
    return {one for part in chunks(studies) for one in session.scalars(query.where(FindingRow.study_id.in_(part)))}


def _claimed(session: Session, model_sha256: str, studies: Collection[str]) -> set[str]:
    query = select(ScoringClaim.study_id).where(ScoringClaim.model_sha256 == model_sha256)
    return {one for part in chunks(studies) for one in session.scalars(query.where(ScoringClaim.study_id.in_(part)))}


def _lapsed(moment: datetime) -> Any:
    return (ScoringClaim.state == TAKEN) & (ScoringClaim.expires_at < moment)


def _first(session: Session, condition: Any, count: int) -> list[ScoringClaim]:
    return list(session.scalars(select(ScoringClaim).where(condition).order_by(ScoringClaim.id).limit(count)))


def _give_up(session: Session, condition: Any) -> tuple[str, ...]:
    rows = list(session.scalars(select(ScoringClaim).where(condition)))
    for row in rows:
        row.state, row.expires_at, row.result = DONE, None, {}
    session.flush()
    return tuple(row.study_id for row in rows)


def _lease(moment: datetime) -> datetime:
    return moment + timedelta(seconds=LEASE_SECONDS)


def read_clock(session: Session) -> datetime:
    """Return the time (UTC without time zone) by the server's clock on PostgreSQL: those of machines differ."""
    if session.get_bind().dialect.name == "postgresql":
        return session.scalars(select(func.timezone("UTC", func.clock_timestamp()))).one()
    return read_utc().replace(tzinfo=None)

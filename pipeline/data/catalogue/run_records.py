"""Records of runs in the catalogue: training, scoring and evaluation, findings, and series that were not scored."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import String, cast, select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.database import chunks
from pipeline.data.catalogue.schema import FindingRow, Instance, NotScored, RunRow, Series, TestOpening, now
from pipeline.errors import CatalogueError, RejectionCode
from pipeline.types import Finding
from pipeline.wall_clock import read_utc

_TO_SEND_APART = {
    *(RejectionCode.MIXED_SIZES, RejectionCode.MIXED_ORIENTATION, RejectionCode.MIXED_SPACING),
    RejectionCode.DUPLICATE_SLICES,
}

PENDING = "pending"  # key of a run's summary: what is still to be done with its result, should its process die first


class RunRecords:
    """The part of the catalogue that runs write; `Catalogue` provides the sessions."""

    def session(self) -> contextlib.AbstractContextManager[Session]:
        """A writing transaction."""
        raise NotImplementedError

    def reading(self) -> contextlib.AbstractContextManager[Session]:
        """A reading transaction."""
        raise NotImplementedError

    def start_run(self, kind: str, route: str = "", folder: str = "", run_id: str = "") -> str:
        """Record that a run (train, score, evaluate or generate) has begun; return its id, which sorts by time.

        With `run_id`, that run continues where an earlier process stopped, or begins under that id. `folder` is the run
        folder as returned by `Settings.relative`.
        """
        with self.session() as session:
            return begin_run(session, kind, route, folder, run_id)

    def finish_run(
        self, run_id: str, state: str = "done", summary: dict[str, Any] | None = None, sha256: str = ""
    ) -> None:
        """Record how a run ended ("done" or "failed"), its summary (JSON) and the SHA-256 of its manifest."""
        with self.session() as session:
            run = _run(session, run_id)
            run.state, run.summary, run.sha256, run.ended_at = state, summary or {}, sha256, now()

    def settle(self, run_ids: Sequence[str], step: str) -> None:
        """Record that a step which was still to be done with these runs is done."""
        with self.session() as session:
            for run_id in run_ids:
                run = _run(session, run_id)
                rest = [one for one in run.summary.get(PENDING, ()) if one != step]
                run.summary = {**run.summary, PENDING: rest}

    def list_pending(self, kind: str, step: str, route: str | None = None) -> list[RunRow]:
        """Return the ended runs of a kind with a step that is still to be done (`PENDING`), oldest first."""
        query = select(RunRow).where(RunRow.kind == kind, RunRow.state == "done")
        query = query.where(cast(RunRow.summary[PENDING], String).contains(f'"{step}"'))
        query = query.order_by(RunRow.started_at, RunRow.run_id)
        with self.reading() as session:
            return list(session.scalars(query if route is None else query.where(RunRow.route == route)))

    def run(self, run_id: str) -> RunRow:
        """Return one run.

        Raises:
            CatalogueError: the run does not exist.
        """
        with self.reading() as session:
            return _run(session, run_id)

    def list_runs(self, kind: str | None = None) -> list[RunRow]:
        """Return the runs, newest first."""
        query = select(RunRow).order_by(RunRow.started_at.desc(), RunRow.run_id.desc())
        with self.reading() as session:
            return list(session.scalars(query if kind is None else query.where(RunRow.kind == kind)))

    def add_findings(self, run_id: str, findings: Sequence[Finding], model_sha256: str) -> None:
        """Store findings; each replaces the same model's earlier one for the study and route, so none counts twice."""
        with self.session() as session:
            _run(session, run_id)
            write_findings(session, run_id, findings, model_sha256)

    def list_findings(self, run_id: str | None = None, flagged: bool | None = None) -> list[FindingRow]:
        """Return findings, the most unusual first: by p-value where there is one, then by raw score."""
        query = select(FindingRow).order_by(
            FindingRow.p_value.asc().nulls_last(), FindingRow.score.desc(), FindingRow.id
        )
        if run_id is not None:
            query = query.where(FindingRow.run_id == run_id)
        if flagged is not None:
            query = query.where(FindingRow.flagged.is_(flagged))
        with self.reading() as session:
            return list(session.scalars(query))

    def add_not_scored(self, run_id: str, rows: Sequence[tuple[str, str, str]]) -> int:
        """Store (series_id, code, sentence) of series that a run could not score; return how many are new.

        Rows that exist already, from any route or night, are not counted again.
        """
        with self.session() as session:
            _run(session, run_id)
            recorded = _known_refusals(session, {series_id for series_id, _, _ in rows})
            fresh = [row for row in dict.fromkeys(rows) if row not in recorded]
            session.add_all(
                NotScored(run_id=run_id, series_id=series_id, code=code, sentence=sentence)
                for series_id, code, sentence in fresh
            )
            return len(fresh)

    def list_not_scored(self, run_id: str | None = None) -> list[NotScored]:
        """Return the series that were not scored, by series; with `run_id`, those that this run was first to list."""
        query = select(NotScored).order_by(NotScored.series_id, NotScored.id)
        with self.reading() as session:
            return list(session.scalars(query if run_id is None else query.where(NotScored.run_id == run_id)))

    def list_held(self, model_sha256: str, code: str) -> set[str]:
        """Return the series that a detector's runs were first to list with a code."""
        query = (
            select(NotScored.series_id)
            .join(RunRow, RunRow.run_id == NotScored.run_id)
            .where(NotScored.code == code, RunRow.sha256 == model_sha256)
        )
        with self.reading() as session:
            return set(session.scalars(query))

    def list_still_not_scored(self) -> list[NotScored]:
        """Return the latest reason for every series that no detector has ever read, by series.

        A series that is not one stack is left out as soon as its images have all arrived again in series of its study
        that are not listed.
        """
        latest = {row.series_id: row for row in self.list_not_scored()}
        with self.reading() as session:
            for part in chunks(set(latest)):
                studies = select(Series.study_id).where(Series.series_id.in_(part))
                for evidence in session.scalars(select(FindingRow.evidence).where(FindingRow.study_id.in_(studies))):
                    for scored in evidence:
                        latest.pop(scored.get("series_id"), None)
            for series_id in _sent_again(session, set(latest)):
                if latest[series_id].code in _TO_SEND_APART:
                    del latest[series_id]
        return list(latest.values())

    def open_test(self, run_id: str, purpose: str) -> None:
        """Record that the test set is being read, before it is read."""
        with self.session() as session:
            _run(session, run_id)
            session.add(TestOpening(run_id=run_id, purpose=purpose))

    def list_test_openings(self) -> list[TestOpening]:
        """Return every opening of the test set, oldest first."""
        with self.reading() as session:
            return list(session.scalars(select(TestOpening).order_by(TestOpening.id)))


def begin_run(session: Session, kind: str, route: str, folder: str, run_id: str = "") -> str:
    """Begin a run, or continue one, within a writing transaction; see `RunRecords.start_run`."""
    run_id = run_id or f"{kind}-{read_utc():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:6]}"
    row = session.merge(RunRow(run_id=run_id, kind=kind, route=route, folder=folder, state="running"))
    row.summary, row.ended_at = row.summary or {}, None
    return run_id


def write_findings(session: Session, run_id: str, findings: Sequence[Finding], model_sha256: str) -> None:
    """Store findings within a writing transaction; see `RunRecords.add_findings`."""
    rows = _known_findings(session, model_sha256, {finding.study_id for finding in findings})
    for finding in findings:
        row = rows.setdefault((finding.study_id, finding.route), FindingRow(model_sha256=model_sha256))
        _fill(row, run_id, finding)
        session.add(row)


def _sent_again(session: Session, listed: set[str]) -> set[str]:
    """Return the listed series whose pixels are all held by series of their study that are not listed."""
    sent: set[str] = set()
    columns = (Series.study_id, Instance.series_id, Instance.pixel_key)
    for part in chunks(listed):
        studies = select(Series.study_id).where(Series.series_id.in_(part))
        query = select(*columns).join(Series, Series.series_id == Instance.series_id)
        pixels: dict[str, set[tuple[str, str]]] = {}
        elsewhere: set[tuple[str, str]] = set()
        for study_id, series_id, key in session.execute(query.where(Series.study_id.in_(studies))):
            if series_id not in listed:
                elsewhere.add((study_id, key))
            else:
                pixels.setdefault(series_id, set()).add((study_id, key))
        sent |= {series_id for series_id, held in pixels.items() if held <= elsewhere}
    return sent


def _run(session: Session, run_id: str) -> RunRow:
    run = session.get(RunRow, run_id)
    if run is None:
        raise CatalogueError(f"The catalogue has no run {run_id!r:.80}. `nightread runs` lists them.")
    return run


def _known_refusals(session: Session, series_ids: set[str]) -> set[tuple[str, str, str]]:
    columns = (NotScored.series_id, NotScored.code, NotScored.sentence)
    refusals: set[tuple[str, str, str]] = set()
    for part in chunks(series_ids):
        refusals |= {tuple(row) for row in session.execute(select(*columns).where(NotScored.series_id.in_(part)))}
    return refusals


def _known_findings(session: Session, model_sha256: str, studies: set[str]) -> dict[tuple[str, str], FindingRow]:
    rows: dict[tuple[str, str], FindingRow] = {}
    ordered = sorted(studies)
    for start in range(0, len(ordered), 500):
        query = select(FindingRow).where(
            FindingRow.model_sha256 == model_sha256, FindingRow.study_id.in_(ordered[start : start + 500])
        )
        rows |= {(row.study_id, row.route): row for row in session.scalars(query)}
    return rows


def _fill(row: FindingRow, run_id: str, finding: Finding) -> None:
    values = asdict(finding)
    values["evidence"] = list(values["evidence"])
    for name, value in {**values, "run_id": run_id, "scored_at": now()}.items():
        setattr(row, name, value)

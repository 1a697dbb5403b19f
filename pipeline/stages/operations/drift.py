"""Numbers of a night: received, scored, flagged and rejected scans, and the drift of scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any, cast

import numpy as np
from sqlalchemy import func, select

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow, Instance, NotScored, RejectionRow, RunRow, SourceFile

NIGHTS = 14  # number of nights to choose from
RUNS = 20  # number of runs per route in the drift chart
TAIL = 0.1  # by definition, also the share of normals with a p-value this small
ACCEPTED = ("accepted", "same")


@dataclass(frozen=True, slots=True)
class Drift:
    """Scores of one scoring run against the calibration: quartiles, and the share with a p-value of 0.1 or less.

    `p` are (5, 25, 50, 75, 95) percentiles of the p-values; uniform if the night resembles the calibration normals.
    """

    run_id: str
    route: str
    at: datetime
    studies: int
    flagged: int
    median: float
    tail: float | None
    p: tuple[float, ...]

    def sentence(self) -> str:
        """Return a comparison of the share of small p-values with that of normal scans."""
        if self.tail is None:
            return f"{self.route}: {self.studies} studies without p-values, so drift cannot be measured."
        return (
            f"{self.route}: {self.tail:.0%} of {self.studies} studies have a p-value of {TAIL:g} or less; scans like "
            f"the calibration normals have {TAIL:.0%}."
        )


def list_nights(catalogue: Catalogue) -> list[date]:
    """Return the latest days on which something was ingested or scored, newest first."""
    with catalogue.reading() as session:
        scored = session.scalars(
            select(RunRow.started_at).where(RunRow.kind == "score").order_by(RunRow.started_at.desc()).limit(500)
        )
        days = {moment.date() for moment in scored}
        latest = session.scalar(select(func.max(SourceFile.seen_at)))
    days |= {latest.date()} if latest else set()
    return sorted(days, reverse=True)[:NIGHTS]


def read_night(catalogue: Catalogue, day: date) -> dict[str, Any]:
    """Return the events of a day (UTC) for the page: counts, reasons and scoring runs."""
    begin, end = datetime.combine(day, time()), datetime.combine(day + timedelta(days=1), time())
    with catalogue.reading() as session:
        outcomes: dict[str, int] = dict(
            cast(
                Any,
                session.execute(
                    select(SourceFile.outcome, func.count())
                    .where(SourceFile.seen_at >= begin, SourceFile.seen_at < end)
                    .group_by(SourceFile.outcome)
                ).all(),
            )
        )
        new = session.scalar(
            select(func.count()).select_from(Instance).where(Instance.ingested_at >= begin, Instance.ingested_at < end)
        )
        refused = session.execute(
            select(RejectionRow.code, func.count(), func.min(RejectionRow.sentence))
            .where(RejectionRow.first_seen_at >= begin, RejectionRow.first_seen_at < end)
            .group_by(RejectionRow.code)
        ).all()
        runs = list(
            session.scalars(
                select(RunRow)
                .where(RunRow.kind == "score", RunRow.started_at >= begin, RunRow.started_at < end)
                .order_by(RunRow.started_at)
            )
        )
        unscored = session.execute(
            select(NotScored.code, func.count(), func.min(NotScored.sentence))
            .where(NotScored.run_id.in_([run.run_id for run in runs]))
            .group_by(NotScored.code)
        ).all()
    return {
        "day": day,
        "files": sum(outcomes.values()),
        "new": new or 0,
        "rejected": sum(count for _, count, _ in refused),
        "scored": sum(int(run.summary.get("studies", 0)) for run in runs),
        "flagged": sum(int(run.summary.get("flagged", 0)) for run in runs),
        "not_scored": sum(count for _, count, _ in unscored),
        "refusals": _reasons(refused),
        "unscored": _reasons(unscored),
        "runs": [_run(run) for run in runs],
    }


def _reasons(rows: Any) -> list[dict[str, Any]]:
    reasons = [{"code": code, "count": count, "sentence": sentence} for code, count, sentence in rows]
    return sorted(reasons, key=lambda row: (-row["count"], row["code"]))


def _run(run: RunRow) -> dict[str, Any]:
    return {
        "route": run.route,
        "at": run.started_at,
        "state": run.state,
        "statement": str(run.summary.get("statement", "")) or "The run has not finished.",
    }


def read_drift(catalogue: Catalogue) -> dict[str, list[Drift]]:
    """Return the latest scoring runs of each route, oldest first; runs without findings are left out."""
    drifts: dict[str, list[Drift]] = {}
    counts: Counter[str] = Counter()
    for run in catalogue.list_runs("score"):
        if run.state != "done" or counts[run.route] >= RUNS:
            continue
        one = _drift(catalogue, run)
        if one is not None:
            counts[run.route] += 1
            drifts.setdefault(run.route, []).insert(0, one)
    return drifts


def read_drift_of_runs(catalogue: Catalogue, run_ids: Sequence[str]) -> list[Drift]:
    """Return the drift of scoring runs, in their order; runs without findings are left out."""
    measured = (_drift(catalogue, catalogue.run(run_id)) for run_id in run_ids)
    return [one for one in measured if one is not None]


def _drift(catalogue: Catalogue, run: RunRow) -> Drift | None:
    with catalogue.reading() as session:
        rows = session.execute(
            select(FindingRow.score, FindingRow.p_value, FindingRow.flagged).where(FindingRow.run_id == run.run_id)
        ).all()
    if not rows:
        return None
    p_values = np.array([row.p_value for row in rows if row.p_value is not None])
    return Drift(
        run.run_id,
        run.route,
        run.started_at,
        len(rows),
        sum(bool(row.flagged) for row in rows),
        float(np.median([row.score for row in rows])),
        float((p_values <= TAIL).mean()) if p_values.size else None,
        tuple(np.percentile(p_values, (5, 25, 50, 75, 95)).tolist()) if p_values.size else (),
    )

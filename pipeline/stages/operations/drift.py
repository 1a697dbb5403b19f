"""Numbers of a night: received, scored, flagged and rejected scans, and the drift of scores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

import numpy as np
from sqlalchemy import func, select, true
from sqlalchemy.orm import Session

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow, Instance, NotScored, RejectionRow, RunRow, SourceFile
from pipeline.stages.detect.score import tell_left

NIGHTS = 14  # number of latest nights in the menu; every other is reached by its date
RUNS = 20  # number of runs per route in the drift chart
TAIL = 0.1  # by definition, also the share of normals with a p-value this small
ACCEPTED = ("accepted", "same")
HIDDEN = "How many were flagged is shown once all of its scans on the list are decided."


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


def list_nights(catalogue: Catalogue, hidden_codes: Collection[str] = ()) -> list[date]:
    """Return the latest days on which something was ingested or scored, newest first.

    A file that was refused with one of `hidden_codes` makes no night.
    """
    with catalogue.reading() as session:
        scored = session.scalars(
            select(RunRow.started_at).where(RunRow.kind == "score").order_by(RunRow.started_at.desc()).limit(500)
        )
        days = {moment.date() for moment in scored}
        latest = session.scalar(select(func.max(SourceFile.seen_at)).where(SourceFile.outcome.not_in(hidden_codes)))
    days |= {latest.date()} if latest else set()
    return sorted(days, reverse=True)[:NIGHTS]


def find_nights_beside(
    catalogue: Catalogue, day: date, hidden_codes: Collection[str] = ()
) -> tuple[date | None, date | None]:
    """Return the nearest days before and after a day on which something was read, refused or scored.

    A file that was refused with one of `hidden_codes` makes no night.
    """
    begin, end = datetime.combine(day, time()), datetime.combine(day, time.max)
    sources: tuple[tuple[Any, Any], ...] = (
        (Instance.ingested_at, true()),
        (SourceFile.seen_at, SourceFile.outcome.not_in(hidden_codes)),
        (RejectionRow.first_seen_at, RejectionRow.code.not_in(hidden_codes)),
        (RunRow.started_at, RunRow.kind == "score"),
    )
    with catalogue.reading() as session:
        earlier = [session.scalar(select(func.max(at)).where(at < begin, rule)) for at, rule in sources]
        later = [session.scalar(select(func.min(at)).where(at > end, rule)) for at, rule in sources]
    before = max((one.date() for one in earlier if one is not None), default=None)
    return before, min((one.date() for one in later if one is not None), default=None)


def read_night(
    catalogue: Catalogue, day: date, hidden_runs: Collection[str] = (), hidden_codes: Collection[str] = ()
) -> dict[str, Any]:
    """Return the events of a day (UTC) for the page: counts, reasons and scoring runs.

    Args:
        catalogue: an open catalogue.
        day: on which it happened.
        hidden_runs: runs whose results are left out, since a reader still reads their scans blind; `flagged` is None
            then.
        hidden_codes: rejection codes that are left out of all counts.
    """
    begin, end = datetime.combine(day, time()), datetime.combine(day, time.max)
    with catalogue.reading() as session:
        outcomes = _count_outcomes(session, begin, end, hidden_codes)
        new = session.scalar(
            select(func.count()).select_from(Instance).where(Instance.ingested_at >= begin, Instance.ingested_at <= end)
        )
        refused = session.execute(
            select(RejectionRow.code, func.count(), func.min(RejectionRow.sentence))
            .where(
                RejectionRow.first_seen_at >= begin,
                RejectionRow.first_seen_at <= end,
                RejectionRow.code.not_in(hidden_codes),
            )
            .group_by(RejectionRow.code)
        ).all()
        runs = list(
            session.scalars(
                select(RunRow)
                .where(RunRow.kind == "score", RunRow.started_at >= begin, RunRow.started_at <= end)
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
        "flagged": _count_flagged(runs, hidden_runs),
        "not_scored": sum(count for _, count, _ in unscored),
        "refusals": _reasons(refused),
        "unscored": _reasons(unscored),
        "runs": [_run(run, run.run_id in hidden_runs) for run in runs],
    }


def _count_outcomes(session: Session, begin: datetime, end: datetime, hidden_codes: Collection[str]) -> dict[str, int]:
    rows = session.execute(
        select(SourceFile.outcome, func.count())
        .where(SourceFile.seen_at >= begin, SourceFile.seen_at <= end)
        .where(SourceFile.outcome.not_in(hidden_codes))
        .group_by(SourceFile.outcome)
    )
    return {outcome: count for outcome, count in rows}


def _count_flagged(runs: Sequence[RunRow], hidden: Collection[str]) -> int | None:
    """Return the number of flagged scans; None if a part of it is hidden, since the rest would tell."""
    if any(run.run_id in hidden for run in runs):
        return None
    return sum(int(run.summary.get("flagged", 0)) for run in runs)


def _reasons(rows: Any) -> list[dict[str, Any]]:
    reasons = [{"code": code, "count": count, "sentence": sentence} for code, count, sentence in rows]
    return sorted(reasons, key=lambda row: (-row["count"], row["code"]))


def _run(run: RunRow, hidden: bool) -> dict[str, Any]:
    statement = str(run.summary.get("statement", "")) or "The run has not finished."
    return {
        "run_id": run.run_id,
        "route": run.route,
        "at": run.started_at,
        "state": run.state,
        "statement": _hide(run) if hidden else statement,
    }


def _hide(run: RunRow) -> str:
    """Return what may be said of a run whose results are hidden."""
    left = tell_left(int(run.summary.get("left", 0)))
    return f"{run.summary.get('studies', 0)} studies scored. {HIDDEN} {left}".rstrip()


def read_drift(catalogue: Catalogue, hidden_runs: Collection[str] = ()) -> dict[str, list[Drift]]:
    """Return the latest scoring runs of each route, oldest first, without those to hide and those without findings."""
    drifts: dict[str, list[Drift]] = {}
    counts: Counter[str] = Counter()
    for run in catalogue.list_runs("score"):
        if run.state != "done" or counts[run.route] >= RUNS or run.run_id in hidden_runs:
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

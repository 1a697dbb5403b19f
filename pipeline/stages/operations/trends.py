"""Trends before a night: arrivals, flagged and refused scans and p-values by day, as far as a reader may see them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from pipeline.charts.trend_chart import DayBox, DayBoxes, DayCounts
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow, Instance, RejectionRow, RunRow
from pipeline.stages.operations.refusal_kinds import kind_of

DAYS = 28


@dataclass(frozen=True, slots=True)
class Trends:
    """Counts and p-values of the last days up to a chosen one.

    `refusals` has the counts of each kind, largest first; `p_values` one chart for each route.
    """

    counts: tuple[DayCounts, ...]
    refusals: dict[str, DayCounts]
    p_values: tuple[DayBoxes, ...]


def read_trends(
    catalogue: Catalogue, last: date, hidden_runs: Collection[str] = (), hidden_codes: Collection[str] = ()
) -> Trends:
    """Return the trends of `DAYS` days.

    Args:
        catalogue: an open catalogue.
        last: last day (UTC).
        hidden_runs: runs whose results are left out, since a reader still reads their scans blind: a day with one has
            no number of flagged scans, as the rest would tell, and its p-values are those of the other runs.
        hidden_codes: rejection codes that are left out of all counts.
    """
    number = last.toordinal()
    days = tuple(map(date.fromordinal, range(max(1, number - DAYS + 1), number + 1)))
    begin, end = datetime.combine(days[0], time()), datetime.combine(last, time.max)
    with catalogue.reading() as session:
        arrived = _count_by_day(session, Instance.ingested_at, begin, end)
        refused = _refused(session, begin, end, hidden_codes)
        runs = session.scalars(
            select(RunRow).where(RunRow.kind == "score", RunRow.started_at >= begin, RunRow.started_at <= end)
        ).all()
        p_values = _p_values(session, [run for run in runs if run.state == "done" and run.run_id not in hidden_runs])
    by_kind = {kind: _counts(kind, "files and series", days, counts) for kind, counts in refused.items()}
    every = sum(refused.values(), Counter[date]())
    flagged = _flagged(runs, hidden_runs)
    return Trends(
        (
            _counts("Images that arrived", "images", days, arrived),
            _counts("Scans that were flagged", "scans", days, flagged),
            _counts("Files and series that were refused", "files and series", days, every),
        ),
        dict(sorted(by_kind.items(), key=lambda item: (-sum(value or 0 for value in item[1].values), item[0]))),
        tuple(_boxes(route, days, values) for route, values in sorted(p_values.items())),
    )


def _counts(title: str, unit: str, days: tuple[date, ...], by_day: Mapping[date, int | None]) -> DayCounts:
    return DayCounts(title=title, unit=unit, days=days, values=tuple(by_day.get(day, 0) for day in days))


def _count_by_day(session: Session, moment: Any, begin: datetime, end: datetime) -> Counter[date]:
    rows = session.execute(
        select(func.date(moment), func.count()).where(moment >= begin, moment <= end).group_by(func.date(moment))
    )
    return Counter({_day(day): count for day, count in rows})


def _refused(session: Session, begin: datetime, end: datetime, hidden: Collection[str]) -> dict[str, Counter[date]]:
    """Return the refusals of each kind by day."""
    moment = RejectionRow.first_seen_at
    rows = session.execute(
        select(RejectionRow.code, func.date(moment), func.count())
        .where(moment >= begin, moment <= end, RejectionRow.code.not_in(hidden))
        .group_by(RejectionRow.code, func.date(moment))
    )
    by_kind: dict[str, Counter[date]] = defaultdict(Counter)
    for code, day, count in rows:
        by_kind[kind_of(code)][_day(day)] += count
    return dict(by_kind)


def _day(value: Any) -> date:
    """Return a day as the database gave it: SQLite has text, PostgreSQL a date."""
    return value if isinstance(value, date) else date.fromisoformat(value)


def _flagged(runs: Sequence[RunRow], hidden: Collection[str]) -> dict[date, int | None]:
    """Return the flagged scans by day; None on a day with a hidden run."""
    by_day: dict[date, int | None] = {}
    for run in runs:
        by_day[run.started_at.date()] = (by_day.get(run.started_at.date()) or 0) + int(run.summary.get("flagged", 0))
    return by_day | {run.started_at.date(): None for run in runs if run.run_id in hidden}


def _p_values(session: Session, runs: Sequence[RunRow]) -> dict[str, dict[date, list[float]]]:
    """Return the p-values of these runs by route and day."""
    started = {run.run_id: run.started_at.date() for run in runs}
    rows = session.execute(
        select(FindingRow.run_id, FindingRow.route, FindingRow.p_value)
        .join(RunRow, RunRow.run_id == FindingRow.run_id)
        .where(RunRow.kind == "score", RunRow.run_id.in_(started), FindingRow.p_value.is_not(None))
    )
    by_route: dict[str, dict[date, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run_id, route, p_value in rows:
        by_route[route][started[run_id]].append(p_value)
    return by_route


def _boxes(route: str, days: tuple[date, ...], by_day: dict[date, list[float]]) -> DayBoxes:
    boxes = tuple(
        DayBox(day=day, studies=len(values), quantiles=tuple(np.percentile(values, (5, 25, 50, 75, 95)).tolist()))
        for day, values in sorted(by_day.items())
    )
    return DayBoxes(title=f"p-values on {route} by day", days=days, boxes=boxes)

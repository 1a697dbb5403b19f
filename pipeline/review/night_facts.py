"""Facts of one night for its report: only what whoever reads blind may see, since a file goes from hand to hand."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import RunRow, now
from pipeline.data.catalogue.watch_schema import AlertRow, NightRow
from pipeline.errors import ArtefactError, ConfigError
from pipeline.progress import duration_words
from pipeline.review.hidden_studies import list_hidden_codes, list_hidden_runs
from pipeline.review.night_charts import describe_trends, draw_trends, draw_watch, fold_reasons
from pipeline.stages.operations.drift import list_nights, read_night
from pipeline.stages.operations.drift_watch import read_policy, recall_watch
from pipeline.stages.operations.trends import read_trends
from pipeline.stages.run.environment import read_environment
from pipeline.stages.run.run_folder import RunFolder

Rows = list[tuple[str, ...]]
VERSIONS = ("nightread", "git.commit", "python", "torch", "processor")
SHORT = 12  # digits of a commit or a SHA-256


@dataclass(frozen=True, slots=True)
class NightFacts:
    """What the report says.

    Attributes:
        day: of the night (UTC).
        written_at: when the facts were read (UTC).
        counts: what arrived, was refused and was scored; `flagged` is None while scans of the night are read blind.
        held_back: whether results of any day are left out for that reason.
        charts, evidence: SVG with their captions: the four weeks until the night, and the evidence of drift.
        legend: sentences that say how `charts` are read.
        refusals, unscored: reasons by kind, see `fold_reasons`.
        scoring, schedules, models, alerts, versions: rows of text.
        drift: sentences.
    """

    day: date
    written_at: datetime
    counts: dict[str, Any]
    held_back: bool
    charts: list[dict[str, str]]
    legend: list[str]
    evidence: list[dict[str, str]]
    refusals: list[dict[str, Any]]
    unscored: list[dict[str, Any]]
    scoring: Rows
    schedules: Rows
    models: Rows
    alerts: Rows
    versions: Rows
    drift: list[str]


def read_night_facts(catalogue: Catalogue, settings: Settings, day: date | None = None) -> NightFacts:
    """Return the facts of a night, or of the latest one; a day without events has counts of 0.

    Raises:
        ConfigError: the day has not come yet.
    """
    if day is not None and day > now().date():
        raise ConfigError(f"The night of {day} has not come yet. Give a date up to today, {now().date()} (UTC).")
    hidden = _list_hidden(catalogue)
    while True:  # a run that ends meanwhile may bring scans that are read blind
        facts = _read_facts(catalogue, settings, day, hidden)
        if (since := _list_hidden(catalogue)) <= hidden:
            return facts
        hidden |= since


def _list_hidden(catalogue: Catalogue) -> frozenset[str]:
    with catalogue.reading() as session:
        return list_hidden_runs(session)


def _read_facts(catalogue: Catalogue, settings: Settings, day: date | None, hidden: frozenset[str]) -> NightFacts:
    codes = list_hidden_codes(bool(hidden))
    chosen = day or next(iter(list_nights(catalogue, codes)), now().date())
    night, trends = read_night(catalogue, chosen, hidden, codes), read_trends(catalogue, chosen, hidden, codes)
    said = {one["run_id"]: one for one in night["runs"]}
    watch = recall_watch(catalogue, read_policy(settings), hidden)
    with catalogue.reading() as session:
        begin, end = datetime.combine(chosen, time()), datetime.combine(chosen, time.max)
        query = select(RunRow).where(RunRow.kind == "score", RunRow.started_at >= begin, RunRow.started_at <= end)
        runs = [run for run in session.scalars(query.order_by(RunRow.started_at)) if run.run_id in said]
        schedules = list(_list_schedules(session, begin, end))
        alerts = list(_list_alerts(session, begin, end, hidden))
    return NightFacts(
        chosen,
        now(),
        night,
        bool(hidden),
        draw_trends(trends),
        describe_trends(bool(trends.p_values), bool(hidden)),
        draw_watch(watch),
        fold_reasons(night["refusals"], {}),
        fold_reasons(night["unscored"], {}),
        [_describe_scoring(run, said[run.run_id]) for run in runs],
        schedules,
        list(dict.fromkeys(_describe_model(run, settings) for run in runs)),
        alerts,
        list(_list_versions(runs)),
        [sentence.replace("**", "") for sentence in watch.sentences()],
    )


def _describe_scoring(run: RunRow, said: dict[str, Any]) -> tuple[str, ...]:
    """Return time, route, state, duration and result; `said` is the run as the page of the night shows it."""
    return f"{run.started_at:%H:%M}", run.route, run.state, _span(run.started_at, run.ended_at), str(said["statement"])


def _span(begin: datetime, end: datetime | None) -> str:
    return "not ended" if end is None else duration_words((end - begin).total_seconds())


def _list_schedules(session: Session, begin: datetime, end: datetime) -> Iterator[tuple[str, ...]]:
    """Yield what ran by the clock on the day; the counts of a night, which may tell of flags, are not part of it."""
    query = (
        select(NightRow).where(NightRow.started_at >= begin, NightRow.started_at <= end).order_by(NightRow.started_at)
    )
    for row in session.scalars(query):
        errors = ", ".join(str(one) for one in row.summary.get("errors", ())) or "none"
        times = f"{row.due_at:%H:%M}", f"{row.started_at:%H:%M}", _span(row.started_at, row.ended_at)
        yield row.schedule, *times, row.state, errors


def _list_alerts(
    session: Session, begin: datetime, end: datetime, hidden: Collection[str]
) -> Iterator[tuple[str, ...]]:
    """Yield the alerts that were open on the day; those of drift rest on scores, which may have to be held back."""
    still = or_(AlertRow.recovered_at.is_(None), AlertRow.recovered_at >= begin)
    for row in session.scalars(select(AlertRow).where(AlertRow.opened_at <= end, still).order_by(AlertRow.id)):
        is_held_back = bool(hidden) and row.key.startswith("drift")
        sentence = "Hidden until the scans that are being read blind are decided." if is_held_back else row.sentence
        ended = "open" if row.recovered_at is None else f"recovered {row.recovered_at:%d %b %H:%M}"
        yield f"{row.opened_at:%d %b %H:%M}", row.severity, ended, sentence


def _describe_model(run: RunRow, settings: Settings) -> tuple[str, ...]:
    """Return route, method, run, version and the beginning of the detector's SHA-256."""
    folder = RunFolder(settings.absolute(run.folder))
    method = _read(folder, "config.json").get("method")
    version = str(_read(folder, "calibration.json").get("version") or "not registered")
    name = str(method.get("name", "")) if isinstance(method, dict) else ""
    return run.route, name or "not recorded", folder.run_id, version, run.sha256[:SHORT]


def _read(folder: RunFolder, name: str) -> dict[str, Any]:
    try:
        return dict(folder.read(name))
    except (ArtefactError, TypeError, ValueError):
        return {}


def _list_versions(runs: list[RunRow]) -> Iterator[tuple[str, ...]]:
    """Yield the versions that scored, or those of this program where nothing was scored."""
    recorded = [run.summary["environment"] for run in runs if isinstance(run.summary.get("environment"), dict)]
    for name in VERSIONS:
        values = dict.fromkeys(str(one.get(name, "")) for one in recorded or [read_environment()])
        yield name, ", ".join(value[:SHORT] if name == "git.commit" else value for value in values) or "not recorded"

"""Nights in the catalogue: begun, alive, ended; written by the night itself, and read by the watch."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from filelock import FileLock, Timeout
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import now
from pipeline.data.catalogue.watch_schema import BeatRow, NightRow, ScheduleRow
from pipeline.errors import CatalogueError, ConfigError
from pipeline.stages.watch.clock import Tick
from pipeline.stages.watch.schedule import Schedule
from pipeline.wall_clock import read_utc

BEAT_SECONDS = 60.0


@dataclass
class Night:
    """The record of a running night; `summary` is what it will have left when it ends."""

    schedule: str
    summary: dict[str, Any] = field(default_factory=dict)
    failures: int = 0


@contextmanager
def record_night(settings: Settings, schedule: str, due_at: datetime | None = None) -> Iterator[Night]:
    """Record a night while the block runs, with a heartbeat every minute from a thread; one at a time per schedule.

    The record is for the watch and the night does not depend on it: a catalogue that cannot be written gets the
    record later, or not at all. Durations are measured by the monotonic clock, which nobody moves.

    Args:
        settings: settings of the workspace.
        schedule: name of the schedule.
        due_at: when it was due (UTC without time zone); None for now.

    Raises:
        ConfigError: another run of this schedule is still running in this workspace.
    """
    lock = FileLock(settings.workspace / f"night-{schedule}.lock")
    settings.workspace.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            f"A run of {schedule!r} is still running in this workspace, and two at once are not allowed. Wait for its "
            "end: nightread status"
        ) from None
    try:
        with _beating(settings, schedule, due_at) as night:
            yield night
    finally:
        lock.release()


@contextmanager
def _beating(settings: Settings, schedule: str, due_at: datetime | None) -> Iterator[Night]:
    night, began, ended, state = Night(schedule), time.monotonic(), threading.Event(), "failed"
    record = _Record(settings, schedule, due_at or now(), now())
    record.write()
    thread = threading.Thread(target=record.beat, args=(ended,), daemon=True, name="heartbeat")
    thread.start()
    try:
        yield night
        state = "failed" if night.failures else "done"
    except BaseException as error:
        night.summary |= {"errors": [type(error).__name__]}
        raise
    finally:
        ended.set()
        thread.join(timeout=5)
        seconds = round(time.monotonic() - began, 1)
        summary = night.summary | {"seconds": seconds, "failures": night.failures}
        record.write(state=state, ended_at=now(), beat_at=now(), summary=summary)


@dataclass
class _Record:
    """The night's row; one that could not be added when the night began is added later."""

    settings: Settings
    schedule: str
    due_at: datetime
    started_at: datetime
    number: int | None = None

    def write(self, **values: Any) -> None:
        """Write values into the row; a catalogue that cannot be written is tried again with the next ones."""
        with suppress(CatalogueError), Catalogue.open(self.settings) as catalogue, catalogue.session() as session:
            if self.number is not None:
                session.execute(update(NightRow).where(NightRow.id == self.number).values(**values))
            else:
                self.number = self._add(session, values)

    def _add(self, session: Session, values: Mapping[str, Any]) -> int:
        """Add the row; those still running by their state died without a word, since the schedule's lock is ours."""
        dead = update(NightRow).where(NightRow.schedule == self.schedule, NightRow.state == "running")
        session.execute(dead.values(state="crashed", ended_at=NightRow.beat_at))
        about: dict[str, Any] = {
            "schedule": self.schedule,
            "due_at": self.due_at,
            "started_at": self.started_at,
            "summary": {},
        }
        row = NightRow(**about | {"summary": {}} | dict(values))
        session.add(row)
        session.flush()
        return row.id

    def beat(self, ended: threading.Event) -> None:
        """Write a heartbeat every minute until the night has ended."""
        while not ended.wait(BEAT_SECONDS):
            self.write(beat_at=now())


def summarise(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the counts of a night's report (`build_night_report`) that the watch keeps; nothing in it is a name."""
    return {
        "files": report["files"],
        "new": report["new"],
        "refused": sum(report["rejected_tonight"].values()),
        "refused_by_code": report["rejected_tonight"],
        "scored": sum(route["studies"] for route in report["scored"]),
        "flagged": sum(route["flagged"] for route in report["scored"]),
        "not_scored": sum(report["not_scored"].values()),
        "routes": {route["route"]: route["studies"] for route in report["scored"]},
        "errors": sorted({str(failure).partition(":")[0][:60] for failure in report["failures"]}),
        "left": report.get("left", 0),
        **({"stopped": report["stopped"]} if report.get("stopped") else {}),
    }


def register_schedules(settings: Settings, schedules: Sequence[Schedule]) -> None:
    """Let the watch expect these schedules, and no others, from now on; an unchanged one keeps its beginning."""
    with Catalogue.open(settings) as catalogue, catalogue.session() as session:
        rows = {row.name: row for row in session.scalars(select(ScheduleRow))}
        for row in rows.values():
            row.active = row.active and row.name in {schedule.name for schedule in schedules}
        for schedule in schedules:
            row = rows.get(schedule.name) or ScheduleRow(name=schedule.name)
            if not row.active or row.definition != schedule.timing():
                row.active, row.definition, row.since = True, schedule.timing(), now()
            session.add(row)


def list_schedules(catalogue: Catalogue) -> list[tuple[Schedule, datetime]]:
    """Return the schedules that are expected to run, with the time since when."""
    query = select(ScheduleRow).where(ScheduleRow.active.is_(True)).order_by(ScheduleRow.name)
    with catalogue.reading() as session:
        return [(Schedule.model_validate(row.definition), row.since) for row in session.scalars(query)]


def find_deadline(settings: Settings, request: Schedule) -> Tick | None:
    """Return when a run that begins now must end, by its registered schedule or else by its request; None for never.

    A request that states cron is a schedule file, as a work pool's deployment names it: its deadline counts even where
    it is the default.
    """
    hours = None if request.model_fields_set.isdisjoint(("cron", "deadline_hours")) else request.deadline_hours
    with suppress(CatalogueError), Catalogue.open(settings) as catalogue:
        registered = {one.name: one.deadline_hours for one, _ in list_schedules(catalogue)}
        hours = registered.get(request.name, hours)
    return None if hours is None else Tick.now().after(3600 * hours)


def is_over(deadline: Mapping[str, Any] | None) -> bool:
    """Whether a deadline (`Tick.to_json`) has passed; None never does."""
    moment = Tick.read(deadline)
    return moment is not None and moment.has_passed(Tick.now())


def find_due_time(settings: Settings, schedule: str, day: date) -> datetime:
    """Return when a schedule was due on a day of its time zone: its first firing, or the day's beginning in UTC.

    Raises:
        ConfigError: the day is in the future.
    """
    with Catalogue.open(settings) as catalogue:
        expected = {one.name: one for one, _ in list_schedules(catalogue)}.get(schedule)
    zone = ZoneInfo(expected.timezone) if expected else UTC
    today = read_utc().astimezone(zone).date()
    if day > today:
        raise ConfigError(f"The night of {day} has not come yet. Give a date up to today, {today}.")
    start = datetime.combine(day, datetime.min.time(), zone).astimezone(UTC).replace(tzinfo=None)
    firing = expected.next_firing(start - timedelta(seconds=1)) if expected else start
    return min(firing, now()) if firing < start + timedelta(days=1) else start


def last_night(catalogue: Catalogue, schedule: str) -> NightRow | None:
    """Return the newest run of a schedule."""
    query = select(NightRow).where(NightRow.schedule == schedule).order_by(NightRow.id.desc()).limit(1)
    with catalogue.reading() as session:
        return session.scalar(query)


def has_run_since(catalogue: Catalogue, schedule: str, due_at: datetime) -> bool:
    """Whether a run began at or after a firing, or for it; a later night reads what an earlier one left."""
    query = select(NightRow.id).where(
        NightRow.schedule == schedule, (NightRow.due_at >= due_at) | (NightRow.started_at >= due_at)
    )
    with catalogue.reading() as session:
        return session.scalar(query.limit(1)) is not None


def has_received_since(catalogue: Catalogue, schedule: str, since: datetime) -> bool:
    """Whether any run that began at or after a moment received new scans."""
    query = select(NightRow.summary).where(NightRow.schedule == schedule, NightRow.started_at >= since)
    with catalogue.reading() as session:
        return any(summary.get("new") for summary in session.scalars(query))


def beat(settings: Settings, name: str, detail: Mapping[str, Any] | None = None) -> None:
    """Record a sign of life of a process; a catalogue that cannot be written leaves it out."""
    with suppress(CatalogueError), Catalogue.open(settings) as catalogue, catalogue.session() as session:
        session.merge(BeatRow(name=name, beat_at=now(), detail=dict(detail or {})))


def read_beat(catalogue: Catalogue, name: str) -> BeatRow | None:
    """Return the last sign of life of a process."""
    with catalogue.reading() as session:
        return session.get(BeatRow, name)

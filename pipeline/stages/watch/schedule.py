"""Schedules: when a flow runs, in which hours it may begin, and what it reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from heapq import merge
from itertools import product
from typing import Any, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import Field, field_validator, model_validator

from pipeline.config import Config
from pipeline.wall_clock import ZoneName

FlowName = Literal["nightly", "train", "benchmark", "generate", "retention"]
TIMING = ("flow", "cron", "timezone", "windows", "catch_up", "grace_minutes", "deadline_hours")
_FIELDS = "minute, hour, day, month and weekday"
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]|24):([0-5]\d)")


class Schedule(Config):
    """Schedule of a flow and its inputs: `configs/schedules/*.yaml`."""

    name: str = Field("nightly", pattern=r"^[\w.-]{1,64}$", description="name of the deployment in Prefect")
    flow: FlowName = Field("nightly", description="what is run")
    cron: str = Field("30 1 * * *", description="minute hour day month weekday")
    timezone: ZoneName = Field("UTC", description="IANA time zone of the cron line and of the windows")
    windows: tuple[str, ...] = Field(
        (), description="hours in which it may begin, such as 22:00-06:00; a firing outside them is left out"
    )
    catch_up: bool = Field(True, description="after an outage, run once for the firings that were missed")
    grace_minutes: float = Field(30.0, gt=0, description="a run that has not begun by then is missed")
    deadline_hours: float = Field(6.0, gt=0, description="a night stops by then, another run is late")
    roots: tuple[str, ...] = Field(
        (), description="folders and archives to ingest, besides scans received over the network"
    )
    configs: tuple[str, ...] = Field((), description="run configurations, one per route; for benchmark, its files")
    labels: tuple[str, ...] = Field((), description="label files to import after every ingest")
    tasks: tuple[str, ...] = Field((), description="generative tasks to run at the end of the night")

    @field_validator("cron")
    @classmethod
    def _check_cron(cls, cron: str) -> str:
        if len(cron.split()) != 5:
            raise ValueError(f"must have five fields: {_FIELDS}")
        try:
            first = next(CronSim(cron, datetime.now(UTC)), None)
        except CronSimError as error:
            no_day = "day-of-month" in str(error)
            rule = "never fires, since no such day exists" if no_day else "is not a cron line"
            raise ValueError(f"{rule} ({error}). Write {_FIELDS}") from None
        if first is None:
            raise ValueError("never fires: no year has that day and month. Correct day or month")
        return cron

    @field_validator("windows")
    @classmethod
    def _check_windows(cls, windows: tuple[str, ...]) -> tuple[str, ...]:
        for window in windows:
            if not _WINDOW.fullmatch(window) or window[:5] == window[6:] or window[6:] > "24:00":
                raise ValueError(f"{window!r:.40} is not a window such as 22:00-06:00, which may pass midnight")
        return windows

    @model_validator(mode="after")
    def _check_that_it_fires(self) -> Schedule:
        times = CronSim(self.cron, datetime.now(UTC))
        if not any(self._is_open(60 * hour + minute) for hour, minute in product(times.hours, times.minutes)):
            raise ValueError(
                f"cron: {self.cron!r} never fires within the windows {', '.join(self.windows)}. Change one of them"
            )
        return self

    def _is_open(self, minute_of_day: int) -> bool:
        return not self.windows or any(_contains(window, minute_of_day) for window in self.windows)

    def cron_lines(self) -> list[str]:
        """Return cron lines that fire within the windows only: the hours that share their minutes are one line."""
        if not self.windows:
            return [self.cron]
        times, hours_by_minutes = CronSim(self.cron, datetime.now(UTC)), dict[str, list[int]]()
        for hour in sorted(times.hours):
            open_minutes = [minute for minute in sorted(times.minutes) if self._is_open(60 * hour + minute)]
            if open_minutes:
                hours_by_minutes.setdefault(",".join(map(str, open_minutes)), []).append(hour)
        days = " ".join(self.cron.split()[2:])
        return [f"{minutes} {','.join(map(str, hours))} {days}" for minutes, hours in hours_by_minutes.items()]

    def is_open(self, moment: datetime) -> bool:
        """Whether a run may begin at a moment (aware, or UTC without time zone), by the windows."""
        local = _aware(moment).astimezone(ZoneInfo(self.timezone))
        return self._is_open(60 * local.hour + local.minute)

    def _firings(self, moment: datetime, backwards: bool) -> Iterator[datetime]:
        """Yield the firings of the lines that Prefect gets: a window keeps one that a clock change moves out of it."""
        local = _aware(moment).astimezone(ZoneInfo(self.timezone))
        return merge(*(CronSim(line, local, reverse=backwards) for line in self.cron_lines()), reverse=backwards)

    def next_firing(self, after: datetime) -> datetime:
        """Return the first firing after a moment; both in UTC without time zone, as the catalogue keeps times."""
        return _plain(next(self._firings(after, backwards=False)))

    def last_firing(self, before: datetime) -> datetime | None:
        """Return the last firing at or before a moment, likewise; None if it never fired in the last fifty years."""
        moment = _aware(before).replace(second=0, microsecond=0) + timedelta(minutes=1)  # that of this minute counts
        firing = next(self._firings(moment, backwards=True), None)
        return None if firing is None else _plain(firing)

    def counts_from(self, firing: datetime) -> datetime:
        """Return from when on a run is that of a firing (UTC without time zone): the firing itself, most of the time.

        A time that a clock change leaves out fires right after the gap; Prefect begins it earlier, by up to the gap.
        """
        zone, moment = ZoneInfo(self.timezone), _aware(firing)
        offsets = [one.astimezone(zone).utcoffset() or timedelta(0) for one in (moment - timedelta(hours=1), moment)]
        return firing - max(offsets[1] - offsets[0], timedelta(0))

    def local_day(self, firing: datetime) -> date:
        """Return the day of a firing (UTC without time zone) in the time zone of the schedule, as --date takes it."""
        return _aware(firing).astimezone(ZoneInfo(self.timezone)).date()

    def timing(self) -> dict[str, Any]:
        """Return the fields that say when it runs, without the folders that it reads."""
        return self.model_dump(mode="json", include={"name", *TIMING})


def _contains(window: str, minute_of_day: int) -> bool:
    """Whether a minute of the day lies in a window, whose end is not part of it."""
    numbers = [int(part) for part in re.split("[:-]", window)]
    start, end = 60 * numbers[0] + numbers[1], 60 * numbers[2] + numbers[3]
    inside = start <= minute_of_day, minute_of_day < end
    return all(inside) if start < end else any(inside)


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _plain(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None, microsecond=0)

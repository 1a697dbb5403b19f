"""Schedules fire when they say, across time zones, clock changes and windows; those that never fire are refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import find_shipped_file, load_config, parse_config
from pipeline.errors import ConfigError
from pipeline.stages.watch.schedule import Schedule


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"cron": "0 0 31 2 *"}, "no such day exists"),
        ({"cron": "30 1 * *"}, "must have five fields"),
        ({"cron": "0 30 1 * * *"}, "must have five fields"),  # seconds first: a habit of other schedulers
        ({"cron": "61 1 * * *"}, "is not a cron line (Bad minute)"),
        ({"timezone": "Mars/Olympus"}, "is not an IANA time zone"),
        ({"windows": ["08:00-17:00"]}, "never fires within the windows 08:00-17:00"),
        ({"windows": ["22-6"]}, "is not a window such as 22:00-06:00"),
        ({"windows": ["22:00-22:00"]}, "is not a window"),
        ({"windows": ["22:00-24:30"]}, "is not a window"),
        ({"name": "../night"}, "does not have the form"),
        ({"flow": "nap"}, "must be 'nightly'"),
        ({"grace_minutes": 0}, "must be greater than 0"),
    ],
)
def test_a_schedule_that_cannot_work_is_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(fields, Schedule, "night.yaml")
    assert sentence in str(raised.value)
    assert "night.yaml" in str(raised.value)


def test_firings_are_in_the_zone_of_the_schedule() -> None:
    berlin = Schedule(cron="30 1 * * *", timezone="Europe/Berlin")
    assert berlin.next_firing(at("2026-01-10T12:00")) == at("2026-01-11T00:30")  # UTC+1
    assert berlin.next_firing(at("2026-07-10T12:00")) == at("2026-07-10T23:30")  # UTC+2
    assert berlin.last_firing(at("2026-07-10T23:30")) == at("2026-07-10T23:30")  # that very minute counts
    assert berlin.last_firing(at("2026-07-10T23:29:59")) == at("2026-07-09T23:30")


@pytest.mark.parametrize("cron", ["30 2 * * *", "0 3 * * *"])
def test_it_fires_once_on_each_day_of_a_clock_change(cron: str) -> None:
    schedule = Schedule(cron=cron, timezone="Europe/Berlin")
    for day in ("2026-03-28T12:00", "2026-10-24T12:00"):  # 02:00 to 03:00 is left out, and comes twice
        first = schedule.next_firing(at(day))
        assert timedelta(hours=22) < schedule.next_firing(first) - first < timedelta(hours=26)


def test_a_window_keeps_its_firing_on_the_day_that_leaves_out_its_hours() -> None:
    schedule = Schedule(cron="30 2 * * *", timezone="Europe/Berlin", windows=("02:00-03:00",))
    assert schedule.next_firing(at("2026-03-28T12:00")) == at("2026-03-29T01:00")
    assert schedule.last_firing(at("2026-03-29T12:00")) == at("2026-03-29T01:00")
    moved = Schedule(cron="30 2,3 * * *", timezone="Europe/Berlin", windows=("03:00-04:00",))
    assert moved.next_firing(at("2026-03-28T12:00")) == at("2026-03-29T01:30")  # 02:30 is outside, moved or not


def test_a_run_counts_from_its_firing_or_from_where_prefect_moves_it() -> None:
    """Prefect takes 02:30 of the day without such a time with summer's offset: 00:30 UTC, half an hour before ours."""
    schedule = Schedule(cron="30 2 * * *", timezone="Europe/Berlin")
    assert schedule.counts_from(at("2026-03-29T01:00")) == at("2026-03-29T00:00")
    for usual in ("2026-03-28T01:30", "2026-03-30T00:30", "2026-10-25T00:30"):
        assert schedule.counts_from(at(usual)) == at(usual)


def test_both_ways_through_the_firings_agree() -> None:
    schedule = Schedule(cron="*/20 1-3 * * 1-5", timezone="America/New_York", windows=("23:00-02:10",))
    moment, firings = at("2026-03-05T00:00"), []
    for _ in range(60):  # over the change to summer time
        moment = schedule.next_firing(moment)
        firings.append(moment)
    for earlier, later in zip(firings, firings[1:], strict=False):
        assert schedule.last_firing(later - timedelta(seconds=1)) == earlier


def test_windows_may_pass_midnight_and_end_outside() -> None:
    schedule = Schedule(cron="0 * * * *", windows=("22:00-02:00", "12:00-13:00"))
    hours = [schedule.next_firing(at(f"2026-05-05T{hour:02}:30")).hour for hour in range(0, 24, 3)]
    assert hours == [1, 12, 12, 12, 22, 22, 22, 22]
    assert schedule.is_open(at("2026-05-05T01:59")) and not schedule.is_open(at("2026-05-05T02:00"))
    assert schedule.is_open(datetime(2026, 5, 5, 12, 0, tzinfo=UTC))


@pytest.mark.parametrize(
    ("cron", "windows", "lines"),
    [
        ("30 1 * * *", (), ["30 1 * * *"]),
        ("*/30 * * * 6", ("23:15-02:00",), ["0,30 0,1 * * 6", "30 23 * * 6"]),
    ],
)
def test_windows_become_cron_lines(cron: str, windows: tuple[str, ...], lines: list[str]) -> None:
    schedule = Schedule(cron=cron, windows=windows)
    assert schedule.cron_lines() == lines
    moment, apart = at("2026-03-05T00:00"), [Schedule(cron=line) for line in lines]
    for _ in range(20):
        expected = min(one.next_firing(moment) for one in apart)
        moment = schedule.next_firing(moment)
        assert moment == expected


def test_the_29th_of_february_is_waited_for() -> None:
    assert Schedule(cron="0 3 29 2 *").next_firing(at("2026-01-01T00:00")) == at("2028-02-29T03:00")


def test_its_timing_names_no_folder() -> None:
    timing = Schedule(roots=("/data/Smith",), labels=("/data/Smith.csv",)).timing()
    assert "Smith" not in str(timing)
    assert Schedule.model_validate(timing).cron == "30 1 * * *"


@pytest.mark.parametrize(
    "file", sorted(find_shipped_file("configs/schedules").glob("*.yaml")), ids=lambda file: file.stem
)
def test_every_shipped_schedule_is_valid_and_named_like_its_file(file: Path) -> None:
    schedule = load_config(file, Schedule)
    assert schedule.name == file.stem
    assert all(find_shipped_file(one).is_file() for one in (*schedule.configs, *schedule.tasks))
    assert schedule.cron_lines() and bool(schedule.tasks) == (schedule.flow == "generate")

"""Pace of requests: the rate holds over all threads, and hours are those of the PACS's clock."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from pipeline.dicom.network.pace import Pace, Window


class Clock:
    """A clock that advances only by sleeping."""

    def __init__(self) -> None:
        self.now, self.naps = 0.0, []

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


def paced(rate: int | None, pause: float = 0.0) -> tuple[Pace, Clock]:
    clock = Clock()
    return Pace(rate, pause, lambda: clock.now, clock.sleep), clock


def test_bytes_take_their_time_and_idle_time_is_not_saved_up() -> None:
    pace, clock = paced(1000)
    for _ in range(4):
        pace.spent(500)
    assert clock.now == pytest.approx(2.0)
    clock.now = 100.0
    pace.spent(1000)
    assert clock.now == pytest.approx(101.0)


def test_no_nap_within_an_association_is_long_and_the_rest_is_slept_after_the_series() -> None:
    pace, clock = paced(1000, pause=2.0)
    pace.spent(20_000)
    assert clock.now == pytest.approx(5.0)
    pace.rest()
    assert clock.now == pytest.approx(22.0) and clock.naps[-1] == 2.0


def test_without_a_rate_nobody_sleeps() -> None:
    pace, clock = paced(None)
    pace.spent(2**40)
    pace.rest()
    assert clock.naps == []


def test_threads_share_one_rate() -> None:
    pace = Pace(100_000)
    started = datetime.now(UTC)
    threads = [threading.Thread(target=lambda: [pace.spent(2000) for _ in range(5)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0.35 < (datetime.now(UTC) - started).total_seconds() < 3  # 40 000 bytes at 100 000 a second: 0.4 s


@pytest.mark.parametrize(
    ("span", "zone", "moment", "is_open"),
    [
        ("20:00-06:00", "UTC", "2026-01-05T20:00", True),
        ("20:00-06:00", "UTC", "2026-01-05T05:59", True),
        ("20:00-06:00", "UTC", "2026-01-05T06:00", False),
        ("20:00-06:00", "UTC", "2026-01-05T19:59", False),
        ("12:00-13:30", "UTC", "2026-01-05T13:29", True),
        ("12:00-13:30", "UTC", "2026-01-05T13:30", False),
        ("20:00-06:00", "Europe/Berlin", "2026-01-05T19:00", True),  # 20:00 in winter
        ("20:00-06:00", "Europe/Berlin", "2026-07-05T18:00", True),  # 20:00 in summer
        ("20:00-06:00", "Europe/Berlin", "2026-01-05T18:00", False),
        ("20:00-24:00", "UTC", "2026-01-05T23:59", True),
        ("20:00-24:00", "UTC", "2026-01-05T00:00", False),
    ],
)
def test_hours_are_those_of_the_clock_that_is_named(span: str, zone: str, moment: str, is_open: bool) -> None:
    window = Window.parse(span, zone)
    assert window.is_open(datetime.fromisoformat(moment).replace(tzinfo=UTC)) is is_open


def test_it_waits_until_the_hours_begin() -> None:
    clock = Clock()
    window = Window.parse("00:10-01:00", "UTC")
    window.wait(lambda: datetime.fromtimestamp(clock.now, UTC), clock.sleep)
    assert 600 <= clock.now < 660

"""The clock that rows are dated by moves as a whole, and only where a simulation moves it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from pipeline import wall_clock
from pipeline.data.catalogue.schema import now
from pipeline.dicom.identity import crosswalk_tables
from pipeline.stages.watch.clock import Tick, jump_between


@pytest.fixture
def tomorrow() -> Iterator[None]:
    wall_clock.move(timedelta(days=1))
    yield
    wall_clock.move(timedelta(days=-1))


def test_it_is_the_machines_own() -> None:
    assert abs(wall_clock.read_utc() - datetime.now(UTC)) < timedelta(seconds=5)
    assert abs(wall_clock.read_epoch_seconds() - time.time()) < 5
    assert now().tzinfo is None and now().microsecond == 0


def test_all_that_is_dated_moves_with_it(tomorrow: None) -> None:
    expected = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=1)
    for moment in (now(), crosswalk_tables.now(), wall_clock.read_utc().replace(tzinfo=None)):
        assert abs(moment - expected) < timedelta(seconds=5)


def test_the_watch_sees_it_as_a_jump() -> None:
    before = Tick.now()
    wall_clock.move(timedelta(hours=-3))
    after = Tick.now()
    wall_clock.move(timedelta(hours=3))
    assert jump_between(before, after) == pytest.approx(-3 * 3600, abs=5)

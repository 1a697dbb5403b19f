"""One alert and one recovery for each trouble, at real mail and web servers, whatever they and the clock do."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import now
from pipeline.data.catalogue.watch_schema import AlertMessageRow, AlertRow, ScheduleRow
from pipeline.stages.watch import watcher as watcher_module
from pipeline.stages.watch.alerts import count_undelivered, list_alerts
from pipeline.stages.watch.clock import Tick, jump_between
from pipeline.stages.watch.nights import register_schedules
from pipeline.stages.watch.schedule import Schedule
from pipeline.stages.watch.site_config import SiteConfig
from pipeline.stages.watch.watcher import Watch

AddNight = Callable[..., int]
NOW = "now"  # when the test runs, not when it is collected


def new_watch(settings: Settings, site: SiteConfig) -> Watch:
    return Watch(settings, site, lambda text: None)


def keys(watch: Watch) -> list[str]:
    return [condition.key for condition in watch.look()]


def expect(settings: Settings, schedule: Schedule, since_hours: float = 48) -> None:
    """Register a schedule as if it had been served for so long."""
    register_schedules(settings, [schedule])
    with Catalogue.open(settings) as catalogue, catalogue.session() as session:
        session.execute(update(ScheduleRow).values(since=now() - timedelta(hours=since_hours)))


@pytest.mark.parametrize(
    ("night", "key"),
    [
        ({}, None),
        ({"refused": 8, "new": 2}, "refused:nightly"),
        ({"refused": 5, "new": 5}, None),  # half is not more than half
        ({"refused": 0, "new": 0}, "empty:nightly"),
        ({"refused": 3, "new": 0}, "refused:nightly"),
        ({"state": "failed", "failures": 2, "errors": ["OSError"]}, "failed:nightly"),
        ({"state": "crashed"}, "stalled:nightly"),
        ({"state": "running", "ended_at": None}, "stalled:nightly"),
        ({"state": "running", "ended_at": None, "beat_at": NOW}, None),
        ({"state": "running", "ended_at": None, "beat_at": NOW, "hours": 7}, "late:nightly"),
        ({"stopped": "The night stopped at its deadline."}, "late:nightly"),
    ],
)
def test_each_bad_night_is_one_condition(
    settings: Settings, site: SiteConfig, add_night: AddNight, night: dict[str, Any], key: str | None
) -> None:
    add_night(**{name: now() if value == NOW else value for name, value in night.items()})
    assert keys(new_watch(settings, site)) == ([key] if key else [])


def test_a_missed_night_is_one_alert_and_one_recovery_at_each_receiver(
    settings: Settings, site: SiteConfig, sinks: Any, add_night: AddNight
) -> None:
    expect(settings, Schedule(cron=f"0 {(now() - timedelta(hours=3)).hour} * * *"))
    watch = new_watch(settings, site)
    for _ in range(4):
        assert keys(watch) == ["missed:nightly"]
    assert [subject for _, subject, _ in sinks.mails] == ["[North wing] CRITICAL: missed:nightly"]
    assert [path for path, _ in sinks.posts] == ["/hook", "/chat"]
    assert sinks.posts[0][1]["event"] == "opened" and sinks.posts[1][1]["text"].startswith("*[North wing] CRITICAL")
    with Catalogue.open(settings) as catalogue:
        assert [alert.state for alert in list_alerts(catalogue)] == ["open"]
    add_night(hours=0.1)
    for _ in range(3):
        assert keys(new_watch(settings, site)) == []  # a new process, such as a timer starts
    assert [to for to, _, _ in sinks.mails] == [["pacs@example.org"]] * 2
    assert sinks.mails[1][1] == "[North wing] OK: missed:nightly" and "has recovered" in sinks.mails[1][2]
    assert [body["event"] for path, body in sinks.posts if path == "/hook"] == ["opened", "recovered"]
    with Catalogue.open(settings) as catalogue:
        assert list_alerts(catalogue) == [] and list_alerts(catalogue, everything=True)[0].state == "recovered"


def test_no_firing_is_missed_before_the_schedule_was_served_or_within_its_grace(
    settings: Settings, site: SiteConfig
) -> None:
    schedule = Schedule(cron=f"{(now() - timedelta(minutes=20)).minute} * * * *", grace_minutes=30)
    expect(settings, schedule, since_hours=0.4)  # 24 minutes
    assert keys(new_watch(settings, site)) == []
    expect(settings, schedule, since_hours=2)
    assert keys(new_watch(settings, site)) == ["missed:nightly"]  # that of the hour before


def test_a_receiver_that_is_down_is_tried_again_and_hears_everything_in_order(
    settings: Settings, site: SiteConfig, sinks: Any, add_night: AddNight, forget_pauses: Callable[[], None]
) -> None:
    sinks.broken = True
    add_night(refused=8, new=2)
    said: list[str] = []
    watch = Watch(settings, site, said.append)
    watch.look()
    assert len(said) == 3 and "email did not take an alert: SMTPDataError 451" in said
    assert "hook did not take an alert: HTTPError 503" in said
    watch.look()
    assert len(said) == 3  # not before its pause is over
    add_night(hours=0.1)
    watch.look()  # it recovered before anybody heard of it
    sinks.broken = False
    forget_pauses()
    watch.look()
    assert [subject for _, subject, _ in sinks.mails] == [
        "[North wing] CRITICAL: refused:nightly", "[North wing] OK: refused:nightly",
    ]  # fmt: skip
    assert [body["event"] for path, body in sinks.posts if path == "/hook"] == ["opened", "recovered"]
    with Catalogue.open(settings) as catalogue:
        assert count_undelivered(catalogue) == 0


def test_a_receiver_that_stays_down_is_given_up_after_a_day(
    settings: Settings, site: SiteConfig, sinks: Any, add_night: AddNight, forget_pauses: Callable[[], None]
) -> None:
    sinks.broken = True
    add_night(refused=8, new=2)
    watch = new_watch(settings, site)
    watch.look()
    with Catalogue.open(settings) as catalogue, catalogue.session() as session:
        session.execute(update(AlertRow).values(opened_at=now() - timedelta(days=2)))
    forget_pauses()
    watch.look()
    with Catalogue.open(settings) as catalogue, catalogue.reading() as session:
        assert {row.state for row in session.query(AlertMessageRow)} == {"given up"}


def test_pauses_grow_and_one_set_before_the_clock_went_back_does_not_wait_for_days(
    settings: Settings, site: SiteConfig, sinks: Any, add_night: AddNight
) -> None:
    sinks.broken = True
    add_night(refused=8, new=2)
    watch = new_watch(settings, site)
    watch.look()
    with Catalogue.open(settings) as catalogue, catalogue.session() as session:
        rows = list(session.query(AlertMessageRow))
        assert all(timedelta(seconds=50) < row.try_at - now() <= timedelta(minutes=1) for row in rows)
        session.execute(update(AlertMessageRow).values(try_at=now() + timedelta(days=3)))
    sinks.broken = False
    watch.look()
    assert len(sinks.mails) == 1


def test_a_component_is_down_once_it_has_been_silent_for_a_while(
    settings: Settings, site: SiteConfig, sinks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = site.watch.model_copy(update={"check": {"pacs": "tcp://127.0.0.1:9"}, "down_seconds": 90.0})
    watch, clock = new_watch(settings, site.model_copy(update={"watch": rules})), [1000.0]
    monkeypatch.setattr(watcher_module.time, "monotonic", lambda: clock[0])
    assert keys(watch) == []
    clock[0] += 89
    assert keys(watch) == []
    clock[0] += 2
    assert keys(watch) == ["down:pacs"]
    watch.site = site.model_copy(
        update={"watch": rules.model_copy(update={"check": {"pacs": f"tcp://127.0.0.1:{sinks.web_port}"}})}
    )
    assert keys(watch) == []
    assert [subject[-9:] for _, subject, _ in sinks.mails] == ["down:pacs", "down:pacs"]


@pytest.mark.parametrize("seconds", [7200.0, -7200.0])
def test_a_clock_that_jumps_is_said_and_opens_no_false_alert(
    settings: Settings, site: SiteConfig, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    tick = Tick("boot", 1_000_000.0, 500.0)
    monkeypatch.setattr(watcher_module.Tick, "now", lambda: tick)
    watch = new_watch(settings, site)
    assert keys(watch) == []
    tick = Tick("boot", 1_000_060.0 + seconds, 560.0)
    expect(settings, Schedule(cron=f"0 {(now() - timedelta(hours=3)).hour} * * *"))
    assert set(keys(new_watch(settings, site))) == {"missed:nightly", "clock"}
    with Catalogue.open(settings) as catalogue:
        assert [alert.key for alert in list_alerts(catalogue)] == ["clock"]  # what rests on the clock waits
    tick = Tick("boot", 1_002_000.0 + seconds, 2500.0)  # half an hour later, and missed it is
    assert keys(new_watch(settings, site)) == ["missed:nightly"]
    with Catalogue.open(settings) as catalogue:
        assert [alert.key for alert in list_alerts(catalogue)] == ["missed:nightly"]


def test_clocks_are_compared_within_one_start_of_the_machine_only() -> None:
    earlier = Tick("a", 1000.0, 10.0)
    assert jump_between(earlier, Tick("a", 4660.0, 70.0)) == 3600.0
    assert jump_between(earlier, Tick("a", 1060.0 + 59, 70.0)) == 0.0  # as time servers correct it
    assert jump_between(earlier, Tick("b", 9999.0, 1.0)) == 0.0
    assert jump_between(None, earlier) == 0.0
    assert Tick.read(earlier.to_json()) == earlier and Tick.read({"wall": 1}) is None


def test_a_lost_catalogue_is_one_alert_and_one_recovery_too(settings: Settings, site: SiteConfig, sinks: Any) -> None:
    watch, file = new_watch(settings, site), settings.workspace / "catalogue.db"
    assert keys(watch) == []
    for side in settings.workspace.glob("catalogue.db-*"):
        side.unlink()
    file.rename(settings.workspace / "away.db")
    file.write_bytes(b"this is not a database" * 100)
    for _ in range(3):
        assert keys(watch) == ["catalogue"]
    file.unlink()
    (settings.workspace / "away.db").rename(file)
    for _ in range(2):
        assert keys(watch) == []
    assert [subject for _, subject, _ in sinks.mails] == [
        "[North wing] CRITICAL: catalogue", "[North wing] OK: catalogue",
    ]  # fmt: skip


def test_alerts_name_nobody(
    settings: Settings, site: SiteConfig, sinks: Any, add_night: AddNight, phantom_night: Any
) -> None:
    from pipeline.stages.watch.nights import summarise

    planted = phantom_night.planted
    report = {
        "files": 4, "new": 1, "rejected_tonight": {"not-dicom": 3}, "scored": [], "not_scored": {},
        "failures": [f"OSError: [Errno 2] No such file: '/data/{planted}'"],
    }  # fmt: skip
    add_night(**summarise(report), state="failed")
    new_watch(settings, site).look()
    sent = f"{sinks.mails}{sinks.posts}"
    assert "failed:nightly" in sent and "refused:nightly" in sent and "OSError" in sent and planted not in sent

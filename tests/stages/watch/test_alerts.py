"""No alert is lost, doubled or taken back by the wrong watch, receiver or clock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from sqlalchemy import update

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import now
from pipeline.data.catalogue.watch_schema import AlertRow, ScheduleRow
from pipeline.stages.watch import alerts as alerts_module
from pipeline.stages.watch import watcher as watcher_module
from pipeline.stages.watch.alerts import Message, count_undelivered, deliver, list_alerts
from pipeline.stages.watch.clock import Tick
from pipeline.stages.watch.nights import find_due_time, register_schedules
from pipeline.stages.watch.schedule import Schedule
from pipeline.stages.watch.senders import build_senders
from pipeline.stages.watch.site_config import SiteConfig, WatchConfig, Webhook
from pipeline.stages.watch.troubles import find_conditions
from pipeline.stages.watch.watcher import Watch

AddNight = Callable[..., int]


def new_watch(settings: Settings, site: SiteConfig) -> Watch:
    return Watch(settings, site, lambda text: None)


def keys(watch: Watch) -> list[str]:
    return [condition.key for condition in watch.look()]


def events(settings: Settings) -> list[tuple[str, str]]:
    """Every alert there ever was, with its state."""
    with Catalogue.open(settings) as catalogue:
        return [(alert.key, alert.state) for alert in list_alerts(catalogue, everything=True)]


@pytest.fixture
def moved_web() -> Iterator[tuple[str, list[str]]]:
    """A web server whose address has moved: it redirects every POST to a page that answers 200 to a GET."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append("POST")
            self.send_response(301)
            self.send_header("Location", "/new")
            self.end_headers()

        def do_GET(self) -> None:
            asked.append("GET")
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    web = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{web.server_port}/old", asked
    web.shutdown()
    web.server_close()


def test_a_webhook_that_redirects_has_not_taken_the_alert(
    settings: Settings, add_night: AddNight, moved_web: tuple[str, list[str]]
) -> None:
    url, asked = moved_web
    site = SiteConfig(webhooks=(Webhook(name="hook", url=url),), watch=WatchConfig(least_free_gib=0))
    add_night(refused=8, new=2)
    said: list[str] = []
    Watch(settings, site, said.append).look()
    assert said == ["hook did not take an alert: HTTPError 301"]
    assert asked == ["POST"]  # a redirected POST becomes a GET, without the alert
    assert events(settings) == [("refused:nightly", "opened")]


@pytest.mark.parametrize("url", ["hooks.example.org/T1", "file:///tmp/alert"])
def test_an_address_in_the_environment_obeys_the_rule_of_those_in_the_file(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("CHAT_WEBHOOK", url)
    site = SiteConfig(webhooks=(Webhook(name="chat", url_env="CHAT_WEBHOOK"),))
    with pytest.raises(Exception, match=r"CHAT_WEBHOOK.*must begin with http") as raised:
        build_senders(site)["chat"](Message("s", "opened", "disk", "critical", "Full.", "2026-01-01"))
    assert "example.org" not in str(raised.value)  # it is a secret


def test_two_watches_at_once_send_each_message_once(
    settings: Settings, site: SiteConfig, sinks: Any, add_night: AddNight
) -> None:
    """The watch of `nightread up`, and a timer's beside it, which looks while the first one's mail is on its way."""
    add_night(refused=8, new=2)
    first, second = new_watch(settings, site), new_watch(settings, site)
    receive, inside = sinks.handle_DATA, [second]

    async def receive_slowly(server: Any, session: Any, envelope: Any) -> str:
        answer = await receive(server, session, envelope)
        if inside:
            thread = threading.Thread(target=inside.pop().look)
            thread.start()
            thread.join(timeout=1)
        return str(answer)

    sinks.handle_DATA = receive_slowly
    first.look()
    second.look()
    assert [subject for _, subject, _ in sinks.mails] == ["[North wing] CRITICAL: refused:nightly"]
    assert sorted(path for path, _ in sinks.posts) == ["/chat", "/hook"]
    assert events(settings) == [("refused:nightly", "open")]


def test_a_message_whose_watch_died_while_sending_is_sent_again(
    settings: Settings, site: SiteConfig, sinks: Any, add_night: AddNight, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_night(refused=8, new=2)
    moment = [now()]
    monkeypatch.setattr(alerts_module, "now", lambda: moment[0])

    def die(message: Message) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(watcher_module, "build_senders", lambda _: {"email": die})
        new_watch(settings, site).look()
    moment[0] += timedelta(minutes=6)
    new_watch(settings, site).look()
    assert len(sinks.mails) == 1


def test_a_watch_that_is_restarted_does_not_say_that_a_silent_component_has_recovered(
    settings: Settings, site: SiteConfig, sinks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = site.watch.model_copy(update={"check": {"pacs": "tcp://127.0.0.1:9"}, "down_seconds": 90.0})
    site, clock = site.model_copy(update={"watch": rules}), [1000.0]
    monkeypatch.setattr(watcher_module.time, "monotonic", lambda: clock[0])
    watch = new_watch(settings, site)
    watch.look()
    clock[0] += 91
    assert keys(watch) == ["down:pacs"]
    assert keys(new_watch(settings, site)) == ["down:pacs"]
    assert events(settings) == [("down:pacs", "open")] and len(sinks.mails) == 1


def test_a_clock_that_goes_back_does_not_take_an_alert_back(
    settings: Settings, site: SiteConfig, sinks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tick = Tick("boot", 1_000_000.0, 500.0)
    monkeypatch.setattr(watcher_module.Tick, "now", lambda: tick)
    register_schedules(settings, [Schedule(cron=f"0 {(now() - timedelta(hours=3)).hour} * * *")])
    with Catalogue.open(settings) as catalogue, catalogue.session() as session:
        session.execute(update(ScheduleRow).values(since=now() - timedelta(days=2)))
    assert keys(new_watch(settings, site)) == ["missed:nightly"]
    with Catalogue.open(settings) as catalogue, catalogue.session() as session:
        session.execute(update(ScheduleRow).values(since=now()))  # to a clock that went back, it is not due yet
    tick = Tick("boot", 1_000_060.0 - 80_000, 560.0)
    assert keys(new_watch(settings, site)) == ["clock"]
    assert events(settings) == [("missed:nightly", "open"), ("clock", "open")]
    tick = Tick("boot", 1_002_000.0 - 80_000, 2500.0)
    assert keys(new_watch(settings, site)) == []
    assert events(settings) == [("missed:nightly", "recovered"), ("clock", "recovered")]


def test_a_message_that_was_given_up_counts_until_its_alert_is_over(
    settings: Settings, site: SiteConfig, sinks: Any, add_night: AddNight, forget_pauses: Callable[[], None]
) -> None:
    sinks.broken = True
    add_night(refused=8, new=2)
    new_watch(settings, site).look()
    with Catalogue.open(settings) as catalogue, catalogue.session() as session:
        session.execute(update(AlertRow).values(opened_at=now() - timedelta(days=2)))
    forget_pauses()
    new_watch(settings, site).look()
    sinks.broken = False
    with Catalogue.open(settings) as catalogue:
        assert count_undelivered(catalogue) == 3
    add_night(hours=0.1)
    new_watch(settings, site).look()
    with Catalogue.open(settings) as catalogue:
        assert count_undelivered(catalogue) == 0  # or `status` would warn for ever
        assert deliver(catalogue, site.name, build_senders(site)) == []


def missed(settings: Settings, site: SiteConfig, schedule: Schedule, at: str) -> list[str]:
    """Return the sentences about missed runs at a moment (UTC), if the schedule has been served since a year before."""
    register_schedules(settings, [schedule])
    with Catalogue.open(settings) as catalogue, catalogue.session() as session:
        session.execute(update(ScheduleRow).values(since=datetime(2025, 1, 1)))
    conditions = find_conditions(settings, site, [], datetime.fromisoformat(at))
    return [one.sentence for one in conditions if one.key.startswith("missed:")]


def test_a_night_that_prefect_begins_in_the_hour_left_out_is_not_missed(
    settings: Settings, site: SiteConfig, add_night: AddNight
) -> None:
    schedule = Schedule(cron="30 2 * * *", timezone="Europe/Berlin")
    began = datetime(2026, 3, 29, 0, 30)  # tests/flows/test_serve.py asks Prefect
    assert len(missed(settings, site, schedule, "2026-03-29T01:31")) == 1
    add_night(due_at=began, started_at=began, beat_at=began, ended_at=began)
    assert missed(settings, site, schedule, "2026-03-29T01:31") == []
    assert len(missed(settings, site, schedule, "2026-03-30T01:31")) == 1


@pytest.mark.parametrize(
    ("zone", "at", "day"),
    [("Asia/Tokyo", "2026-05-04T18:00", "2026-05-05"), ("America/New_York", "2026-05-05T07:00", "2026-05-05")],
)
def test_the_command_for_a_missed_night_names_the_day_of_its_time_zone(
    settings: Settings, site: SiteConfig, zone: str, at: str, day: str
) -> None:
    schedule = Schedule(cron="30 1 * * *", timezone=zone)
    (sentence,) = missed(settings, site, schedule, at)
    assert sentence.endswith(f"nightread nightly --date {day}")
    due = find_due_time(settings, "nightly", date.fromisoformat(day))
    assert f"due at {due:%Y-%m-%d %H:%M} UTC" in sentence


def test_a_second_run_of_a_night_that_received_scans_is_not_empty(
    settings: Settings, site: SiteConfig, add_night: AddNight
) -> None:
    """As a run by hand after a part of the night failed: what arrived was read the first time."""
    hour = (now() - timedelta(hours=3)).hour
    register_schedules(settings, [Schedule(cron=f"0 {hour} * * *")])
    add_night(hours=27, state="failed")
    add_night(hours=0.2, new=0, refused=0)
    assert keys(new_watch(settings, site)) == ["empty:nightly"]  # what came a day before does not count
    add_night(hours=0.15, new=5, refused=0)
    add_night(hours=0.1, new=0, refused=0)
    assert keys(new_watch(settings, site)) == []

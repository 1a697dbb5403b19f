"""A component that runs and does not answer is killed after the stated time, and only then."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline.config import Settings
from pipeline.data.catalogue.schema import now
from pipeline.stages.up.parts import Part, plan
from pipeline.stages.up.run_site import CHECK_SECONDS, HEALTHY_SECONDS, Site, running_site
from pipeline.stages.watch.components import Component
from pipeline.stages.watch.site_config import Ports, SiteConfig, WatchConfig


@dataclass
class Ward:
    """Stands for the process manager: records the components that it kills."""

    killed: list[str] = field(default_factory=list)

    def kill(self, name: str) -> None:
        self.killed.append(name)


def part(name: str, port: int) -> Part:
    return Part(Component(name, "", f"tcp://127.0.0.1:{port}"), ("true",))


def site_of(settings: Settings, ward: Any, port: int, lines: list[str]) -> Site:
    site = Site(settings, [part("listener", port)], ward, lambda _, what: lines.append(what), now(), 60.0)
    site.pids = {"listener": 7}
    return site


def test_silence_counts_from_the_first_check_without_an_answer(settings: Settings) -> None:
    ward, lines = Ward(), list[str]()
    with socket.create_server(("127.0.0.1", 0)) as server:
        site = site_of(settings, ward, server.getsockname()[1], lines)
        site.check_next(100.0)
    assert site.answered == {"listener": 7}
    for moment in (200.0, 230.0, 259.0):
        site.check_next(moment)
    assert ward.killed == []
    site.check_next(260.0)
    assert ward.killed == ["listener"] and "does not answer for 60 seconds" in lines[0]
    site.pids = {"listener": 8}  # started again: it has the time of a start before it counts as hung
    for moment in (270.0, 270.0 + HEALTHY_SECONDS - 1):
        site.check_next(moment)
    assert ward.killed == ["listener"]
    site.check_next(270.0 + HEALTHY_SECONDS)
    assert ward.killed == ["listener", "listener"]


def test_one_that_is_being_restarted_or_is_replaced_is_not_killed(settings: Settings) -> None:
    ward = Ward()
    site = site_of(settings, ward, 9, [])
    site.answered = {"listener": 7}
    site.check_next(0.0)
    site.pids = {"listener": 0}
    site.check_next(100.0)
    site.pids, site.answered = {"listener": 9}, {"listener": 9}
    site.check_next(200.0)
    site.check_next(259.0)
    assert ward.killed == []


def test_the_time_is_stated_in_the_site_and_may_be_never() -> None:
    assert WatchConfig().restart_seconds == 180 and WatchConfig(restart_seconds=0).restart_seconds == 0
    assert CHECK_SECONDS < 180


@pytest.mark.slow
def test_a_stopped_listener_is_replaced(settings: Settings) -> None:
    """SIGSTOP leaves the port open and the process running by its state, as a deadlock does; C-ECHO tells."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    lines, ended = list[str](), threading.Event()
    parts = plan(settings, SiteConfig(ports=Ports(listener=port)), ("listener",))
    with running_site(settings, parts, lambda _, what: lines.append(what), ended, 3.0) as site:
        os.kill(site.pids["listener"], signal.SIGSTOP)
        socket.create_connection(("127.0.0.1", port), timeout=5).close()  # the port alone would say that all is well
        keeper = threading.Thread(target=site.keep, args=(ended,))
        keeper.start()
        deadline = time.monotonic() + 240
        while "is ready again" not in lines and time.monotonic() < deadline:
            time.sleep(0.2)
        ended.set()
        keeper.join(timeout=240)
    assert [what for what in lines if "does not answer" in what] and lines[-1] == "is ready again"

"""A whole site on one machine: start every component, wait until each is healthy, keep them running, stop them all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import now
from pipeline.errors import ConfigError
from pipeline.stages.up.leftovers import end_marked
from pipeline.stages.up.parts import Part, check_ports, mark_of
from pipeline.stages.up.supervise import Manager, managing
from pipeline.stages.watch.components import FOLDER, RUNNING, write_running

HEALTHY_SECONDS = 600.0
LOOK_SECONDS = 1.0
CHECK_SECONDS = 5.0  # between two health checks, of one component after the other
AGAIN_SECONDS = 300.0  # after which a component that the process manager gave up is started again
LOG_LINES = 15
TRIES = 2  # of a component that has never been healthy, before its configuration counts as wrong

Tell = Callable[[str, str], None]  # name of a component, what happened to it


@contextmanager
def running_site(
    settings: Settings, parts: Sequence[Part], tell: Tell, ended: threading.Event, restart_seconds: float = 0.0
) -> Iterator[Site]:
    """Start the components and yield once all are healthy; stop everything at the end, and leave no process behind.

    Args:
        settings: settings of the workspace.
        parts: the components, in the order of starting.
        tell: called with the name of a component and what happened to it.
        ended: set when the user asks for the end, also while it is still starting.
        restart_seconds: a component that runs and does not answer for so long is restarted; 0 leaves it.

    Raises:
        ConfigError: another `up` runs on this workspace, a port is in use, or a component does not become healthy.
    """
    folder = settings.workspace / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with _holding(folder):
        end_marked(mark_of(settings))  # of an `up` that was killed
        check_ports(parts)
        Catalogue.open(settings).close()  # its tables are made once, and not by all components at once
        started_at = now()
        with managing(settings, parts) as manager:
            site = Site(settings, parts, manager, tell, started_at, restart_seconds)
            write_running(settings, tuple(part.component for part in parts), started_at)
            try:
                site.start(ended)
                yield site
            finally:
                if manager.is_alive():  # otherwise the record remains: what should run does not, and the watch says so
                    (folder / RUNNING).unlink(missing_ok=True)
                manager.stop()
                end_marked(mark_of(settings))


@contextmanager
def _holding(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / "up.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError(
            "nightread up is running on this workspace already, and two would start everything twice. See nightread "
            "status, or choose another workspace with -w"
        ) from None
    try:
        yield
    finally:
        lock.release()


@dataclass
class Site:
    """The running components."""

    settings: Settings
    parts: Sequence[Part]
    manager: Manager
    tell: Tell
    started_at: datetime
    restart_seconds: float = 0.0
    pids: dict[str, int] = field(default_factory=dict)
    given_up: dict[str, float] = field(default_factory=dict)
    tries: dict[str, set[int]] = field(default_factory=dict)  # process ids of each component
    recovering: dict[str, datetime] = field(default_factory=dict)
    silent: dict[str, tuple[int, float]] = field(default_factory=dict)  # process id, and since when it does not answer
    answered: dict[str, int] = field(default_factory=dict)  # process id that has answered
    checks: int = 0
    checked_at: float = 0.0

    def start(self, ended: threading.Event) -> None:
        """Start every component and wait until all are healthy, or the end is requested."""
        deadline, waiting = time.monotonic() + HEALTHY_SECONDS, {part.name: part for part in self.parts}
        while waiting and not ended.is_set():
            for part in waiting.values():
                if part.after not in waiting:
                    self.manager.start(part.name)
            self._look()
            for name in [name for name, part in waiting.items() if self._is_healthy(part)]:
                del waiting[name]
                self.tell(name, "is ready")
            if waiting and time.monotonic() > deadline:
                raise ConfigError(self._late(next(iter(waiting))))
            self._check_for_early_ends(waiting)
            ended.wait(LOOK_SECONDS)

    def _is_healthy(self, part: Part) -> bool:
        return part.name in self.pids and part.component.is_up(self.settings, self.started_at)

    def _check_for_early_ends(self, waiting: dict[str, Part]) -> None:
        """Fail soon when a component dies again and again before it was ever healthy: its configuration is wrong."""
        for name, (_, pid) in self.manager.states().items():
            self.tries.setdefault(name, set()).add(pid)
            if name in waiting and len(self.tries[name] - {0}) > TRIES:
                raise ConfigError(self._late(name))

    def _late(self, name: str) -> str:
        log = self.settings.workspace / FOLDER / "logs" / f"{name}.log"
        text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        end = "\n".join(text.splitlines()[-LOG_LINES:])
        return f"The component {name} did not become healthy. The end of its log, {log}:\n{end}"

    def keep(self, ended: threading.Event) -> None:
        """Watch over the components until `ended` is set.

        Raises:
            ConfigError: the process manager itself died.
        """
        self.answered = dict(self.pids)
        while not ended.wait(LOOK_SECONDS):
            self._look()
            if self.restart_seconds and time.monotonic() - self.checked_at >= CHECK_SECONDS:
                self.check_next(time.monotonic())

    def check_next(self, moment: float) -> None:
        """Ask the next component whether it is healthy, and kill one that was silent too long: it is then restarted.

        A process that has never answered has the time of a start (`HEALTHY_SECONDS`) before it counts as hung.

        Args:
            moment: seconds of the monotonic clock.
        """
        part, self.checked_at = self.parts[self.checks % len(self.parts)], moment
        self.checks += 1
        name, pid = part.name, self.pids.get(part.name, 0)
        if not pid or part.component.is_up(self.settings):
            self.answered[name] = pid
            self.silent.pop(name, None)
            return
        before, since = self.silent.get(name, (pid, moment))
        self.silent[name] = (pid, since if before == pid else moment)
        patience = (
            self.restart_seconds if self.answered.get(name) == pid else max(self.restart_seconds, HEALTHY_SECONDS)
        )
        if moment - self.silent[name][1] >= patience:
            del self.silent[name]
            self.tell(name, f"runs but does not answer for {patience:g} seconds: it is killed, and starts again")
            self.manager.kill(name)

    def _look(self) -> None:
        """Say what died and what runs again; start again what was given up a while ago."""
        if not self.manager.is_alive():
            raise ConfigError("The process manager died, and everything was stopped. Start it again: nightread up")
        for name, (state, pid) in self.manager.states().items():
            before = self.pids.get(name)
            if state == "RUNNING" and pid != before:
                self.pids[name] = pid
                self.given_up.pop(name, None)
            elif before and state != "RUNNING":
                self.pids[name] = 0
                self.recovering[name] = now()
                self.tell(name, "died, and is being restarted")
            if state == "FATAL":
                self._give_up(name)
        for part in self.parts:
            since = self.recovering.get(part.name)
            if since is not None and self.pids[part.name] and part.component.is_up(self.settings, since):
                del self.recovering[part.name]
                self.tell(part.name, "is ready again")

    def _give_up(self, name: str) -> None:
        since = self.given_up.setdefault(name, time.monotonic())
        if time.monotonic() - since >= AGAIN_SECONDS:
            self.given_up[name] = time.monotonic()
            self.manager.start(name)

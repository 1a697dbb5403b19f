"""A year of whole nights on a simulated calendar, with all that goes wrong in one: cost, growth and alerts per night.

Every night is a process of its own, forked at its simulated date, as a scheduler starts them. In the morning the watch
looks at it, and its alerts are compared with what was let go wrong.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from pipeline import wall_clock
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import now
from pipeline.dicom.phantom.folder import write_phantoms
from pipeline.errors import SendError, UnforeseenError
from pipeline.stages.audit.retention import retain
from pipeline.stages.audit.retention_policy import RetentionPolicy
from pipeline.stages.reliability.calendar import RETENTION_EVERY, Event, Plan, plan_year
from pipeline.stages.reliability.faults import PacsGone
from pipeline.stages.reliability.forked import import_like, run_forked
from pipeline.stages.reliability.upgraded_scanner import upgrade_scanner
from pipeline.stages.reliability.whole_night import Hospital, prepare, run_night
from pipeline.stages.watch.alerts import list_alerts, update_alerts
from pipeline.stages.watch.site_config import SiteConfig, WatchConfig
from pipeline.stages.watch.troubles import find_conditions

MORNING = timedelta(hours=6)
SITE = SiteConfig(watch=WatchConfig(least_free_gib=0))
KEPT_DAYS = 60
POLICY = RetentionPolicy(pixels_days=KEPT_DAYS, pictures_days=KEPT_DAYS, outbox_days=KEPT_DAYS)
EARLY, LATE = slice(5, 15), slice(-10, None)  # nights that are compared
Mark = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SimulatedNight:
    """One night.

    Attributes:
        number: of the night, from 0.
        event: what was let go wrong.
        wall_seconds: of the night's parts; 0 for a night that did not run.
        cpu_seconds: processor time of the night's parts.
        megabytes: size by part of the workspace in the morning: catalogue, mlflow, pixels, other.
    """

    number: int
    event: Event
    wall_seconds: float
    cpu_seconds: float
    megabytes: dict[str, float]


@dataclass(frozen=True, slots=True)
class Raised:
    """One alert: its key, and the nights before whose mornings it opened and recovered."""

    key: str
    opened: int
    recovered: int | None


@dataclass(frozen=True, slots=True)
class SimulatedYear:
    """Nights, the alerts that they raised, and those that had to be raised: (key, night)."""

    nights: tuple[SimulatedNight, ...]
    raised: tuple[Raised, ...]
    expected: tuple[tuple[str, int], ...]
    upgrade: int

    @property
    def missing(self) -> list[tuple[str, int]]:
        """Alerts that had to be raised and were not."""
        return sorted((Counter(self.expected) - Counter(self._sudden())).elements())

    @property
    def surplus(self) -> list[tuple[str, int]]:
        """Alerts that nothing had caused."""
        return sorted((Counter(self._sudden()) - Counter(self.expected)).elements())

    @property
    def drift(self) -> list[int]:
        """Nights on which drift was alerted to."""
        return [one.opened for one in self.raised if one.key.startswith("drift:")]

    def _sudden(self) -> list[tuple[str, int]]:
        sudden = (one for one in self.raised if not one.key.startswith("drift:"))
        return [("unsent:" if one.key.startswith("unsent:") else one.key, one.opened) for one in sudden]

    def slowdown(self) -> float:
        """Return the median processor time of the last ordinary nights divided by that of early ones."""
        ordinary = [one.cpu_seconds for one in self.nights if one.event is Event.NONE]
        return statistics.median(ordinary[LATE]) / statistics.median(ordinary[EARLY])


def simulate_year(
    nights: int, studies: int, seed: int, folder: Path | None = None, minutes: float = float("inf")
) -> SimulatedYear:
    """Run so many nights on a simulated calendar; the process must not have computed with torch before.

    Args:
        nights: of the calendar.
        studies: that arrive each night, of one slice.
        seed: of phantoms and of what goes wrong.
        folder: where the workspace is made; default a temporary one.
        minutes: after which no further night begins.

    Raises:
        UnforeseenError: a night fails that nothing was let befall.
    """
    end = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="nightread-year-", dir=folder) as place:
        year = _Year(Path(place), studies, plan_year(nights, seed), seed)
        done = []
        try:
            for number in range(nights):
                if time.monotonic() > end:
                    break
                done.append(year.run(number))
                wall_clock.move(timedelta(days=1))
        finally:
            wall_clock.move(-timedelta(days=len(done)))
        return SimulatedYear(tuple(done), tuple(year.list_raised()), year.plan.expect(len(done)), year.plan.upgrade)


class _Year:
    """A workspace, the inbox of all nights, and the PACS."""

    def __init__(self, folder: Path, studies: int, plan: Plan, seed: int) -> None:
        self.folder, self.studies, self.plan, self.seed = folder, studies, plan, seed
        self.inbox, self.outbox = folder / "inbox", folder / "archive-of-the-pacs"
        self.outbox.mkdir()
        self.pacs = PacsGone()
        _succeed(import_like(lambda _: prepare(folder / "site", tonight=1) and None))
        self.begins = now()
        self.hospital = self.pacs.furnish(Hospital(folder / "site" / "workspace", self.inbox, self.outbox))
        self.settings = Settings(workspace=self.hospital.workspace, workers=1)

    def run(self, number: int) -> SimulatedNight:
        """Let one night's scans arrive, run the night unless it is missed, and look at it in the morning."""
        event = self.plan.events.get(number, Event.NONE)
        self._receive(number, event)
        wall = cpu = 0.0
        if event is not Event.MISSED:
            with contextlib.nullcontext() if event is Event.PACS_GONE else self.pacs.healthy(self.hospital):
                night = run_forked(partial(self._night, number, event))
            if event is Event.NONE and night.status:
                raise UnforeseenError(f"Night {number} failed in its part {night.phase!r}:\n{night.error}")
            wall, cpu = night.result or (0.0, 0.0)
        _succeed(run_forked(lambda _: self._look()))
        return SimulatedNight(number, event, wall, cpu, _measure_folders(self.hospital.workspace))

    def _receive(self, number: int, event: Event) -> None:
        folder = self.inbox / f"{number:03d}"
        folder.mkdir(parents=True)
        if event is Event.REFUSED:
            for place in range(2 * self.studies):
                (folder / f"{place}.dcm").write_bytes(b"\0" * 200)
        if event is Event.EMPTY:
            return
        # The seeds of phantoms begin above those of the champion's patients.
        write_phantoms(folder, self.studies, "MR", 1 / 6, 1000 + 400 * self.seed + number, size=32, grades=(1,))
        if number >= self.plan.upgrade:
            upgrade_scanner(folder, number)

    def _night(self, number: int, event: Event, mark: Mark) -> tuple[float, float]:
        def die(phase: str) -> None:
            """Be killed in the middle, in a night that is."""
            mark(phase)
            if event is Event.KILLED and phase == "report":
                os.kill(os.getpid(), signal.SIGKILL)

        wall, cpu = time.monotonic(), time.process_time()
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        folders = [self.inbox / f"{earlier:03d}" for earlier in range(max(0, number - 7), number + 1)]
        with contextlib.suppress(SendError):
            run_night(self.settings, folders, self.hospital.destination, die)
        if number % RETENTION_EVERY == RETENTION_EVERY - 1:
            retain(self.settings, POLICY)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spawned = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
        return time.monotonic() - wall, time.process_time() - cpu + spawned

    def _look(self) -> None:
        conditions = find_conditions(self.settings, SITE, [], now() + MORNING)
        with Catalogue.open(self.settings) as catalogue:
            update_alerts(catalogue, conditions, [])

    def list_raised(self) -> list[Raised]:
        """Return every alert of the year, by nights."""
        with Catalogue.open(self.settings) as catalogue:
            rows = list_alerts(catalogue, everything=True)
        return [Raised(row.key, self._number(row.opened_at), self._number(row.recovered_at)) for row in rows]  # type: ignore[arg-type]

    def _number(self, moment: datetime | None) -> int | None:
        return None if moment is None else round((moment - self.begins) / timedelta(days=1))


def _succeed(ended: Any) -> None:
    if ended.status:
        raise UnforeseenError(f"A step of a simulated year failed:\n{ended.error}")


def _measure_folders(workspace: Path) -> dict[str, float]:
    sizes: Counter[str] = Counter()
    for file in workspace.rglob("*"):
        if file.is_file():
            top = file.relative_to(workspace).parts[0]
            part = "catalogue" if top.startswith("catalogue.db") else top if top in ("mlflow", "pixels") else "other"
            sizes[part] += file.stat().st_size
    return {part: round(sizes[part] / 2**20, 3) for part in ("catalogue", "mlflow", "pixels", "other")}


def show_year(year: SimulatedYear, every: int = 30) -> list[dict[str, Any]]:
    """Return the rows of the table: one per so many nights, ordinary nights' times and sizes at the end."""
    parts = [year.nights[start : start + every] for start in range(0, len(year.nights), every)]
    return [_row(year, part) for part in parts]


def _row(year: SimulatedYear, part: Sequence[SimulatedNight]) -> dict[str, Any]:
    ordinary = [one for one in part if one.event is Event.NONE] or list(part)
    first, last = part[0].number, part[-1].number
    opened = sum(first <= one.opened <= last for one in year.raised)
    sizes = {f"{name}, MB": f"{value:.1f}" for name, value in part[-1].megabytes.items()}
    return {
        "nights": f"{first + 1} to {last + 1}",
        "went wrong": sum(one.event is not Event.NONE for one in part),
        "alerts opened": opened,
        "wall, median s": f"{statistics.median(one.wall_seconds for one in ordinary):.2f}",
        "processor, median s": f"{statistics.median(one.cpu_seconds for one in ordinary):.2f}",
        **sizes,
    }

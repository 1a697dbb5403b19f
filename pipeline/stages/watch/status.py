"""The site at a glance: last night, next run, champions, components, alerts, and one word for monitoring."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import now
from pipeline.data.catalogue.watch_schema import NightRow
from pipeline.errors import NightreadError
from pipeline.stages.watch.alerts import count_undelivered, list_alerts
from pipeline.stages.watch.components import Component, check_components, list_components
from pipeline.stages.watch.nights import last_night, list_schedules
from pipeline.stages.watch.site_config import SiteConfig
from pipeline.stages.watch.troubles import CRITICAL, Condition, find_conditions
from pipeline.tracking.registry import list_routes_with_champions, read_aliases

CODES = {"ok": 0, "warning": 1, "critical": 2}  # as monitoring plugins answer (Nagios); 3 is unknown


@dataclass(frozen=True, slots=True)
class Status:
    """State of a site.

    Attributes:
        last: the newest night of each schedule.
        upcoming: when each schedule is due next (UTC).
        champions: version of each route's champion.
        components: address and state of each component.
        conditions: what is wrong now.
        alerts: what has been raised and has not recovered.
        undelivered: messages of alerts that nobody took.
    """

    last: list[dict[str, Any]]
    upcoming: dict[str, str]
    champions: dict[str, str]
    components: list[dict[str, Any]]
    conditions: list[Condition]
    alerts: list[dict[str, Any]]
    undelivered: int

    @property
    def word(self) -> str:
        """One of ok, warning and critical: the worst of what is wrong."""
        if any(condition.severity == CRITICAL for condition in self.conditions):
            return "critical"
        return "warning" if self.conditions or self.undelivered or not self.last else "ok"

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON."""
        return {
            "status": self.word,
            "last": self.last,
            "next": self.upcoming,
            "champions": self.champions,
            "components": self.components,
            "conditions": [
                {"key": one.key, "severity": one.severity, "sentence": one.sentence} for one in self.conditions
            ],
            "alerts": self.alerts,
            "undelivered": self.undelivered,
        }

    def headline(self) -> str:
        """Return one line, as monitoring systems show it."""
        if self.conditions:
            return f"{self.word.upper()}: {self.conditions[0].sentence}"
        if not self.last:
            return "WARNING: No night has run yet. Run one: nightread nightly FOLDER"
        if self.undelivered:
            return f"WARNING: {self.undelivered} messages of alerts have not been delivered."
        return f"OK: {night_sentence(self.last[0])}"


def night_sentence(night: dict[str, Any]) -> str:
    """Return one sentence about a night: when, how it ended, and its counts."""
    counts = [f"{night[key]} {word}" for key, word in COUNTS.items() if night.get(key) is not None]
    counts += [f"{night['left']} left to the next night"] if night.get("left") else []
    took = f" after {_span(night['seconds'])}" if night.get("seconds") is not None else ""
    began = f"{night['schedule']} of {night['started_at']} UTC: {night['state']}{took}"
    return f"{began}. {', '.join(counts).capitalize()}." if counts else f"{began}."


COUNTS = {"new": "new images", "scored": "studies scored", "flagged": "flagged", "refused": "files refused"}


def _span(seconds: float) -> str:
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def read_status(settings: Settings, site: SiteConfig, at: datetime | None = None) -> Status:
    """Return the state of a site; nothing is created or changed.

    Args:
        settings: settings of the workspace.
        site: its components and the rules of the watch.
        at: the time to judge by (UTC without time zone); None for now.

    Raises:
        ConfigError: there is no such workspace.
        CatalogueError: the catalogue cannot be read.
    """
    Catalogue.check_exists(settings)
    components = list_components(settings, site)
    alive = check_components(settings, components)
    conditions = find_conditions(settings, site, [name for name, up in alive.items() if not up], at)
    with Catalogue.open(settings) as catalogue:
        schedules = list_schedules(catalogue)
        names = dict.fromkeys(["nightly", *(schedule.name for schedule, _ in schedules)])
        nights = [night for name in names if (night := last_night(catalogue, name))]
        upcoming = {one.name: f"{one.next_firing(at or now()):%Y-%m-%d %H:%M}" for one, _ in schedules}
        alerts = [
            {"key": row.key, "state": row.state, "since": f"{row.opened_at:%Y-%m-%d %H:%M}", "sentence": row.sentence}
            for row in list_alerts(catalogue)
        ]
        undelivered = count_undelivered(catalogue)
    return Status(
        [_last(night) for night in nights],
        upcoming,
        _champions(settings),
        [_state(component, alive[component.name]) for component in components],
        conditions,
        alerts,
        undelivered,
    )


def _last(night: NightRow) -> dict[str, Any]:
    times = {"due_at": night.due_at, "started_at": night.started_at, "ended_at": night.ended_at}
    return {
        "schedule": night.schedule,
        "state": night.state,
        **{name: f"{moment:%Y-%m-%d %H:%M}" if moment else None for name, moment in times.items()},
        **night.summary,
    }


def _state(component: Component, up: bool) -> dict[str, Any]:
    return {"component": component.name, "state": "up" if up else "down", "address": component.address}


def _champions(settings: Settings) -> dict[str, str]:
    if settings.mlflow_uri is None and not (settings.workspace / "mlflow" / "mlflow.db").exists():
        return {}
    try:
        return {route: read_aliases(settings, route)["champion"] for route in list_routes_with_champions(settings)}
    except NightreadError:  # a registry that does not answer is a component that is down, and not the end of a status
        return {}

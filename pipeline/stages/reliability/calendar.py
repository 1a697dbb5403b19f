"""A calendar of what goes wrong in a simulated year, and the alerts that it has to raise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

RETENTION_EVERY = 7
QUIET = 8  # first nights in which nothing goes wrong


class Event(Enum):
    """What goes wrong in a night."""

    NONE = "nothing"
    EMPTY = "no scan arrives"
    MISSED = "the night does not run"
    REFUSED = "most files are broken"
    PACS_GONE = "the PACS does not answer"
    KILLED = "the night is killed"


ALERTS: Mapping[Event, tuple[str, ...]] = {
    Event.EMPTY: ("empty:nightly",),
    Event.MISSED: ("missed:nightly",),
    Event.REFUSED: ("refused:nightly",),
    Event.PACS_GONE: ("failed:nightly", "unsent:"),
    Event.KILLED: ("stalled:nightly",),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Events by night, and the night from which scans come from an upgraded scanner."""

    events: dict[int, Event]
    upgrade: int

    def expect(self, nights: int) -> tuple[tuple[str, int], ...]:
        """Return the alerts (key, night) of the first nights; one that goes on from the night before opens nothing."""
        return tuple(
            (key, night)
            for night, event in sorted(self.events.items())
            if night < nights and self.events.get(night - 1) is not event
            for key in ALERTS[event]
        )


def plan_year(nights: int, seed: int) -> Plan:
    """Return a plan in which about one night in seven goes wrong, with two ordinary nights between two faults.

    Outages last for one to three nights.
    """
    rng = np.random.default_rng(seed)
    kinds = [kind for kind in Event if kind is not Event.NONE]
    events: dict[int, Event] = {}
    night, turn = QUIET, 0
    while (night := night + int(rng.integers(3, 10))) < nights - 3:
        kind = kinds[turn % len(kinds)]
        lasts = int(rng.integers(1, 4)) if kind is Event.MISSED else 1
        events |= {night + day: kind for day in range(lasts)}
        night, turn = night + lasts, turn + 1
    return Plan(events, upgrade=int(nights * 0.6))

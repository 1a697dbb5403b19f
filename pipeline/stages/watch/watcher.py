"""The watch: looks at nights and components from outside, and raises one alert and one recovery for each trouble.

It needs the catalogue and nothing else: no Prefect, no MLflow, no reading list. Its own process is started by
`nightread up`, or by a timer (`nightread watch --once`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import now
from pipeline.errors import CatalogueError
from pipeline.stages.watch.alerts import Message, Send, deliver, list_alerts, update_alerts
from pipeline.stages.watch.clock import Tick, jump_between
from pipeline.stages.watch.components import check_components, list_components
from pipeline.stages.watch.nights import beat, read_beat
from pipeline.stages.watch.senders import build_senders
from pipeline.stages.watch.site_config import SiteConfig
from pipeline.stages.watch.troubles import CRITICAL, WARNING, Condition, find_conditions

BEAT = "watch"
HELD_SECONDS = 1800.0  # after a jump of the clock, nothing that rests on it is opened for so long
_LOST = Condition("catalogue", CRITICAL, "The catalogue cannot be opened: the nights cannot be watched, nor written.")

Say = Callable[[str], None]


@dataclass
class Watch:
    """The watch's memory between two looks; what must survive its process is in the catalogue."""

    settings: Settings
    site: SiteConfig
    say: Say
    silent_since: dict[str, float] = field(default_factory=dict)  # monotonic seconds, by component
    lost: Condition | None = None  # the catalogue, as raised
    lost_for: set[str] = field(default_factory=set)  # receivers that know it

    def look(self) -> list[Condition]:
        """Look once: find what is wrong, update the alerts, send what waits; return what is wrong."""
        senders = build_senders(self.site)
        try:
            conditions, held = self._conditions()
            with Catalogue.open(self.settings) as catalogue:
                update_alerts(catalogue, conditions, list(senders), held)
                for failure in deliver(catalogue, self.site.name, senders):
                    self.say(failure)
        except CatalogueError as error:
            self._without_catalogue(error, senders)
            return [_LOST]
        self._with_catalogue(senders)
        return conditions

    def _conditions(self) -> tuple[list[Condition], bool]:
        alive = check_components(self.settings, list_components(self.settings, self.site))
        own = {name: True if name == BEAT else up for name, up in alive.items()}
        clock, held = self._clock()
        found_now = find_conditions(self.settings, self.site, self._down(own))
        return [*found_now, *clock], held

    def _down(self, alive: Mapping[str, bool]) -> list[str]:
        """Return the components that have been silent for long enough, by the monotonic clock.

        One with an alert is down until it answers, although a watch that has just begun does not know since when.
        """
        moment = time.monotonic()
        self.silent_since = {
            name: self.silent_since.get(name, moment) for name, answers in alive.items() if not answers
        }
        patience = self.site.watch.down_seconds
        with Catalogue.open(self.settings) as catalogue:
            alerted = {alert.key for alert in list_alerts(catalogue)}
        return [
            name for name, since in self.silent_since.items() if moment - since >= patience or f"down:{name}" in alerted
        ]

    def _clock(self) -> tuple[list[Condition], bool]:
        """Note both clocks in the catalogue; return the condition of a jump while it is recent, and whether it is."""
        tick = Tick.now()
        with Catalogue.open(self.settings) as catalogue:
            before = read_beat(catalogue, BEAT)
        detail = dict(before.detail) if before else {}
        if jump := jump_between(Tick.read(detail.get("tick")), tick):
            detail |= {"jump": jump, "jumped": tick.to_json()}
        jumped = Tick.read(detail.get("jumped"))
        recent = jumped is not None and jumped.boot == tick.boot and tick.steady - jumped.steady < HELD_SECONDS
        beat(self.settings, BEAT, detail | {"tick": tick.to_json()})
        if not recent:
            return [], False
        way = "forward" if detail["jump"] > 0 else "back"
        sentence = f"The clock of this machine was moved {way} by {abs(detail['jump']):.0f} seconds. Check its time."
        return [Condition("clock", WARNING, sentence)], True

    def _without_catalogue(self, error: CatalogueError, senders: Mapping[str, Send]) -> None:
        """Tell every receiver once, from memory, since nothing can be written down."""
        if self.lost is None:
            self.lost = _LOST
            self.say(str(error))
        self._tell("opened", {name: send for name, send in senders.items() if name not in self.lost_for})

    def _with_catalogue(self, senders: Mapping[str, Send]) -> None:
        if self.lost is not None:
            self._tell("recovered", {name: send for name, send in senders.items() if name in self.lost_for})
            self.lost, self.lost_for = None, set()

    def _tell(self, event: str, senders: Mapping[str, Send]) -> None:
        message = Message(self.site.name, event, _LOST.key, _LOST.severity, _LOST.sentence, f"{now():%Y-%m-%d %H:%M}")
        for name, send in senders.items():
            with contextlib.suppress(Exception):  # whatever a receiver does, the watch goes on
                send(message)
                self.lost_for.add(name)


def keep_watch(watch: Watch, ended: threading.Event) -> None:
    """Look again and again until `ended` is set; an unforeseen error is said, and the watch goes on."""
    while not ended.is_set():
        try:
            watch.look()
        except Exception as error:
            watch.say(f"A look of the watch failed: {type(error).__name__}")
        ended.wait(watch.site.watch.every_seconds)

"""Nights that a fault befalls: how they end, what the watch says, and whether the next night heals them."""

from __future__ import annotations

import math
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import now
from pipeline.stages.reliability.faults import Blow, ClockJumped, DatabaseLocked, DiskFull, Fault, Mark, PacsGone
from pipeline.stages.reliability.final_state import compare
from pipeline.stages.reliability.forked import Ended, run_forked
from pipeline.stages.reliability.lost_servers import MlflowGone, PrefectGone
from pipeline.stages.reliability.ward import Ward, prepare_template
from pipeline.stages.reliability.whole_night import Hospital
from pipeline.stages.watch.nights import last_night
from pipeline.stages.watch.site_config import SiteConfig, WatchConfig
from pipeline.stages.watch.troubles import find_conditions

KINDS: tuple[type[Fault], ...] = (DiskFull, DatabaseLocked, ClockJumped, PacsGone, MlflowGone, PrefectGone)
FAULTS = {kind.name: kind for kind in KINDS}
UNDISTURBED = 1  # one that differed by itself would differ from the healed nights, too
LATER = timedelta(hours=1)  # when the watch judges: a night without a heartbeat is dead by then


@dataclass(frozen=True, slots=True)
class FaultyNight:
    """One night that a fault befell.

    Attributes:
        fault: its name.
        share: how far into the night it struck, from 0 to 1.
        phase: the part that the night had reached when it ended; "" for all of them.
        failure: class, exit code and sentence of the error; () where the night went on regardless.
        state: how the catalogue says that the night ended.
        alerts: keys of what the watch finds an hour later.
        healed_in: seconds of the next night.
        differences: what then differs from an undisturbed night.
    """

    fault: str
    share: float
    phase: str
    failure: tuple[str, int, str] | tuple[()]
    state: str
    alerts: tuple[str, ...]
    healed_in: float
    differences: tuple[str, ...]

    @property
    def is_clear(self) -> bool:
        """Whether it ended well, or with an error of ours that the watch alerts to."""
        return not self.failure or (self.failure[0] != "UnforeseenError" and bool(self.alerts))


def measure_faults(
    names: Sequence[str], nights: int, seed: int, folder: Path | None = None, minutes: float = math.inf
) -> list[FaultyNight]:
    """Let each fault befall so many nights, one in each equal share of a night, and run the next night after each.

    Args:
        names: faults (`FAULTS`).
        nights: disturbed nights per fault.
        seed: of the moments.
        folder: where the workspaces are made; default a temporary one.
        minutes: after which no further night begins.

    Raises:
        UnforeseenError: an undisturbed night fails, or one that follows a fault.
        ConfigError: a fault cannot be brought about on this machine.
    """
    end, done = time.monotonic() + 60 * minutes, list[FaultyNight]()
    with tempfile.TemporaryDirectory(prefix="nightread-faults-", dir=folder) as place:
        template = prepare_template(Path(place) / "template")
        for name in names:
            rng = np.random.default_rng(seed)
            ward = Ward(Path(place), template, FAULTS[name](), UNDISTURBED)
            for number in range(nights):
                if time.monotonic() > end:
                    break
                done.append(_befall(ward, (number + float(rng.uniform())) / nights, number))
    return done


def _befall(ward: Ward, share: float, number: int) -> FaultyNight:
    fault = ward.fault
    with fault.site(ward.folder / "site") as place:
        hospital = ward.copied(place)
        with fault.broken(hospital, share, ward.seconds, number) as blow:
            ended = run_forked(lambda mark: _night(fault, hospital, blow, mark), blow.after, blow.strike)
        with fault.healthy(hospital):
            judged = run_forked(lambda _: _judge(hospital))
            again = ward.run_next(hospital)
    differing = compare(ward.expected, again.result["state"])
    state, alerts = judged.result
    return FaultyNight(
        fault.name, share, ended.phase, _failure(ended), state, tuple(alerts), again.marks[-1][1], tuple(differing)
    )


def _night(fault: Fault, hospital: Hospital, blow: Blow, mark: Mark) -> None:
    blow.within()
    fault.night(hospital, mark)


def _failure(ended: Ended) -> tuple[str, int, str] | tuple[()]:
    if ended.status and not ended.failure:
        return ("no word", ended.status, "The process ended without an error.")
    return ended.failure


def _judge(hospital: Hospital) -> tuple[str, list[str]]:
    """Return the state of the night, and what is wrong by the watch's rules an hour later, full disks apart."""
    site = SiteConfig(watch=WatchConfig(least_free_gib=0))
    with Catalogue.open(hospital.settings) as catalogue:
        night = last_night(catalogue, "nightly")
    conditions = find_conditions(hospital.settings, site, [], now() + LATER)
    return night.state if night else "", [condition.key for condition in conditions]


def show_faults(nights: Sequence[FaultyNight]) -> list[dict[str, Any]]:
    """Return the rows of the table: one per fault."""
    names = dict.fromkeys(one.fault for one in nights)
    return [_row(name, [one for one in nights if one.fault == name]) for name in names]


def _row(name: str, nights: Sequence[FaultyNight]) -> dict[str, Any]:
    errors = Counter(f"{one.failure[0]} ({one.failure[1]})" for one in nights if one.failure)
    alerts = Counter(key for one in nights for key in one.alerts)
    return {
        "fault": name,
        "nights": len(nights),
        "went on": sum(not one.failure for one in nights),
        "ended with (exit code)": _counted(errors),
        "alerts": _counted(alerts),
        "clear": sum(one.is_clear for one in nights),
        "same final state": sum(not one.differences for one in nights),
        "next night, median s": f"{statistics.median(one.healed_in for one in nights):.1f}",
    }


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"

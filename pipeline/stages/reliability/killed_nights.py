"""Nights that are killed at random moments, and run again: is the result that of a night that nobody disturbed?"""

from __future__ import annotations

import math
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.stages.reliability.faults import Fault
from pipeline.stages.reliability.final_state import compare
from pipeline.stages.reliability.forked import run_forked
from pipeline.stages.reliability.ward import Ward, prepare_template, succeeded
from pipeline.stages.reliability.whole_night import PHASES

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Kill:
    """One night that was killed and run again: in which part, after how many seconds, and what then differed."""

    phase: str
    seconds: float
    healed_in: float
    differences: tuple[str, ...]


def measure_kills(
    kills: int,
    seed: int,
    folder: Path | None = None,
    minutes: float = math.inf,
    on_progress: OnProgress | None = None,
) -> list[Kill]:
    """Kill whole nights with SIGKILL at uniformly random moments, run each again, and compare what they leave.

    A night that ended before its moment came is repeated with another.

    Args:
        kills: nights to kill.
        seed: of the moments.
        folder: where the workspaces are made, about 12 MB at a time; default a temporary one.
        minutes: after which no further night begins, and the kills so far are returned.
        on_progress: called with (kills done, all kills).

    Raises:
        UnforeseenError: a night fails that nobody disturbed, or one that follows a kill.
    """
    with tempfile.TemporaryDirectory(prefix="nightread-kills-", dir=folder) as place:
        end = time.monotonic() + 60 * minutes
        ward = Ward(Path(place), prepare_template(Path(place) / "template"), Fault())
        rng, done = np.random.default_rng(seed), list[Kill]()
        while len(done) < kills and time.monotonic() < end:
            kill = _kill_once(ward, float(rng.uniform(0, ward.seconds)))
            done += [] if kill is None else [kill]
            if on_progress:
                on_progress(len(done), kills)
        return done


def _kill_once(ward: Ward, moment: float) -> Kill | None:
    """Kill a night at a moment and run the next one; None if it had ended before."""
    with ward.fault.site(ward.folder / "site") as place:
        hospital = ward.copied(place)
        killed = run_forked(lambda mark: ward.fault.night(hospital, mark), moment)
        if killed.status != -signal.SIGKILL:
            succeeded(killed)
            return None
        with ward.fault.healthy(hospital):
            again = ward.run_next(hospital)
        differing = compare(ward.expected, again.result["state"])
        return Kill(killed.phase or "start", killed.seconds, again.marks[-1][1], tuple(differing))


def show_kills(kills: Sequence[Kill]) -> list[dict[str, Any]]:
    """Return the rows of the table: one per part of the night, and their sum."""
    groups = [(phase, [one for one in kills if one.phase == phase]) for phase in ("start", *PHASES, "")]
    rows = [_row(phase or "end", part) for phase, part in groups if part]
    return [*rows, _row("whole night", kills)] if kills else []


def _row(name: str, kills: Sequence[Kill]) -> dict[str, Any]:
    return {
        "killed during": name,
        "kills": len(kills),
        "same final state": sum(not one.differences for one in kills),
        "next night, median s": f"{statistics.median(one.healed_in for one in kills):.1f}",
        "longest s": f"{max(one.healed_in for one in kills):.1f}",
    }

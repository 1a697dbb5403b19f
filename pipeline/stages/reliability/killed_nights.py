"""Nights that are killed at random moments, and run again: is the result that of a night that nobody disturbed?"""

from __future__ import annotations

import math
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import update

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.operations_schema import ScoringClaim
from pipeline.data.catalogue.schema import now
from pipeline.errors import UnforeseenError
from pipeline.stages.reliability.final_state import compare, read_state
from pipeline.stages.reliability.forked import Ended, import_like, run_forked
from pipeline.stages.reliability.whole_night import PHASES, Hospital, prepare, run_night

UNDISTURBED = 3  # nights whose median length says when a kill may fall

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
        ward = _Ward(Path(place))
        rng, done = np.random.default_rng(seed), list[Kill]()
        while len(done) < kills and time.monotonic() < end:
            kill = ward.kill_once(float(rng.uniform(0, ward.seconds)))
            done += [] if kill is None else [kill]
            if on_progress:
                on_progress(len(done), kills)
        return done


class _Ward:
    """A prepared hospital, the state after an undisturbed night, and its length."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        template = folder / "template"
        _succeeded(import_like(lambda _: prepare(template) and None))
        self.template = Hospital(template / "workspace", template / "inbox", template / "outbox")
        nights = [self._undisturbed() for _ in range(UNDISTURBED)]
        self.expected = nights[0].result["state"]
        self.seconds = statistics.median(night.marks[-1][1] for night in nights)
        if differing := [sentence for night in nights for sentence in compare(self.expected, night.result["state"])]:
            raise UnforeseenError(f"Two nights that nobody disturbed differ: {differing[0]}")

    def _copied(self) -> Hospital:
        workspace, outbox = self.folder / "workspace", self.folder / "outbox"
        for place in (workspace, outbox):
            shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.template.workspace, workspace)
        if self.template.outbox.exists():
            shutil.copytree(self.template.outbox, outbox)
        return replace(self.template, workspace=workspace, outbox=outbox)

    def _undisturbed(self) -> Ended:
        hospital = self._copied()
        return _succeeded(run_forked(lambda mark: _night_and_state(hospital, mark)))

    def kill_once(self, moment: float) -> Kill | None:
        """Kill a night at a moment and run it again; None if it had ended before."""
        hospital = self._copied()
        killed = run_forked(lambda mark: _night(hospital, mark), kill_after=moment)
        if killed.status != -9:
            _succeeded(killed)
            return None
        again = _succeeded(run_forked(lambda mark: _next_night_and_state(hospital, mark)))
        differing = compare(self.expected, again.result["state"])
        return Kill(killed.phase or "start", killed.seconds, again.marks[-1][1], tuple(differing))


def _night(hospital: Hospital, mark: Callable[[str], None]) -> None:
    run_night(hospital.settings, [hospital.inbox], hospital.outbox, mark)


def _night_and_state(hospital: Hospital, mark: Callable[[str], None]) -> dict[str, Any]:
    _night(hospital, mark)
    return {"state": read_state(hospital.settings, hospital.outbox)}


def _next_night_and_state(hospital: Hospital, mark: Callable[[str], None]) -> dict[str, Any]:
    """Run the night that follows a killed one: by then the leases of its worker have ended."""
    with Catalogue.open(hospital.settings) as catalogue, catalogue.session() as session:
        session.execute(update(ScoringClaim).values(expires_at=now() - timedelta(days=1)))
    return _night_and_state(hospital, mark)


def _succeeded(night: Ended) -> Ended:
    if night.status != 0:
        raise UnforeseenError(f"A night failed in its part {night.phase or 'start'!r}:\n{night.error}")
    return night


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

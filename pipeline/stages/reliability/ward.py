"""A ward: a prepared hospital that is copied for every night, the state after an undisturbed night, and its length."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import update

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.operations_schema import ScoringClaim
from pipeline.data.catalogue.schema import now
from pipeline.errors import UnforeseenError
from pipeline.stages.reliability.faults import Fault
from pipeline.stages.reliability.final_state import compare, read_state
from pipeline.stages.reliability.forked import Ended, import_like, run_forked
from pipeline.stages.reliability.whole_night import Hospital, prepare
from pipeline.tracking.relocate import relocate

Mark = Callable[[str], None]


class Ward:
    """A prepared hospital, the state after an undisturbed night, and its length.

    Args:
        folder: where the workspaces are made.
        template: a prepared hospital (`prepare_template`), which stays as it is.
        fault: what will disturb its nights; the undisturbed ones run with the same services.
        undisturbed: nights whose states must be the same, and whose median length is `seconds`.

    Raises:
        UnforeseenError: undisturbed nights fail or differ.
    """

    def __init__(self, folder: Path, template: Hospital, fault: Fault, undisturbed: int = 3) -> None:
        self.folder, self.template, self.fault = folder, template, fault
        nights = [self._undisturbed() for _ in range(undisturbed)]
        self.expected = nights[0].result["state"]
        self.seconds = statistics.median(night.marks[-1][1] for night in nights)
        if differing := [sentence for night in nights for sentence in compare(self.expected, night.result["state"])]:
            raise UnforeseenError(f"Two nights that nobody disturbed differ: {differing[0]}")

    def copied(self, place: Path) -> Hospital:
        """Return a fresh hospital in a folder that exists."""
        hospital = self.fault.furnish(replace(self.template, workspace=place / "workspace", outbox=place / "outbox"))
        shutil.copytree(self.template.workspace, hospital.workspace)
        shutil.copytree(self.template.outbox, hospital.outbox)
        relocate(hospital.workspace, hospital.workspace / "mlflow" / "mlflow.db")
        return hospital

    def _undisturbed(self) -> Ended:
        with self.fault.site(self.folder / "site") as place:
            hospital = self.copied(place)
            with self.fault.healthy(hospital):
                return succeeded(run_forked(lambda mark: self._night_and_state(hospital, mark)))

    def run_next(self, hospital: Hospital) -> Ended:
        """Run the night after a disturbed one, within `fault.healthy`; by then the leases of its workers have ended."""
        return succeeded(run_forked(lambda mark: self._next_and_state(hospital, mark)))

    def _night_and_state(self, hospital: Hospital, mark: Mark) -> dict[str, Any]:
        self.fault.night(hospital, mark)
        return {"state": read_state(hospital.settings, hospital.outbox)}

    def _next_and_state(self, hospital: Hospital, mark: Mark) -> dict[str, Any]:
        with Catalogue.open(hospital.settings) as catalogue, catalogue.session() as session:
            session.execute(update(ScoringClaim).values(expires_at=now() - timedelta(days=1)))
        return self._night_and_state(hospital, mark)


def prepare_template(folder: Path) -> Hospital:
    """Prepare a hospital in a forked child, and import here whatever that imported, so that the nights need not.

    Raises:
        UnforeseenError: it cannot be prepared.
    """
    succeeded(import_like(lambda _: prepare(folder) and None))
    return Hospital(folder / "workspace", folder / "inbox", folder / "outbox")


def succeeded(night: Ended) -> Ended:
    """Return a night that ended well.

    Raises:
        UnforeseenError: it did not.
    """
    if night.status != 0:
        raise UnforeseenError(f"A night failed in its part {night.phase or 'start'!r}:\n{night.error}")
    return night

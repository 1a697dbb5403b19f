"""Promotion of a challenger to champion of its route behind gates, and the way back: one alias move, recorded.

The night uses the champion. Who promoted it, when, why and on which gate report is in an append-only, hash-chained
table, since MLflow keeps no history of its aliases.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.config import Settings, find_shipped_file, load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.promotion_forms import SeenState, read_written
from pipeline.data.catalogue.promotion_records import (
    Action,
    Champion,
    earlier_champions,
    list_promotions,
)
from pipeline.detection.detector_file import check_detector, read_detector
from pipeline.errors import ArtefactError, EmptySelection, PromotionRefused
from pipeline.stages.operations.gate_report import REPORT, GateReport, measure_gates
from pipeline.stages.operations.promotion_gates import PromotionGates
from pipeline.stages.operations.promotion_move import Approval, Move, make_move
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.run.score_slices import OnProgress
from pipeline.tracking.registry import find_champion, find_version, read_aliases
from pipeline.types import RunRef

GATES = "configs/promotion/gates.yaml"


@dataclass(frozen=True, slots=True)
class Promotion:
    """A model that became its route's champion, and the version that it replaced (None for the first)."""

    route: str
    run: str
    version: str
    replaced: str | None
    action: Action = "promote"
    report: GateReport | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON."""
        values = asdict(replace(self, report=None))
        return values | {"report": None if self.report is None else self.report.to_json()}

    def sentence(self) -> str:
        """Return a sentence on the new champion and the version that it replaced."""
        replaced = f" in place of version {self.replaced}" if self.replaced not in (None, self.version) else ""
        return f"Version {self.version} ({self.run}) is the champion of {self.route}{replaced}."


def promote_run(
    settings: Settings,
    run: str,
    approval: Approval | None = None,
    gates: PromotionGates | None = None,
    route: str | None = None,
    override: bool = False,
    on_progress: OnProgress | None = None,
) -> Promotion:
    """Judge a training run's model at the gates, and make it the champion of its route if a person approves.

    The gate report is written into the run's folder, whatever it says. The champion itself is left as it is.

    Args:
        settings: settings of the workspace.
        run: the run's id, or an unambiguous prefix.
        approval: who approves and why; without it the gates are measured, and the promotion is refused.
        gates: the limits; default: `configs/promotion/gates.yaml`.
        route: the route that is meant; a run of another one is refused.
        override: promote although a gate is not passed or cannot be measured; recorded as such.
        on_progress: called with (slices done, total slices).

    Raises:
        ArtefactError: no run or several match; the run registered no model; the registry does not respond.
        PromotionRefused: a gate is not passed, nobody approved, or the run is of another route.
    """
    one = check_candidate(settings, run, route)
    own, folder, version = one.route, one.folder, one.version
    before = read_aliases(settings, own).get("champion")
    if before == version:
        return Promotion(own, folder.run_id, version, before)
    with Catalogue.open(settings) as catalogue:
        champion = find_champion(settings, own)
        runs = RunRef(str(folder.path), one.detector), champion
        report = _judge(catalogue, settings, runs, gates, override, on_progress)
        if report is not None:
            folder.write_text(REPORT, report.text())
        _refuse(report, approval, override, folder.run_id)
        if approval is None:
            raise PromotionRefused("Nobody approved.")  # `_refuse` has said so
        action: Action = "promote" if report is not None and report.passed else "override"
        moved = Move(own, action, Champion(folder.run_id, version, one.detector))
        make_move(catalogue, settings, moved, approval, "" if report is None else report.sha256)
    return Promotion(own, folder.run_id, version, before, action, report)


def check_candidate(settings: Settings, run: str, route: str | None = None) -> Candidate:
    """Return a run that may become champion of its route, whatever its gates say.

    Args:
        settings: settings of the workspace.
        run: the run's id, or an unambiguous prefix.
        route: the route that is meant, if one is.

    Raises:
        ArtefactError: no run or several match; the run registered no model; the registry does not respond.
        PromotionRefused: the run learned from labelled patients in gate, or is of another route.
    """
    folder = RunFolder.find(settings, run)
    config = folder.read_config()
    own = config.data.route
    if config.learns_from_gate:
        raise PromotionRefused(
            f"The run {folder.run_id} learned from labelled patients in gate, who decide about promotions, so it "
            "cannot become the champion. Train it with `labelled_in: [develop]`, or from normals alone, and "
            "promote that run."
        )
    _refuse_other_route(folder, own, route)
    version = find_version(settings, own, str(folder.path))
    return Candidate(folder, own, version, folder.read_calibrated().sha256)


def rollback(settings: Settings, route: str, approval: Approval, seen: SeenState | None = None) -> Promotion:
    """Make the champion before the present one the champion again; the next night uses it.

    One that was rolled back comes back by a promotion only.

    Args:
        settings: settings of the workspace.
        route: whose champion.
        approval: who goes back, and why.
        seen: the browser's form; one that is sent twice moves once.

    Raises:
        PromotionRefused: the route has no earlier champion, or only such as were rolled back.
        ArtefactError: the earlier one's files are missing or damaged, or the registry does not respond.
    """
    before = read_aliases(settings, route).get("champion")
    champion = find_champion(settings, route)
    if champion is None or before is None:
        raise PromotionRefused(f"The route {route!r} has no champion. `nightread runs` lists the models.")
    with Catalogue.open(settings) as catalogue:
        earlier = _read_goal(catalogue, seen) or next(
            earlier_champions(list_promotions(catalogue, route), champion.sha256), None
        )
        if earlier is None:
            raise PromotionRefused(
                f"Version {before}, the champion of {route!r}, has no champion before it that was not rolled back, so "
                "nothing can be rolled back to. Promote another run: nightread promote RUN"
            )
        move = Move(route, "rollback", earlier)

        def _check(_: RunRef | None) -> None:
            if seen is not None and seen.basis != earlier.sha256:
                raise PromotionRefused(f"A rollback of {route} now leads to another champion. Load the page again.")
            check_detector(RunFolder(settings.runs / earlier.run).detector, earlier.sha256)

        make_move(catalogue, settings, move, approval, "", seen, _check)
    return Promotion(route, earlier.run, earlier.version, before, "rollback")


def _read_goal(catalogue: Catalogue, seen: SeenState | None) -> Champion | None:
    """Return where a form that was recorded before has gone back to: after it, a rollback leads elsewhere."""
    with catalogue.reading() as session:
        row = None if seen is None else read_written(session, seen)
        return None if row is None else Champion(row.run, row.version, row.detector_sha256)


def read_gates(path: Path | None = None) -> PromotionGates:
    """Return the gates of a file; by default those that are shipped."""
    return load_config(path or find_shipped_file(GATES), PromotionGates)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A run that may become champion: its folder, route and registered version, and the SHA-256 of its detector."""

    folder: RunFolder
    route: str
    version: str
    detector: str


def _judge(
    catalogue: Catalogue,
    settings: Settings,
    runs: tuple[RunRef, RunRef | None],
    gates: PromotionGates | None,
    override: bool,
    on_progress: OnProgress | None,
) -> GateReport | None:
    """Return the gate report; with `override` None where it cannot be made, such as without a gate set."""
    challenger, champion = runs
    try:
        return measure_gates(catalogue, settings, challenger, champion, gates or read_gates(), on_progress)
    except (EmptySelection, ArtefactError) as error:  # such as a champion whose files are damaged
        if override:
            return None
        raise PromotionRefused(f"{error} Whoever answers for the exception may add --override.") from None


def _refuse(report: GateReport | None, approval: Approval | None, override: bool, run: str) -> None:
    if report is not None and not report.passed and not override:
        missed = " ".join(f"{line.gate}: {line.sentence}" for line in report.lines if not line.passed)
        raise PromotionRefused(
            f"{run} is not promoted. {missed} The report is {run}/{REPORT}; whoever answers for the exception "
            "may add --override."
        )
    if approval is None:
        gates = "Every gate is passed" if report is not None and report.passed else "Gates are overridden"
        raise PromotionRefused(f"{run} is not promoted yet. {gates}; a person must approve: --approve NAME --why TEXT.")


def _refuse_other_route(folder: RunFolder, own: str, named: str | None) -> None:
    stored = str(read_detector(folder.detector).spec.get("route", own))
    for other in (named, stored):
        if other not in (None, own):
            raise PromotionRefused(
                f"{folder.run_id} is of the route {own!r}, not of {other!r}. A champion scores its own route only; "
                "name a run of that route (nightread runs)."
            )

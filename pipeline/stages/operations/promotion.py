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
from pipeline.data.catalogue.chain import Chain
from pipeline.data.catalogue.promotion_records import (
    Action,
    Champion,
    PromotionRecord,
    add_promotion,
    earlier_champions,
    list_promotions,
)
from pipeline.data.catalogue.schema import now
from pipeline.detection.detector_file import check_detector, read_detector
from pipeline.errors import ArtefactError, EmptySelection, PromotionRefused
from pipeline.stages.operations.gate_report import REPORT, GateReport, measure_gates
from pipeline.stages.operations.promotion_gates import PromotionGates
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.run.score_slices import OnProgress
from pipeline.tracking.registry import find_champion, find_version, promote, read_aliases
from pipeline.types import RunRef

GATES = "configs/promotion/gates.yaml"
NAME_CHARACTERS, REASON_CHARACTERS = 64, 1000


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


@dataclass(frozen=True, slots=True)
class Approval:
    """The person who approves a move, and why; both are recorded for good."""

    who: str
    why: str

    def __post_init__(self) -> None:
        for name, text, most in (("name", self.who, NAME_CHARACTERS), ("reason", self.why, REASON_CHARACTERS)):
            if not text.strip() or len(text) > most or not text.isprintable():
                raise PromotionRefused(
                    f"The {name} {text[:20]!r} cannot be recorded: it must have 1 to {most} printable characters. Give "
                    "--approve NAME --why TEXT."
                )


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
    before, version = read_aliases(settings, own).get("champion"), find_version(settings, own, str(folder.path))
    if before == version:
        return Promotion(own, folder.run_id, version, before)
    with Catalogue.open(settings) as catalogue:
        champion = find_champion(settings, own)
        challenger = folder.read_calibrated()
        report = _judge(catalogue, settings, (challenger, champion), gates, override, on_progress)
        if report is not None:
            folder.write_text(REPORT, report.text())
        _refuse(report, approval, override, folder.run_id)
        if approval is None:
            raise PromotionRefused("Nobody approved.")  # `_refuse` has said so
        action: Action = "promote" if report is not None and report.passed else "override"
        moved = _Move(own, action, Champion(folder.run_id, version, challenger.sha256))
        _move(catalogue, settings, moved, champion, approval, "" if report is None else report.sha256)
    return Promotion(own, folder.run_id, version, before, action, report)


def rollback(settings: Settings, route: str, approval: Approval) -> Promotion:
    """Make the champion before the present one the champion again; the next night uses it.

    Raises:
        PromotionRefused: the route has no earlier champion.
        ArtefactError: the earlier one's files are missing or damaged, or the registry does not respond.
    """
    before = read_aliases(settings, route).get("champion")
    champion = find_champion(settings, route)
    if champion is None or before is None:
        raise PromotionRefused(f"The route {route!r} has no champion. `nightread runs` lists the models.")
    with Catalogue.open(settings) as catalogue:
        earlier = next(earlier_champions(list_promotions(catalogue, route), champion.sha256), None)
        if earlier is None:
            raise PromotionRefused(
                f"The route {route!r} has had one champion only, version {before}, so nothing can be rolled back to. "
                "Promote another run: nightread promote RUN"
            )
        check_detector(RunFolder(settings.runs / earlier.run).detector, earlier.sha256)
        _move(catalogue, settings, _Move(route, "rollback", earlier), champion, approval, "")
    return Promotion(route, earlier.run, earlier.version, before, "rollback")


def read_gates(path: Path | None = None) -> PromotionGates:
    """Return the gates of a file; by default those that are shipped."""
    return load_config(path or find_shipped_file(GATES), PromotionGates)


@dataclass(frozen=True, slots=True)
class _Move:
    """Where the alias goes."""

    route: str
    action: Action
    to: Champion


def _move(
    catalogue: Catalogue, settings: Settings, move: _Move, champion: RunRef | None, approval: Approval, report: str
) -> None:
    """Record the move and make it, in one transaction: if the registry refuses, nothing is recorded."""
    before = None
    if champion is not None:
        version = read_aliases(settings, move.route)["champion"]
        before = Champion(Path(champion.path).name, version, champion.sha256)
    record = PromotionRecord(
        0, now(), move.route, move.action, move.to, before, approval.who.strip(), approval.why.strip(), report
    )
    chain = Chain.open(settings, catalogue)
    with catalogue.session() as session:
        add_promotion(session, chain, record)
        session.flush()
        promote(settings, move.route, move.to.version)


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


def list_outside_moves(settings: Settings, catalogue: Catalogue) -> list[str]:
    """Return a sentence for each route whose alias is not where the last recorded move left it."""
    sentences, seen = [], set()
    for record in list_promotions(catalogue):
        if record.route in seen:
            continue
        seen.add(record.route)
        version = read_aliases(settings, record.route).get("champion")
        if version != record.champion.version:
            sentences.append(
                f"The champion of {record.route} is version {version or 'none'}, but the last recorded move made it "
                f"version {record.champion.version}: somebody moved it in MLflow, without a record."
            )
    return sentences

"""Approval of challengers on the gate reports that were written: what waits, what blocks it, and the decision.

Nothing is scored here. The gates are measured by `nightread promote` and `nightread retrain`, which write the report
into the run's folder; a person reads that very report, and its SHA-256 is recorded with who approved and why.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.promotion_forms import SeenState
from pipeline.data.catalogue.promotion_records import (
    Action,
    Champion,
    PromotionRecord,
    earlier_champions,
    list_promotions,
)
from pipeline.detection.detector_file import check_detector
from pipeline.errors import ArtefactError, NightreadError, PromotionRefused
from pipeline.stages.operations.gate_report import GateReport, read_gate_report
from pipeline.stages.operations.promotion import Candidate, Promotion, check_candidate
from pipeline.stages.operations.promotion_move import Approval, Move, make_move
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.registry import find_champion, list_registered, list_routes_with_champions
from pipeline.types import RunRef


@dataclass(frozen=True, slots=True)
class Challenger:
    """A registered model that waits, its gate report, and why it cannot be promoted on it ("" if it can)."""

    run: str
    version: str
    report: GateReport | None
    report_sha256: str
    obstacle: str


@dataclass(frozen=True, slots=True)
class RouteModels:
    """A route's champion, what waits to replace it, and what was decided.

    Attributes:
        route: its name.
        champion: run and version of the champion, with the SHA-256 of its detector.
        waiting: models that were never champion and were not refused, newest first.
        back: the champion that a rollback leads to; None if the route has had one only.
        records: promotions, rollbacks and refusals, newest first.
    """

    route: str
    champion: Champion
    waiting: tuple[Challenger, ...]
    back: Champion | None
    records: tuple[PromotionRecord, ...]

    @property
    def last(self) -> int:
        """Id of the last record; 0 without one."""
        return self.records[0].id if self.records else 0


def list_route_models(settings: Settings, catalogue: Catalogue) -> list[RouteModels]:
    """Return every route that has a champion.

    Raises:
        ArtefactError: the registry does not respond.
    """
    return list(_list(settings, catalogue))


def _list(settings: Settings, catalogue: Catalogue) -> Iterator[RouteModels]:
    for route in list_routes_with_champions(settings):
        ref = find_champion(settings, route)
        if ref is None:
            continue
        versions = {run: named.partition(" ")[0] for run, named in list_registered(settings, route).items()}
        run, records = Path(ref.path).name, list_promotions(catalogue, route)
        champion = Champion(run, versions.get(run, ""), ref.sha256)
        decided = {run} | {one.run for record in records for one in (record.champion, record.before) if one is not None}
        runs = sorted(versions.keys() - decided, key=lambda name: -int(versions[name]))
        waiting = tuple(_read_challenger(settings, name, versions[name], ref) for name in runs)
        back = next(earlier_champions(records, ref.sha256), None)
        yield RouteModels(route, champion, waiting, back, tuple(records))


def _read_challenger(settings: Settings, run: str, version: str, champion: RunRef) -> Challenger:
    folder = RunFolder(settings.runs / run)
    try:
        report, sha256 = read_gate_report(folder)
    except ArtefactError as error:
        return Challenger(run, version, None, "", str(error))
    try:
        detector = check_candidate(settings, run).detector
        _check_report(report, detector, champion)
    except NightreadError as error:
        return Challenger(run, version, report, sha256, str(error))
    return Challenger(run, version, report, sha256, "")


def _check_report(report: GateReport, detector: str, champion: RunRef | None) -> None:
    """Raise PromotionRefused unless a report is of this very detector against this very champion, and all is passed."""
    run = report.challenger
    present = "" if champion is None else champion.sha256
    if (report.challenger_sha256, report.champion_sha256) != (detector, present):
        raise PromotionRefused(
            f"The gates of {run} were measured against {report.champion or 'no champion'}, with detectors that have "
            f"changed since. Measure them again: nightread promote {run}"
        )
    if not report.passed:
        missed = ", ".join(line.gate for line in report.lines if not line.passed)
        raise PromotionRefused(
            f"{run} does not pass every gate ({missed}), so it cannot be promoted here. Refuse it, or train another."
        )


def approve(settings: Settings, catalogue: Catalogue, run: str, approval: Approval, seen: SeenState) -> Promotion:
    """Make a challenger the champion of its route on the gate report that was shown; the next night uses it.

    A form that is sent twice moves and records once.

    Raises:
        PromotionRefused: the report does not pass, is of other detectors or was measured again; something was decided
            since; or the run may never become champion.
        ArtefactError: report or detector is missing or damaged, or the registry does not respond.
    """
    candidate = check_candidate(settings, run)
    report, sha256 = read_gate_report(candidate.folder)
    move = _of(candidate, "promote")

    def _check(champion: RunRef | None) -> None:
        if seen.basis != sha256:
            raise PromotionRefused(
                f"The gates of {candidate.folder.run_id} were measured again after this page was loaded. Load the page "
                "again, and read the new report."
            )
        _check_report(report, candidate.detector, champion)
        check_detector(candidate.folder.detector, candidate.detector)

    before = make_move(catalogue, settings, move, approval, sha256, seen, _check)
    return Promotion(candidate.route, candidate.folder.run_id, candidate.version, before, "promote", report)


def refuse(
    settings: Settings, catalogue: Catalogue, run: str, approval: Approval, seen: SeenState | None = None
) -> PromotionRecord:
    """Record that a challenger is not to become champion, who says so, and why; nothing moves.

    Raises:
        PromotionRefused: it is the champion, or something was decided since the form was rendered.
        ArtefactError: the run is unknown or registered no model, or the registry does not respond.
    """
    candidate = check_candidate(settings, run)
    try:
        sha256 = read_gate_report(candidate.folder)[1]
    except ArtefactError:  # a model may be refused before anybody measured its gates
        sha256 = ""

    def _check(champion: RunRef | None) -> None:
        if champion is not None and champion.sha256 == candidate.detector:
            raise PromotionRefused(
                f"{candidate.folder.run_id} is the champion of {candidate.route}, so it cannot be refused. Move back "
                f"with nightread rollback {candidate.route}, or promote another run."
            )

    make_move(catalogue, settings, _of(candidate, "refuse"), approval, sha256, seen, _check)
    return list_promotions(catalogue, candidate.route)[0]


def _of(candidate: Candidate, action: Action) -> Move:
    return Move(candidate.route, action, Champion(candidate.folder.run_id, candidate.version, candidate.detector))

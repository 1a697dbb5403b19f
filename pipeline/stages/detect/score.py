"""Stage `score`: score studies that nobody has read yet, and flag the unusual ones."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.reading_list import draw_reading_lists
from pipeline.data.catalogue.run_records import PENDING, write_findings
from pipeline.data.catalogue.scan_measures import write_measures
from pipeline.data.catalogue.schema import RunRow
from pipeline.data.catalogue.scoring_claims import Claims, join_run, list_unscored
from pipeline.data.images.dataset import fingerprint
from pipeline.data.sets.selection import NotScoredSeries, Selection
from pipeline.detection.detector_file import read_detector
from pipeline.detection.domain_gate import DomainGate
from pipeline.detection.exported_detector import EXPORT
from pipeline.detection.flag import Flagged, flag
from pipeline.detection.stored_detector import load_detector
from pipeline.sealed_folder import hash_file
from pipeline.stages.detect.pending_maps import PendingMaps
from pipeline.stages.detect.score_shard import ShardScorer, not_held, read_finding, unread
from pipeline.stages.detect.usable_champion import find_usable_champion
from pipeline.stages.run.environment import read_environment
from pipeline.stages.run.open_run import OpenRun
from pipeline.stages.run.route_gate import load_gate_of_run
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.run.score_slices import OnProgress, Stop
from pipeline.tracking.experiment import track
from pipeline.tracking.registry import list_routes_with_champions
from pipeline.types import RunRef

LOG, REPORT = "log", "report"  # what is still to be done with a run after its findings are stored
POLL_SECONDS = 1.0  # between looks at whether others have ended


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """Result of one scoring run on one route.

    `not_scored` counts series that no earlier run had listed; `exported` is the SHA-256 of the export that was used
    (`export.json`), "" without one; `left` counts studies that a stop left to the next run.
    """

    run_id: str
    route: str
    studies: int
    flagged: int
    not_scored: int
    statement: str
    exported: str = ""
    left: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def sentence(self) -> str:
        """Return the report in two lines."""
        unread = (
            f", {self.not_scored} more series cannot be scored (see nightread rejections)" if self.not_scored else ""
        )
        return f"{self.route}: {self.studies} studies scored, {self.flagged} flagged{unread}.\n  {self.statement}"


def tell_left(count: int) -> str:
    """Return a sentence about studies that a run left to the next one; "" for none."""
    studies = "1 study is" if count == 1 else f"{count} studies are"
    return f"The deadline came first: {studies} left to the next run." if count else ""


def find_detectors_to_run(settings: Settings, route: str | None = None, run_id: str | None = None) -> list[RunRef]:
    """Return the calibrated runs to use: one named run, or the champion of one route or of every route.

    For a champion that is missing or damaged, the last good one is returned, and a notice raised.
    """
    if run_id is not None:
        return [RunFolder.find(settings, run_id).read_calibrated()]
    routes = [route] if route is not None else list_routes_with_champions(settings)
    champions = [find_usable_champion(settings, name) for name in routes]
    return [run for run in champions if run is not None]


def score(
    run: RunRef,
    settings: Settings,
    again: bool = False,
    on_progress: OnProgress | None = None,
    exported: Path | None = None,
    for_report: bool = False,
    stop: Stop | None = None,
) -> ScoreReport:
    """Score the studies of the run's route that nobody has labelled and that it has not scored yet.

    A labelled study has been read, so it belongs to training or evaluation, not to tonight's list. A series that cannot
    be scored is listed with its code and does not stop the rest. Processes that score with the same detector at once
    share the studies and report one run; one that is killed leaves its studies to the others, or to the next call. The
    findings appear together, at the end of the run. What was killed before it was logged in MLflow is logged by the
    next run of the detector.

    Args:
        run: a calibrated run.
        settings: the workspace.
        again: also score studies that already have a finding of this detector.
        on_progress: called with (slices done here, total slices of the run).
        exported: folder of an export of this very detector (`nightread export`), which then computes the scores.
        for_report: a night's report is to follow; if it does not come, the next one says what this run did.
        stop: asked again and again; once true, the run ends with the study in hand, and leaves the rest to the next.

    Raises:
        ArtefactError: the detector is not the registered one, or the export is of another detector, or altered.
        ConfigError: onnxruntime is needed and not installed.
    """
    with Catalogue.open(settings) as catalogue:
        opened = OpenRun.load(run, catalogue, settings)
        if exported is not None:
            opened = opened.using(load_detector(exported, run.sha256))
        gate = load_gate_of_run(opened.folder)
        selection, labelled = _choose(opened, gate, again)
        studies = dict.fromkeys(ref.study_id for ref in selection.slices)
        folder = settings.relative(opened.folder.path)
        claims = join_run(catalogue, opened.route, folder, run.sha256, studies, again)
        total, not_scored = len(selection.slices), selection.not_scored
        del selection  # at a large site it is large, and each share is chosen again
        try:
            _list_not_scored(claims, not_scored)
            shards = ShardScorer(opened, gate, claims, again, stop)
            while True:
                with claims.renewed():
                    _work(shards, on_progress, total)
                sealed = "" if exported is None else hash_file(exported / EXPORT)
                report = _end(opened, claims, labelled, sealed, [LOG, REPORT] if for_report else [LOG])
                if report is not None:
                    return report
        except BaseException:
            claims.fail()
            raise


def list_unreported(settings: Settings, beside: Collection[str]) -> list[dict[str, Any]]:
    """Return the reports of earlier runs that no night's report mentions, since their night was stopped before it.

    Args:
        settings: the workspace.
        beside: runs that are left out, such as tonight's.
    """
    with Catalogue.open(settings) as catalogue:
        waiting = catalogue.list_pending("score", REPORT)
    return [_report_of(run).to_json() for run in waiting if run.run_id not in beside]


def _choose(opened: OpenRun, gate: DomainGate | None, again: bool) -> tuple[Selection, int]:
    """Choose what this detector has to score, and return it with the number of studies that have a label.

    Series that came after their study was scored are looked at, too, so that they are listed if they cannot be used.
    """
    if again:
        return unread(opened.choose())
    fresh, later = list_unscored(opened.catalogue, opened.ref.sha256)
    selection, labelled = unread(opened.choose(study_ids=fresh | later))
    unscored = replace(selection, slices=tuple(ref for ref in selection.slices if ref.study_id in fresh))
    return (unscored if gate is None else not_held(unscored, opened, again)), labelled


def _work(shards: ShardScorer, on_progress: OnProgress | None, total: int) -> None:
    """Score until no study of the run is left; while others hold the last ones, wait for them or for their leases.

    After a stop nothing more is taken, and what nobody holds is left to the next run.
    """
    done = 0

    def advance(count: int, _: int | None) -> None:
        if on_progress is not None:
            on_progress(done + count, total)

    while True:
        is_over = shards.stop is not None and shards.stop()
        if is_over:
            shards.claims.leave()
        slices = None if is_over else shards.score_next(advance)
        if slices is None and not shards.claims.count_left():
            return
        if slices is None:
            time.sleep(POLL_SECONDS)
        done += slices or 0


def _list_not_scored(claims: Claims, rows: Sequence[NotScoredSeries]) -> None:
    claims.catalogue.add_not_scored(claims.run_id, [(row.series_id, row.code, row.sentence) for row in rows])


def _end(opened: OpenRun, claims: Claims, labelled: int, exported: str, pending: Sequence[str]) -> ScoreReport | None:
    """End the run that is complete, or report it as another worker ended it; None if it has got new studies."""
    results = claims.read_results()
    scored = [read_finding(result["finding"]) for result in results.values() if "finding" in result]
    flagged = flag(scored, opened.config.require_detection().flagging)
    maps = PendingMaps(opened.folder.path, claims.run_id)
    # Before the findings, which are there at once for everybody; writing a heatmap twice changes nothing.
    maps.publish([one.study_id for one in flagged.findings if one.flagged], opened.detector)
    report = replace(_report(opened, claims, flagged, labelled), exported=exported)
    with claims.closing(len(results)) as ending:
        if ending is not None:
            session, run = ending
            write_findings(session, claims.run_id, flagged.findings, opened.ref.sha256)
            measures = {study: result["measures"] for study, result in results.items() if "measures" in result}
            write_measures(session, opened.route, opened.ref.sha256, measures)
            about = {"environment": read_environment(), PENDING: list(pending)}
            run.summary, run.sha256 = report.to_json() | about, opened.ref.sha256
    if ending is None:
        return _read_report(claims)
    maps.remove()
    draw_reading_lists(claims.catalogue, opened.settings.review)
    _log_pending(opened)
    return report


def _log_pending(opened: OpenRun) -> None:
    """Log every run of this detector that was not logged yet: this one, and those that were killed before it."""
    catalogue, folder = opened.catalogue, opened.settings.relative(opened.folder.path)
    for run in catalogue.list_pending("score", LOG, opened.route):
        if run.folder == folder and run.sha256 == opened.ref.sha256:
            _log(_report_of(run), opened, [row.study_id for row in catalogue.list_findings(run.run_id)])
            catalogue.settle([run.run_id], LOG)


def _read_report(claims: Claims) -> ScoreReport | None:
    """Return the report of the worker that ended the run; None if nobody has."""
    run = claims.catalogue.run(claims.run_id)
    return _report_of(run) if run.state == "done" else None


def _report_of(run: RunRow) -> ScoreReport:
    """Return the report of a run that has ended."""
    names = {field.name for field in fields(ScoreReport)}
    return ScoreReport(**{name: value for name, value in run.summary.items() if name in names})


def _report(opened: OpenRun, claims: Claims, flagged: Flagged, labelled: int) -> ScoreReport:
    left = claims.count_left_to_later()
    nothing = "Nothing was scored." if left else "There was nothing new to score."
    if labelled:
        nothing += f" {labelled} studies have a label, so they are not scored but measured: nightread evaluate"
    statement = f"{flagged.statement if flagged.findings else nothing} {tell_left(left)}".rstrip()
    not_scored = len(claims.catalogue.list_not_scored(claims.run_id))
    counts = len(flagged.findings), flagged.count, not_scored
    return ScoreReport(claims.run_id, opened.route, *counts, statement, left=left)


def _log(report: ScoreReport, opened: OpenRun, studies: Sequence[str]) -> None:
    """Log the decisions with the data, the configuration and the model that made them."""
    folder, settings = opened.folder, opened.settings
    about = f"Scans of one night, scored by `{folder.run_id}`: {report.studies} studies, {report.flagged} flagged."
    parent = folder.read("mlflow.json")["run_id"]
    with track(settings, report.route, report.run_id, parent=parent, about=about, one_of_its_name=True) as tracked:
        tracked.log_config(opened.config)
        tracked.log_data(fingerprint(opened.choose(study_ids=studies).slices), "scoring")
        models = [str(item["sha256"]) for item in read_detector(folder.detector, opened.ref.sha256).spec["models"]]
        tags = {"detector_sha256": opened.ref.sha256, "model_sha256": ", ".join(dict.fromkeys(models))}
        tracked.log_tags({**tags, "run_id": folder.run_id, "score_run_id": report.run_id})
        tracked.log_metrics({"studies": report.studies, "flagged": report.flagged, "not_scored": report.not_scored})
        tracked.log_text(json.dumps(report.to_json(), indent=2), "score.json")
        rows = opened.catalogue.list_findings(report.run_id)
        decisions = [
            {"study": r.study_id, "score": r.score, "p_value": r.p_value, "flagged": r.flagged, "rule": r.rule}
            for r in rows
        ]
        tracked.log_text(json.dumps(decisions, indent=1), "decisions.json")

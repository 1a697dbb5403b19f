"""Stage `score`: score studies that nobody has read yet, and flag the unusual ones."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import durable
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.reading_list import draw_reading_lists
from pipeline.data.catalogue.scan_measures import add_measures
from pipeline.data.images.dataset import SliceDataset, fingerprint
from pipeline.data.sets.selection import NotScoredSeries, Selection
from pipeline.detection.detector_file import read_detector
from pipeline.detection.exported_detector import EXPORT
from pipeline.detection.flag import Flagged, flag
from pipeline.detection.scorer import Scorer
from pipeline.detection.stored_detector import load_detector
from pipeline.errors import Rejected
from pipeline.sealed_folder import hash_file
from pipeline.stages.detect.usable_champion import find_usable_champion
from pipeline.stages.run.environment import read_environment
from pipeline.stages.run.open_run import OpenRun
from pipeline.stages.run.route_gate import OUT_OF_DOMAIN, load_gate_of_run, screen
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.run.score_slices import OnProgress, findings, score_dataset
from pipeline.tracking.experiment import track
from pipeline.tracking.registry import list_routes_with_champions
from pipeline.types import Finding, RunRef, SliceResult, SliceScore

HEATMAPS_A_STUDY = 3  # maps are stored for this many most anomalous slices of a flagged study


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """Result of one scoring run on one route.

    `not_scored` counts series that no earlier run had listed; `exported` is the SHA-256 of the export that was used
    (`export.json`), "" without one.
    """

    run_id: str
    route: str
    studies: int
    flagged: int
    not_scored: int
    statement: str
    exported: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def sentence(self) -> str:
        """Return the report in two lines."""
        unread = (
            f", {self.not_scored} more series cannot be scored (see nightread rejections)" if self.not_scored else ""
        )
        return f"{self.route}: {self.studies} studies scored, {self.flagged} flagged{unread}.\n  {self.statement}"


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
) -> ScoreReport:
    """Score the studies of the run's route that nobody has labelled and that it has not scored yet.

    A labelled study has been read, so it belongs to training or evaluation, not to tonight's list. A series that cannot
    be scored is listed with its code and does not stop the rest. A run writes all its findings at its end: a
    stopped run leaves none, and the next one scores them all.

    Args:
        run: a calibrated run.
        settings: the workspace.
        again: also score studies that already have a finding of this detector.
        on_progress: called with (slices done, total slices).
        exported: folder of an export of this very detector (`nightread export`), which then computes the scores.

    Raises:
        ArtefactError: the detector is not the registered one, or the export is of another detector, or altered.
        ConfigError: onnxruntime is needed and not installed.
    """
    with Catalogue.open(settings) as catalogue:
        opened = OpenRun.load(run, catalogue, settings)
        if exported is not None:
            opened = opened.using(load_detector(exported, run.sha256))
        run_id = catalogue.start_run("score", opened.route, settings.relative(opened.folder.path))
        try:
            report, scored = _score_in(opened, run_id, again, on_progress)
            report = replace(report, exported="" if exported is None else hash_file(exported / EXPORT))
        except BaseException:
            catalogue.finish_run(run_id, "failed")
            raise
        catalogue.finish_run(run_id, "done", {**report.to_json(), "environment": read_environment()}, run.sha256)
    _log(report, opened, scored)
    return report


def _score_in(
    opened: OpenRun, run_id: str, again: bool, on_progress: OnProgress | None
) -> tuple[ScoreReport, Selection]:
    """Return the report and what was to be scored."""
    config, detector, catalogue = opened.config, opened.detector, opened.catalogue
    done = {row.study_id for row in catalogue.list_findings() if row.model_sha256 == opened.ref.sha256 and not again}
    gate = load_gate_of_run(opened.folder)
    selection, labelled = _unread(opened.choose(), done)
    strangers: tuple[NotScoredSeries, ...] = ()
    measures: dict[str, dict[str, float]] = {}
    if gate is not None:
        screened = screen(opened, gate, _not_held(selection, opened, again))
        selection, strangers, measures = screened.selection, screened.held, screened.measures
    data = opened.dataset(selection, cache="none")
    keeper = _Heatmaps(opened.folder.path / "heatmaps", data)
    scores, rejected = score_dataset(detector, data, keeper.offer, on_progress)
    results, refused = findings(detector, scores)
    flagged = flag(study_p_values(results, detector, config), config.require_detection().flagging)
    rows = [(s.series_id, s.code, s.sentence) for s in (*selection.not_scored, *strangers, *rejected)]
    rows += _refused(refused, scores)
    news = catalogue.add_not_scored(run_id, rows)
    catalogue.add_findings(run_id, flagged.findings, opened.ref.sha256)
    add_measures(catalogue, opened.route, opened.ref.sha256, measures)
    draw_reading_lists(catalogue, opened.settings.review)
    keeper.write({finding.study_id for finding in flagged.findings if finding.flagged}, detector)
    return _report(run_id, config, flagged, news, labelled), selection


def _unread(selection: Selection, done: set[str]) -> tuple[Selection, int]:
    """Leave out studies that are done or have any label; also return how many have a label."""
    read = {ref.study_id for ref in selection.slices if ref.label != "unknown"}
    rest = tuple(ref for ref in selection.slices if ref.study_id not in done | read)
    return replace(selection, slices=rest), len(read)


def _not_held(selection: Selection, opened: OpenRun, again: bool) -> Selection:
    """Leave out series that this very detector's gate held before, which would be held again each night."""
    if again:
        return selection
    held = opened.catalogue.list_held(opened.ref.sha256, OUT_OF_DOMAIN)
    return replace(selection, slices=tuple(ref for ref in selection.slices if ref.series_id not in held))


def study_p_values(results: list[Finding], detector: Scorer, config: RunConfig) -> list[Finding]:
    """Return the findings; if the calibration unit is a slice, Bonferroni-correct each study's smallest p-value."""
    if config.unit == "study" or detector.calibration is None:
        return results
    calibration = detector.calibration
    merged = []
    for finding in results:
        best = float(np.min(calibration.p_values([slice_.score for slice_ in finding.evidence])))
        merged.append(replace(finding, p_value=min(1.0, best * len(finding.evidence))))
    return merged


def _refused(refused: dict[str, Rejected], scores: list[SliceScore]) -> list[tuple[str, str, str]]:
    series = {score.study_id: score.series_id for score in scores}
    return [(series[study], error.code.value, error.sentence) for study, error in refused.items()]


def _report(run_id: str, config: RunConfig, flagged: Flagged, not_scored: int, labelled: int) -> ScoreReport:
    nothing = "There was nothing new to score."
    if labelled:
        nothing += f" {labelled} studies have a label, so they are not scored but measured: nightread evaluate"
    statement = flagged.statement if flagged.findings else nothing
    return ScoreReport(run_id, config.data.route, len(flagged.findings), flagged.count, not_scored, statement)


def _log(report: ScoreReport, opened: OpenRun, scored: Selection) -> None:
    """Log the decisions with the data, the configuration and the model that made them."""
    folder, settings = opened.folder, opened.settings
    about = f"Scans of one night, scored by `{folder.run_id}`: {report.studies} studies, {report.flagged} flagged."
    parent = folder.read("mlflow.json")["run_id"]
    with track(settings, report.route, report.run_id, parent=parent, about=about) as tracked:
        tracked.log_config(opened.config)
        tracked.log_data(fingerprint(scored.slices), "scoring")
        models = [str(item["sha256"]) for item in read_detector(folder.detector, opened.ref.sha256).spec["models"]]
        tags = {"detector_sha256": opened.ref.sha256, "model_sha256": ", ".join(dict.fromkeys(models))}
        tracked.log_tags({**tags, "run_id": folder.run_id, "score_run_id": report.run_id})
        tracked.log_metrics({"studies": report.studies, "flagged": report.flagged, "not_scored": report.not_scored})
        tracked.log_text(json.dumps(report.to_json(), indent=2), "score.json")
        with Catalogue.open(settings) as catalogue:
            rows = catalogue.list_findings(report.run_id)
        decisions = [
            {"study": r.study_id, "score": r.score, "p_value": r.p_value, "flagged": r.flagged, "rule": r.rule}
            for r in rows
        ]
        tracked.log_text(json.dumps(decisions, indent=1), "decisions.json")


class _Heatmaps:
    """Keep the maps of each study's most anomalous slices, and write those of the flagged studies."""

    def __init__(self, folder: Path, data: SliceDataset) -> None:
        self.folder, self.data = folder, data
        self._best: dict[str, list[SliceResult]] = {}

    def offer(self, item: SliceResult) -> None:
        """Keep the slice as long as it is among its study's highest."""
        if math.isnan(item.score) or item.values is None:
            return
        best = self._best.setdefault(self.data.ref(item.id).study_id, [])
        best.append(item)
        best.sort(key=lambda one: (-one.score, one.id))
        del best[HEATMAPS_A_STUDY:]

    def write(self, studies: set[str], detector: Scorer) -> None:
        """Write one npz file per flagged study: float16 [H, W] on the native grid, by `instance.frame`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for study in sorted(studies & self._best.keys()):
            arrays: dict[str, Any] = {}
            for item in self._best[study]:
                ref, values = self.data.ref(item.id), detector.native(item, reconstruction=False).values
                if values is not None:
                    arrays[f"{ref.instance_id}.{ref.frame}"] = values.astype(np.float16)
            with durable.writing(self.folder / f"{study}.npz") as part, part.open("wb") as stream:
                np.savez_compressed(stream, **arrays)

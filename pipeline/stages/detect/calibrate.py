"""Stage `calibrate`: calibrate the scores of a trained detector on normals that nothing else has seen."""

from __future__ import annotations

import base64
import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import SliceDataset, fingerprint
from pipeline.data.images.normalise import SignalRange
from pipeline.data.sets.selection import Selection
from pipeline.data.sets.splits import check_disjoint
from pipeline.detection.conformal import Calibration, Unit
from pipeline.detection.detector_file import check_detector
from pipeline.detection.mondrian import count_needed, describe_groups, write_groups
from pipeline.detection.pixel_threshold import PixelHistogram
from pipeline.detection.scorer import Scorer
from pipeline.detection.stored_detector import save_detector
from pipeline.detection.two_sided import TwoSided
from pipeline.dicom.phantom.example import example_series, example_signal
from pipeline.dicom.phantom.scanner import PhantomModality
from pipeline.errors import ArtefactError, EmptySelection, TooFewNormals
from pipeline.stages.run.budget import describe_cut
from pipeline.stages.run.learned_patients import record_patients
from pipeline.stages.run.learning_sets import refuse_other_folds
from pipeline.stages.run.open_run import OpenRun
from pipeline.stages.run.preflight import count_sets
from pipeline.stages.run.route_gate import fit_gate_of_run
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.run.scan_groups import name_groups
from pipeline.stages.run.score_slices import findings, score_dataset
from pipeline.tracking.experiment import track
from pipeline.tracking.registry import register
from pipeline.tracking.registry_notes import describe_version
from pipeline.types import RunRef, SliceResult, SliceScore

# phantom used as the input example in the registry
EXAMPLES: dict[str, PhantomModality] = {"ct_window": "CT", "mr_percentile": "MR", "mr_median": "MR"}


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """A calibrated and registered detector.

    Attributes:
        run: the run folder, and the SHA-256 of the calibrated detector.
        route, version: registered route and version; no version if it was kept out of the registry.
        n, patients, guarantee: calibration units, and the guarantee of their p-values.
        alpha, threshold, interval: the configured false-positive rate, its threshold and the 95 % interval of the
            realised rate; None if n is too small, in which case `refusal` says how many are needed.
        cut_short: that the training's cap ended it early, "" if it did not.
        groups: size and threshold of each group of `detection.groups`, see `describe_groups`.
        group_least: calibration units from which on a group has a threshold of its own.
    """

    run: RunRef
    route: str
    version: str
    n: int
    patients: int
    guarantee: str
    alpha: float
    threshold: float | None
    interval: tuple[float, float] | None
    refusal: str = ""
    cut_short: str = ""
    groups: tuple[dict[str, Any], ...] = ()
    group_least: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def sentence(self) -> str:
        """Return the report in words."""
        entered = f" and registered {self.route} version {self.version}" if self.version else ""
        head = f"Trained{entered}: calibrated on {self.n} normal units"
        cut = f" {self.cut_short}" if self.cut_short else ""
        if self.threshold is None:
            return f"{head}. {self.refusal}{cut}"
        grouped = write_groups(self.groups, self.group_least)
        worth = f"95 % interval {self.interval[0]:.3f} to {self.interval[1]:.3f}" if self.interval else self.guarantee
        value = f"threshold {self.threshold:.5g} for {100 * self.alpha:g} % ({worth})"
        return f"{head} ({self.guarantee}); {value}.{grouped}{cut}"


def calibrate(run: RunRef, settings: Settings, to_registry: bool = True) -> CalibrationReport:
    """Calibrate a trained run once, after everything else is frozen; further calls return the stored report.

    A calibrated detector that is missing or damaged is calibrated again.

    Args:
        run: a trained run.
        settings: the workspace.
        to_registry: False keeps it out of the registry, as for benchmark cells; a later call may register it. A run
            with a fold (`data.fold`) is never registered: it lacks patients on purpose, and learned from develop
            patients. Neither is one that learned from labelled patients in gate, as the first version of a route
            becomes its champion.

    Raises:
        ArtefactError: the run folder is missing or altered.
        ConfigError: the run has no `detection`.
        EmptySelection: there are no normal scans in the calibrate set.
        TooFewNormals: none of them has a score, or there are too few validate normals for a two-sided score.
    """
    folder = RunFolder.open(run)
    config = folder.read_config()
    config.require_detection()
    to_registry = to_registry and config.data.fold is None and not config.learns_from_gate
    if (done := _read_whole(folder)) is not None:
        return done if done.version or not to_registry else _enter(folder, done, config, settings)
    with Catalogue.open(settings) as catalogue:
        report = _calibrate_in(OpenRun.load_uncalibrated(run, catalogue, settings))
    if to_registry:
        return _enter(folder, report, config, settings)
    _write(folder, report)
    return report


def _calibrate_in(opened: OpenRun) -> CalibrationReport:
    """Calibrate and save the detector of a run; it is not registered."""
    selection, learned = opened.choose(sets=("calibrate",)), opened.choose(sets=("train", "validate"))
    refuse_other_folds(opened)
    if not selection.slices:
        raise EmptySelection(
            f"There are no normal scans in the calibrate set of {opened.route!r}. Label more normal patients."
            f"{count_sets(opened.config, opened.settings, opened.catalogue).causes()}"
        )
    check_disjoint({"learned": learned.slices, "calibrate": selection.slices})
    detector, data = centre(opened), opened.dataset(selection, cache="none")
    calibration = _calibration(detector, data, opened.config, selection, {ref.patient_id for ref in learned.slices})
    record_patients(opened.folder, {"calibrate": selection})
    gate_sha256 = fit_gate_of_run(opened)
    return _save(opened.using(detector.calibrated(calibration)), fingerprint(selection.slices), gate_sha256)


def centre(opened: OpenRun) -> Scorer:
    """Return the run's detector, its two-sided score, if it has one, centred on validate normals.

    Raises:
        TooFewNormals, ConfigError: see `TwoSided.fit`.
    """
    detector = opened.detector
    if detector.config.transform == "none" or detector.two_sided is not None:
        return detector
    validate = opened.dataset(opened.choose(sets=("validate",)), cache="none")
    scores, _ = score_dataset(detector.raw(), validate)
    return detector.centred(TwoSided.fit([s.score for s in scores], [s.patient_id for s in scores]))


def _calibration(
    detector: Scorer, data: SliceDataset, config: RunConfig, selection: Selection, learned: set[str]
) -> Calibration:
    pixels = PixelHistogram()

    def take_pixels(item: SliceResult) -> None:
        native = detector.native(item, reconstruction=False)
        if native.values is not None:
            pixels.add(data.ref(item.id).patient_id, native.values[native.body])

    scores, _ = score_dataset(detector, data, take_pixels if detector.has_maps else None)
    clustered = config.unit == "slice" or config.data.splits.mixed_patients
    grouping, alpha = detector.config.groups, detector.config.flagging.alpha
    groups = name_groups(findings(detector, scores)[0], selection.slices, grouping.by) if grouping.by else None
    return Calibration.fit(
        units(detector, scores, config),
        clustered=clustered,
        pixels=pixels.quantiles() if detector.has_maps else None,
        trained_on=learned,
        groups=groups,
        group_least=count_needed(alpha, grouping.margin) if grouping.by else 0,
    )


def units(detector: Scorer, scores: list[SliceScore], config: RunConfig) -> list[Unit]:
    """Return the run's units, slices or studies, that have a score."""
    if config.unit == "slice":
        present = [score for score in scores if not math.isnan(score.score)]
        return [Unit(f"{score.instance_id}/{score.frame}", score.patient_id, score.score) for score in present]
    results, _ = findings(detector, scores)
    return [Unit(finding.study_id, finding.patient_id, finding.score) for finding in results]


def _save(opened: OpenRun, data: dict[str, Any], gate_sha256: str = "") -> CalibrationReport:
    folder = opened.folder
    run = RunRef(str(folder.path), save_detector(folder.detector, opened.detector))
    report = replace(_report(run, opened.detector, opened.config), cut_short=describe_cut(folder))
    with track(opened.settings, opened.route, opened.config.name, folder.read("mlflow.json")["run_id"]) as tracked:
        tracked.log_data(data, "calibration")
        tracked.log_metrics({"calibration/n": report.n, "calibration/patients": report.patients})
        tracked.log_tags({"domain_gate_sha256": gate_sha256} if gate_sha256 else {})
        if report.threshold is not None:
            tracked.log_metrics({"calibration/threshold": report.threshold})
    return report


def _enter(folder: RunFolder, report: CalibrationReport, config: RunConfig, settings: Settings) -> CalibrationReport:
    """Register the detector, and record the version in the report."""
    slices = config.data.volumes.least_slices if config.data.volumes else 1
    normaliser = config.data.normaliser
    modality = EXAMPLES.get(normaliser.kind, "CR") if normaliser.ultrasound is None else "US"
    if isinstance(normaliser, SignalRange):
        files = [example_signal(spoken=not normaliser.unit)]
    else:
        files = example_series(modality, slices)
    example = [base64.b64encode(file).decode() for file in files]
    with track(settings, config.data.route, config.name, folder.read("mlflow.json")["run_id"]):
        version = register(settings, folder.detector, report.run.sha256, config.data.route, report.run, example)
    about = f"`{config.method.name}` on {config.data.route}. {report.sentence()} Research, not for diagnosis."
    describe_version(settings, config.data.route, version, about, {})
    entered = replace(report, version=version)
    _write(folder, entered)
    return entered


def _report(run: RunRef, detector: Scorer, config: RunConfig) -> CalibrationReport:
    calibration, alpha = detector.calibration, config.require_detection().flagging.alpha
    if calibration is None:
        raise TooFewNormals(0, 1, "A calibration")
    facts = (run, config.data.route, "", calibration.n, calibration.patients, calibration.guarantee, alpha)
    groups: dict[str, Any] = {
        "groups": tuple(describe_groups(calibration, alpha)),
        "group_least": calibration.group_least,
    }
    try:
        threshold = calibration.threshold(alpha)
    except TooFewNormals as refusal:
        return CalibrationReport(*facts, None, None, str(refusal), **groups)
    return CalibrationReport(*facts, threshold.value, threshold.interval, **groups)


def _write(folder: RunFolder, report: CalibrationReport) -> None:
    """Write the report without the run's path: it is in the run's own folder, which may be copied or moved."""
    values = report.to_json()
    folder.write("calibration.json", {"sha256": values.pop("run")["sha256"], **values})


def _read_whole(folder: RunFolder) -> CalibrationReport | None:
    """Return the report of a calibration with an intact detector; None if either is missing or damaged."""
    try:
        values = folder.read("calibration.json")
        interval = tuple(values["interval"]) if values["interval"] else None
        run = RunRef(str(folder.path), check_detector(folder.detector, values.pop("sha256")))
        groups = tuple(values.get("groups", ()))
        return CalibrationReport(**{**values, "run": run, "interval": interval, "groups": groups})
    except (ArtefactError, KeyError, TypeError):
        return None

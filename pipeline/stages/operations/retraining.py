"""Retraining: a challenger from the normals that came since the champion learned, judged at the gates.

New normals come from imported reports, and from readers' decisions on the random sample of unflagged scans. A label
that rests on a dismissed flag alone enters no set (`pipeline.data.sets.splits.eligible`): such scans are normals that
the champion found unusual, and a model of them would be of no other normals. Nothing is promoted here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.sets.splits import assign_sets
from pipeline.errors import ArtefactError, EmptySelection, PromotionRefused
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.detect.train import train
from pipeline.stages.operations.gate_report import REPORT, measure_gates
from pipeline.stages.operations.promotion_gates import PromotionGates
from pipeline.stages.run.learning_sets import list_patients_of
from pipeline.stages.run.load_slices import choose
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.registry import find_champion

LEAST_NEW = 20  # patients


@dataclass(frozen=True, slots=True)
class RetrainingReport:
    """Result of one retraining.

    Attributes:
        route: of the configuration.
        patients, before: normal patients to learn from now, and those that the champion learned from.
        run: the challenger; "" if none was trained.
        version: its registered version.
        passed: whether it passed every gate; None if it was not judged.
        reason: why there is no challenger, or why it was not judged.
    """

    route: str
    patients: int
    before: int
    run: str = ""
    version: str = ""
    passed: bool | None = None
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def sentence(self) -> str:
        """Return the report in words."""
        count = f"{self.route}: {self.patients} normal patients to learn from, {self.before} when the champion learned."
        if not self.run:
            return f"{count} {self.reason}"
        judged = {True: "passes every gate", False: "does not pass every gate", None: "was not judged"}[self.passed]
        return (
            f"{count} The challenger {self.run}, version {self.version}, {judged}. {self.reason} See nightread promote "
            f"{self.run}"
        ).replace("  ", " ")


def retrain(
    config: RunConfig, settings: Settings, gates: PromotionGates, least_new: int = LEAST_NEW, progress: bool = False
) -> RetrainingReport:
    """Train and calibrate a challenger if enough normal patients came since the champion learned, and judge it.

    The gate report lies in its folder (`gate_report.json`). An interrupted retraining resumes.

    Args:
        config: the run to train; its route must have a champion.
        settings: the workspace.
        gates: limits of the gates.
        least_new: fewest patients that came since; 0 trains whatever came.
        progress: show a progress bar.

    Raises:
        EmptySelection, TooFewNormals, TrainingDiverged, ArtefactError: see `train` and `calibrate`.
    """
    champion = find_champion(settings, config.data.route)
    patients, before = _count_learned(config, settings), 0 if champion is None else _count_before(champion.path)
    report = RetrainingReport(config.data.route, patients, before)
    if champion is None:
        return _with(report, reason="The route has no champion; nightread train CONFIG makes the first one.")
    if patients - before < least_new:
        return _with(report, reason=f"Fewer than {least_new} came since, so no challenger was trained.")
    run = calibrate(train(config, settings, progress=progress), settings)
    folder = RunFolder.open(run.run)
    report = _with(report, run=folder.run_id, version=run.version)
    if run.run.sha256 == champion.sha256:
        return _with(report, reason="It is the champion itself: configuration and data are the same.")
    with Catalogue.open(settings) as catalogue:
        try:
            measured = measure_gates(catalogue, settings, run.run, champion, gates)
        except (EmptySelection, PromotionRefused, ArtefactError) as error:
            return _with(report, reason=str(error))
    folder.write_text(REPORT, measured.text())
    missed = " ".join(f"{line.gate}: {line.sentence}" for line in measured.lines if not line.passed)
    return _with(report, passed=measured.passed, reason=missed)


def _with(report: RetrainingReport, **changes: Any) -> RetrainingReport:
    return RetrainingReport(**{**asdict(report), **changes})


def _count_learned(config: RunConfig, settings: Settings) -> int:
    with Catalogue.open(settings) as catalogue:
        assign_sets(catalogue, config.data.splits, list_patients_of(config, settings, catalogue))
        return len({ref.patient_id for ref in choose(catalogue, config, settings, sets=("train",)).slices})


def _count_before(folder: str) -> int:
    """Return the patients in the champion's training set; 0 where its record is missing, so that it is retrained."""
    try:
        return int(RunFolder(Path(folder)).read("data.json")["train"]["patients"])
    except (ArtefactError, KeyError, TypeError, ValueError):
        return 0

"""Stage `evaluate`: evaluate a calibrated detector on labelled scans, logged with the model."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pandas as pd

from pipeline import durable
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import fingerprint
from pipeline.data.sets.selection import Selection
from pipeline.data.sets.splits import check_disjoint
from pipeline.data.store.pixel_store import PixelStore
from pipeline.detection.conformal import Threshold
from pipeline.detection.controls import ControlModel, control_slices
from pipeline.errors import ArtefactError, EmptySelection, TooFewNormals
from pipeline.evaluation.build import build_report
from pipeline.evaluation.chart_data import ChartData, build_charts
from pipeline.evaluation.pixel_alpha import AlphaChoice, choose_alpha
from pipeline.evaluation.report import EvaluationReport, Opening
from pipeline.evaluation.report_page import write_page
from pipeline.evaluation.table import ScoreTable
from pipeline.stages.detect.figures import Draw, draw_every_slice, figures, shown_slices
from pipeline.stages.detect.log_evaluation import publish_headline, publish_members, track_evaluation
from pipeline.stages.detect.score_table import PixelCases, build_slice_table, study_table
from pipeline.stages.run.budget import CUT_SHORT, list_cuts
from pipeline.stages.run.learning_sets import refuse_other_folds
from pipeline.stages.run.open_run import OpenRun
from pipeline.stages.run.preflight import count_sets
from pipeline.stages.run.run_folder import RunFolder
from pipeline.stages.run.score_slices import OnProgress
from pipeline.tracking.experiment import TrackedRun
from pipeline.types import NORMAL_SETS, RunRef, SetName

POOLED = (
    "Thresholds and p-values of this report are pooled over all groups of scans; a night flags a scan by the threshold "
    "of its own group where the group has one (detection.groups)."
)
ALPHAS = (0.01, 0.05, 0.10)  # reported in addition to the configured false-positive rate


def evaluate(
    run: RunRef, settings: Settings, open_test: str | None = None, on_progress: OnProgress | None = None
) -> EvaluationReport:
    """Evaluate a calibrated run on develop or, with a stated purpose, on test.

    The pixel alpha is chosen once, on develop, and also used on test. Opening test is recorded in the
    catalogue before any test scan is read, and every opening is printed.

    Args:
        run: the run and the SHA-256 of its detector.
        settings: the workspace.
        open_test: purpose of opening the test set; None evaluates develop.
        on_progress: called with (slices done, total slices).

    Raises:
        EmptySelection: the set lacks normal or abnormal scans.
        ArtefactError: the detector was altered.
    """
    folder = RunFolder.open(run)
    if open_test is not None and not (folder.path / "evaluation" / "develop").exists():
        with suppress(EmptySelection):  # without masks on develop, test reports no calibrated Dice
            evaluate(run, settings, on_progress=on_progress)
    set_name: SetName = "develop" if open_test is None else "test"
    with Catalogue.open(settings) as catalogue:
        run_id = catalogue.start_run("evaluate", folder.read_config().data.route, settings.relative(folder.path))
        try:
            if open_test is not None:
                catalogue.open_test(run_id, open_test)
            report = _Evaluation(OpenRun.load(run, catalogue, settings), set_name).report(on_progress)
        except BaseException:
            catalogue.finish_run(run_id, "failed")
            raise
        catalogue.finish_run(run_id, "done", report.summary(), run.sha256)
    return report


def headline(report: EvaluationReport) -> str:
    """Return the first result of a report as one sentence."""
    table = report.tables[0]
    row, counts = table.rows[0], table.counts
    return (
        f"{report.facts['route']} ({row.name}), {report.set_name} set, {table.level}: AUROC "
        f"{row.metrics['AUROC'].text()} on {counts['abnormal']} abnormal and {counts['normal']} normal units of "
        f"{counts['patients']} patients. Report: {report.facts['run']}/evaluation/{report.set_name}/report.md"
        f"{' The training was ' + str(report.facts['training']) + '.' if 'training' in report.facts else ''}"
    )


class _Evaluation:
    """The evaluation of one run on one set."""

    def __init__(self, opened: OpenRun, set_name: SetName) -> None:
        self.opened, self.set_name = opened, set_name
        self.folder, self.config, self.detector = opened.folder, opened.config, opened.detector
        self.store = PixelStore(opened.settings.store)
        self.name = self.config.method.name

    def report(self, on_progress: OnProgress | None) -> EvaluationReport:
        """Score the set, build the report, draw and log."""
        selection = self.opened.choose(sets=(self.set_name,))
        if not selection.slices:
            counts = count_sets(self.config, self.opened.settings, self.opened.catalogue)
            raise EmptySelection(
                f"There are no labelled scans in the {self.set_name} set of {self.opened.route!r}. Import labels "
                f"of abnormal and normal scans with nightread labels import FILE.csv.{counts.causes()}"
            )
        self._prove_disjoint(selection)
        # Cached, so that unusable series are detected before anything is scored.
        data = self.opened.dataset(selection, cache="disk")
        with tempfile.TemporaryDirectory(prefix="nightread-") as place:
            cases = PixelCases(Path(place), self.name) if self.detector.has_maps else None
            slices = build_slice_table(self.detector, data, self.store, self._controls(), cases, on_progress)
            report, units = self._build(slices, cases, selection)
        table = ScoreTable.from_frame(units.rename(columns={"score": self.name}), (self.name,), self.config.unit)
        charts = build_charts(report, table, self.name, self.config.evaluation)
        drawn = figures(report, table, charts, self.name) | self._panels(selection, slices)
        self._keep(report, charts, units, selection, drawn)
        return report

    def _panels(self, selection: Selection, slices: pd.DataFrame) -> dict[str, Draw]:
        chosen = shown_slices(selection.slices, slices, self.opened.settings.burned_in)
        figure = draw_every_slice(self.detector, self.opened.dataset(replace(selection, slices=chosen), cache="none"))
        return {} if figure is None else {"panels": lambda: figure}

    def _prove_disjoint(self, selection: Selection) -> None:
        learned = self.opened.choose(sets=(*NORMAL_SETS, *self.config.labelled_in))
        check_disjoint({"learned": learned.slices, self.set_name: selection.slices})
        refuse_other_folds(self.opened)

    def _controls(self) -> ControlModel:
        """Return the PCA control, fitted once on the training normals, and again where its file is damaged."""
        file = self.folder.path / "controls.safetensors"
        with suppress(ArtefactError):
            return ControlModel.load(file)
        train = self.opened.choose(sets=("train",))
        data = self.opened.dataset(train, whole=False)
        ControlModel.fit(control_slices(data, self.store, with_stored=False)).save(file)
        return ControlModel.load(file)

    def _build(
        self, slices: pd.DataFrame, cases: PixelCases | None, selection: Selection
    ) -> tuple[EvaluationReport, pd.DataFrame]:
        calibration = self.detector.calibration
        units = slices if self.config.unit == "slice" else study_table(self.detector, slices)
        if calibration is not None and not units.empty:
            units = units.assign(p_value=calibration.p_values(units["score"].to_numpy(float)))
        masked = any(ref.mask_key for ref in selection.slices)
        report = build_report(
            units,
            self.config.evaluation,
            name=self.name,
            title=f"{self.config.name}, {self.set_name} set",
            set_name=self.set_name,
            unit=self.config.unit,
            members=self.detector.member_names,
            facts=self._facts(selection),
            guarantee=calibration.guarantee if calibration else "not calibrated",
            thresholds=self._thresholds(),
            n_calibration=calibration.n if calibration else None,
            cases=cases if masked else None,
            pixel_alpha=self._alpha(cases) if masked and cases is not None else None,
            notes=[*list_cuts(self.folder), *([POOLED] if calibration and calibration.groups else [])],
            openings=[
                Opening(opened_at=str(o.opened_at), purpose=o.purpose)
                for o in self.opened.catalogue.list_test_openings()
            ],
        )
        return report, units

    def _facts(self, selection: Selection) -> dict[str, str | int | float]:
        facts: dict[str, str | int | float] = {
            "run": self.folder.run_id,
            "route": self.opened.route,
            "method": self.name,
            "data": str(fingerprint(selection.slices)["sha256"])[:12],
        }
        return facts | ({"training": CUT_SHORT} if list_cuts(self.folder) else {})

    def _thresholds(self) -> list[Threshold]:
        thresholds = []
        for alpha in dict.fromkeys((self.config.require_detection().flagging.alpha, *ALPHAS)):
            with suppress(TooFewNormals):  # left out of the table if there are too few normals for this rate
                if self.detector.calibration is not None:
                    thresholds.append(self.detector.calibration.threshold(alpha))
        return thresholds

    def _alpha(self, cases: PixelCases) -> AlphaChoice | None:
        """Choose the pixel alpha on develop and store it; on test, return the stored one."""
        name = "evaluation/pixel_alpha.json"
        if (self.folder.path / name).exists():
            return AlphaChoice.model_validate(self.folder.read(name))
        pixels = self.detector.calibration.pixels if self.detector.calibration else None
        if self.set_name != "develop" or pixels is None:
            return None
        grid = {alpha: pixels.threshold(alpha) for alpha in pixels.alphas}
        chosen = choose_alpha(cases, grid, self.name)
        self.folder.write(name, chosen.model_dump(mode="json"))
        return chosen

    def _keep(
        self,
        report: EvaluationReport,
        charts: ChartData,
        units: pd.DataFrame,
        selection: Selection,
        drawn: dict[str, Draw],
    ) -> None:
        """Write the report, its charts, the scores and the figures into the run folder and into MLflow."""
        place = f"evaluation/{self.set_name}"
        self.folder.write_text(f"{place}/report.md", report.to_markdown())
        self.folder.write(f"{place}/report.json", report.model_dump(mode="json"))
        self.folder.write(f"{place}/charts.json", charts.model_dump(mode="json"))
        page = write_page(report, charts)
        self.folder.write_text(f"{place}/report.html", page)
        self.folder.write_text(f"{place}/scores.csv", units.to_csv(index=False))
        self.folder.write_text(f"{place}/roc.csv", report.roc_points.to_csv(index=False))
        with track_evaluation(self.opened, report) as tracked:
            tracked.log_data(fingerprint(selection.slices), "evaluation")
            tracked.log_metrics(report.summary())
            tracked.log_text(report.to_markdown(), "report.md")
            tracked.log_text(page, "report.html")
            tracked.log_table(report.roc_points, "roc")
            tracked.log_table(units.drop(columns=["instance_id", "series_id"], errors="ignore"), "scores")
            self._draw(drawn, place, tracked)
        publish_headline(self.opened, report)
        publish_members(self.opened, report)

    def _draw(self, drawn: dict[str, Draw], place: str, tracked: TrackedRun) -> None:
        for name, draw in drawn.items():
            figure = draw()
            with durable.writing(self.folder.path / place / f"{name}.png") as part:
                figure.savefig(part, dpi=110, format="png")
            tracked.log_figure(figure, name)

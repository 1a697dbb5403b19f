"""The screen of the demo: a line per step of the night, one table of results, and where to look next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.status import Status
from rich.table import Table

from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.score import score
from flows.train import calibrate_run, train_method
from pipeline.config import Settings
from pipeline.detection.ensemble_config import EnsembleConfig
from pipeline.evaluation.report import EvaluationReport
from pipeline.evaluation.results import ScoreRow
from pipeline.stages.operations.ui_commands import mlflow_address, mlflow_command, prefect_command
from pipeline.stages.run.run_config import RunConfig
from pipeline.tracking.experiment import find_page

NEGATIVE = "negative "
STEPS = ("Write", "Ingest", "Train", "Calibrate", "Score", "Evaluate")


class Screen:
    """Prints a line as each step ends, and on a terminal shows the step at work.

    Attributes:
        evaluated: the run folder that the night evaluated; None before that.
    """

    def __init__(self, console: Console, config: RunConfig) -> None:
        self.console, self.config = console, config
        self.evaluated: Path | None = None
        self._busy: Status | None = None
        self._began = 0.0

    @contextmanager
    def step(self, name: str, doing: str) -> Iterator[list[str]]:
        """Show a step while the block runs; what the block appends to the list is printed at its end."""
        outcome: list[str] = []
        self._start(doing)
        yield outcome
        self._end(name, " ".join(outcome))

    def follow_night(self) -> None:
        """Print a line for each step of the nightly flow, through the hooks that Prefect calls at start and end."""
        method = " and ".join(name_methods(self.config))
        self._follow(ingest, "Ingest", "Reading, checking and pseudonymising every file", _ingested)
        self._follow(train_method, "Train", f"Training {method} on scans of healthy patients only", self._trained)
        self._follow(calibrate_run, "Calibrate", "Scoring healthy patients that nothing has seen", _calibrated)
        self._follow(score, "Score", "Scoring tonight's patients", _scored)
        self._follow(evaluate, "Evaluate", "Measuring on labelled patients, beside simple controls", self._measured)

    def _follow(self, step: Any, name: str, doing: str, outcome: Callable[[Any], str]) -> None:
        step.on_running(lambda _step, _run, _state: self._start(doing))
        step.on_completion(lambda _step, _run, state: self._end(name, outcome(state.result(raise_on_failure=False))))

    def _start(self, doing: str) -> None:
        self._began = time.monotonic()
        self._busy = self.console.status(f"{doing} ...")
        self._busy.start()

    def _end(self, name: str, outcome: str) -> None:
        if self._busy is not None:
            self._busy.stop()
        place = f"{STEPS.index(name) + 1}/{len(STEPS)}"
        self.console.print(
            f"  [dim]{place}[/dim]  {name:10s} {outcome}  [dim]{time.monotonic() - self._began:.0f} s[/dim]"
        )

    def _trained(self, _run: Mapping[str, str]) -> str:
        images, methods = self.config.training.images, name_methods(self.config)
        *first, last = methods
        names = f"{', '.join(first)} and {last} each" if first else last
        return f"{names} saw {images} normal slices and no lesion."

    def _measured(self, result: Mapping[str, Any]) -> str:
        if not result["reports"]:
            return "Nothing was evaluated."
        self.evaluated = Path(result["reports"][0]["run"])
        counts = read_report(self.evaluated).tables[0].counts
        return f"{counts['abnormal']} patients with a lesion and {counts['normal']} without, labelled, beside controls."


def name_methods(config: RunConfig) -> list[str]:
    """Return the names of the methods that a run trains: its own, or those of an ensemble's members."""
    if not isinstance(config.method, EnsembleConfig):
        return [config.method.name]
    return [one.train["method"]["name"] for one in config.method.members if one.train is not None]


def _ingested(result: Mapping[str, Any]) -> str:
    new, before, refused = (sum(map(count, result["reports"])) for count in (_new, _seen, _refused))
    seen = f", {before} seen before" if before else ""
    return f"{new} images taken in{seen}, {refused} bad files refused, each with a reason."


def _new(report: Mapping[str, Any]) -> int:
    return int(report["added"])


def _seen(report: Mapping[str, Any]) -> int:
    return int(report["skipped"] + report["same"])


def _refused(report: Mapping[str, Any]) -> int:
    return sum(report["rejected"].values())


def _calibrated(report: Mapping[str, Any]) -> str:
    return f"A threshold for {100 * report['alpha']:g} % false alarms, from {report['n']} healthy patients held out."


def _scored(result: Mapping[str, Any]) -> str:
    reports = result["reports"]
    studies, flagged = (sum(int(report[name]) for report in reports) for name in ("studies", "flagged"))
    return f"{studies} new patients, {flagged} of them flagged." if studies else "Nothing new since the last night."


def read_report(run: Path) -> EvaluationReport:
    """Read the evaluation of a run on its develop set."""
    return EvaluationReport.model_validate_json((run / "evaluation" / "develop" / "report.json").read_bytes())


def print_results(console: Console, run: Path, flagged: Mapping[tuple[str, bool], int]) -> None:
    """Print the detector, its members and the controls, and what it flagged of tonight's patients.

    Args:
        console: where to.
        run: the evaluated run folder.
        flagged: patients by (label, whether flagged), which only the makers of the phantoms know.
    """
    results = read_report(run).tables[0]
    model, *members = [row for row in results.rows if not row.control]
    table = Table(box=box.SIMPLE_HEAD, title="\nWho has a lesion?", title_justify="left", title_style="bold")
    table.add_column("")
    for name in ("AUROC", "found at 95 % specificity", "flagged: with lesion", "without"):
        table.add_column(name, justify="right", no_wrap=True)
    shares = (_share(flagged, label) for label in ("abnormal", "normal"))
    table.add_row(model.name, *_figures(model), *shares, style="bold")
    for row in members:
        table.add_row(f"  {row.name}, alone", *_figures(row), "-", "-")
    for control in better_directions(row for row in results.rows if row.control):
        table.add_row(control.name, *_figures(control), "-", "-")
    console.print(table)
    counts = results.counts
    for line in (
        f"AUROC and specificity, with 95 % intervals: {counts['abnormal']} labelled patients with a lesion and "
        f"{counts['normal']} without.",
        "Of the labelled lesions a fifth are faint, and nearly a quarter displaced or only smoother: hard on purpose.",
        "Flagged: tonight's patients, by the threshold of step 4. The labels chose neither training nor threshold.",
        f"Below {members[-1].name if members else model.name}: controls, each in the direction that suits it better.",
    ):
        console.print(line, soft_wrap=True)


def better_directions(controls: Iterable[ScoreRow]) -> list[ScoreRow]:
    """Return each control once, in the direction that has the higher AUROC, best first."""
    best: dict[str, ScoreRow] = {}
    for row in sorted(controls, key=lambda row: row.metrics["AUROC"].value, reverse=True):
        best.setdefault(row.name.removeprefix(NEGATIVE), row)
    return list(best.values())


def _figures(row: ScoreRow) -> tuple[str, str]:
    return row.metrics["AUROC"].text(2), row.metrics["sens@95"].text(2)


def _share(flagged: Mapping[tuple[str, bool], int], label: str) -> str:
    return f"{flagged[label, True]} of {flagged[label, True] + flagged[label, False]}"


def print_places(console: Console, workspace: Path, run: Path) -> None:
    """Print the path of the picture, and the commands that look closer."""
    page = find_page(Settings.load(workspace))
    workspace = _near(workspace)
    console.print(f"\n[bold]A picture[/bold]: {_near(run)}/evaluation/develop/panels.png", soft_wrap=True)
    console.print("Look closer:")
    for name, command in {
        "the list": f".venv/bin/nightread -w {workspace} flagged",
        "refused": f".venv/bin/nightread -w {workspace} rejections",
        "MLflow": mlflow_command(workspace, programs=".venv/bin/"),
        "  its runs": mlflow_address(page),
        "Prefect": prefect_command(workspace, programs=".venv/bin/"),
    }.items():
        console.print(f"  {name:10s} {command}", soft_wrap=True)


def _near(path: Path) -> Path:
    """Return the path as seen from here, where it lies below."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path

"""The table of a benchmark: one row per method with the score chosen on develop, beside the best controls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, cast

from pipeline.config import Config, Settings
from pipeline.errors import ArtefactError, EmptySelection, NightreadError
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.compare import Comparison
from pipeline.evaluation.cross_fit import mean_estimate
from pipeline.evaluation.report import EvaluationReport
from pipeline.stages.benchmark.config import Benchmark, Cell
from pipeline.stages.benchmark.control_rows import compare_with_best_control, strongest_controls
from pipeline.stages.benchmark.run import figures_of, read_result
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import RunRef

SetShown = Literal["develop", "test"]


class LeaderRow(Config):
    """A method, or a control, in the table.

    Attributes:
        name, score: the method and its score chosen on develop.
        control: True for a trivial control.
        figures: the available ones of auroc, auroc_central, pixel_ap, dice, oracle_dice.
        seeds: metrics on this set by training seed, for the chosen score; `figures` are those of the first seed.
        against: the method against the best control, by the paired bootstrap: the mean AUROC of all its seeds, patients
            and seeds both resampled, or of its folds; None if it was not computed.
        holm_p: its p-value, corrected over the methods of the table.
        passes: forward passes per slice, over all models; None where they depend on the image.
        failure: reason why there are no results.
        cut_short: that a cap ended the training early.
    """

    name: str
    score: str = ""
    control: bool = False
    figures: dict[str, Estimate] = {}
    supervision: str = ""
    training_seconds: float | None = None
    stage_seconds: tuple[float, ...] = ()
    parameters: int | None = None
    images_per_second: float | None = None
    passes: int | None = None
    units: int = 0
    seeds: dict[int, dict[str, float]] = {}
    against: Comparison | None = None
    holm_p: float | None = None
    failure: str = ""
    cut_short: str = ""


class Leaderboard(Config):
    """Content of the table.

    Attributes:
        title, set_name, criterion: benchmark, set, and the criterion that chose scores on develop.
        part: the units of `against`: central slices if there are any.
        counts: of the first image-level table: units, patients, normal, abnormal.
        rows: methods, best first; those that failed last; then the controls.
        command: the command that creates this table.
        folds: number of folds over which results are means (`seeds` are then folds); 0 without cross-fitting.
    """

    title: str
    set_name: SetShown
    criterion: str
    part: str
    counts: dict[str, int]
    rows: tuple[LeaderRow, ...]
    command: str
    folds: int = 0


def chosen_cells(benchmark: Benchmark, settings: Settings) -> dict[str, Cell]:
    """Return each method's cell of the first seed under the score that is best on develop, averaged over the seeds.

    A score that lacks a seed is not chosen if another has all; a method without any finished cell is left out.
    """
    by_method: dict[str, dict[str, list[float]]] = {}
    for cell in benchmark.cells():
        value = read_developed(benchmark, cell, settings)
        if value is not None:
            by_method.setdefault(cell.method.name, {}).setdefault(cell.score.name, []).append(value)
    best = {
        method: max(scores, key=cast(Any, lambda name, s=scores: (len(s[name]), sum(s[name]) / len(s[name]))))
        for method, scores in by_method.items()
    }
    chosen: dict[str, Cell] = {}
    for cell in benchmark.cells():
        if best.get(cell.method.name) == cell.score.name and read_developed(benchmark, cell, settings) is not None:
            chosen.setdefault(cell.method.name, cell)
    return chosen


def read_developed(benchmark: Benchmark, cell: Cell, settings: Settings) -> float | None:
    """Return the criterion of a finished cell on develop; the whole set's AUROC if the criterion is missing."""
    result = read_result(benchmark, cell, settings)
    if result is None or result["state"] != "done":
        return None
    figures = result["develop"]
    estimate = figures.get(benchmark.config.criterion) or figures.get("auroc")
    return None if estimate is None else float(estimate["value"])


def build_leaderboard(
    benchmark: Benchmark, cells: dict[str, Cell], set_name: SetShown, command: str, settings: Settings
) -> Leaderboard:
    """Build the table from the finished runs' stored reports and scores; nothing is scored.

    Args:
        benchmark: the benchmark.
        cells: each method's chosen cell.
        set_name: develop or test.
        command: the command that creates this table.
        settings: the workspace.

    Raises:
        EmptySelection: no cell is finished.
    """
    rows = [_row(benchmark, cell, set_name, settings) for cell in cells.values()]
    done = [row for row in rows if not row.failure]
    if not done:
        sentences = sorted({row.failure.rstrip(".") for row in _failures(benchmark, cells, settings)})
        reasons = "; ".join(sentences) or "no cell was computed"
        raise EmptySelection(
            f"No cell of the benchmark {benchmark.config.name!r} is finished: {reasons}. Then run the benchmark again."
        )
    first = cells[done[0].name]
    reports = _judged(benchmark, first, set_name, _measured(benchmark, first, set_name, settings), settings)
    ranked = sorted(done, key=lambda row: -_rank(row, benchmark.config.criterion))
    failures = [row for row in rows if row.failure] + _failures(benchmark, cells, settings)
    return Leaderboard(
        title=benchmark.config.name,
        set_name=set_name,
        criterion=benchmark.config.criterion,
        part="central slices" if "auroc_central" in done[0].figures else "all units",
        counts=dict(sum((Counter(report.tables[0].counts) for report in reports), Counter())),
        rows=(*corrected(ranked), *failures, *_controls(reports)),
        command=command,
        folds=benchmark.config.folds or 0,
    )


def _rank(row: LeaderRow, criterion: str) -> float:
    estimate = row.figures.get(criterion) or row.figures.get("auroc")
    return estimate.value if estimate else float("-inf")


def _row(benchmark: Benchmark, cell: Cell, set_name: SetShown, settings: Settings) -> LeaderRow:
    result = read_result(benchmark, cell, settings) or {}
    facts = {k: result[k] for k in ("supervision", "training_seconds", "parameters", "images_per_second", "passes")}
    stages = result.get("stage_seconds") or ()  # empty if the method has one stage
    cut = result.get("cut_short", "")
    row = LeaderRow(name=cell.method.name, score=cell.score.name, stage_seconds=stages, cut_short=cut, **facts)
    measured = _measured(benchmark, cell, set_name, settings)
    try:
        judged = _judged(benchmark, cell, set_name, measured, settings)
    except NightreadError as error:
        return row.model_copy(update={"failure": str(error)})
    against = None
    with suppress(NightreadError):  # the central slices may lack a class; the other results are still valid
        runs, folds = [folder for folder, _ in measured.values()], benchmark.config.folds is not None
        against = compare_with_best_control(runs, set_name, cell.method.name, folds=folds)
    update: dict[str, Any] = {"figures": _figures(judged), "against": against}
    update["units"] = sum(report.tables[0].counts["units"] for report in judged)
    return row.model_copy(update={**update, "seeds": {seed: _values(report) for seed, (_, report) in measured.items()}})


def _judged(
    benchmark: Benchmark,
    cell: Cell,
    set_name: SetShown,
    measured: Mapping[int, tuple[RunFolder, EvaluationReport]],
    settings: Settings,
) -> list[EvaluationReport]:
    """Return the reports behind a row's results: the first seed's, or those of all folds.

    Raises:
        ArtefactError: the cell, or a fold, is not finished or not evaluated.
    """
    if benchmark.config.folds is None:
        return [_report(benchmark, cell, set_name, settings)]
    if lacking := [fold for fold in range(benchmark.config.folds) if fold not in measured]:
        raise ArtefactError(
            f"The folds {', '.join(map(str, lacking))} are not finished, but the mean needs all folds. Run the "
            "benchmark again."
        )
    return [report for _, report in measured.values()]


def _figures(reports: Sequence[EvaluationReport]) -> dict[str, Estimate]:
    """Return the mean of each metric that all reports have."""
    figures = [{k: Estimate.model_validate(v) for k, v in figures_of(report).items()} for report in reports]
    return {
        name: mean_estimate([one[name] for one in figures])
        for name in figures[0]
        if all(name in one for one in figures)
    }


def _measured(
    benchmark: Benchmark, cell: Cell, set_name: SetShown, settings: Settings
) -> dict[int, tuple[RunFolder, EvaluationReport]]:
    """Return, by seed, the runs of a method and score that were evaluated on this set, and their reports."""
    measured: dict[int, tuple[RunFolder, EvaluationReport]] = {}
    for other in same_choice(benchmark, cell):
        with suppress(NightreadError):
            report = _report(benchmark, other, set_name, settings)
            measured[other.seed] = (_run_folder(read_result(benchmark, other, settings) or {}), report)
    return measured


def _values(report: EvaluationReport) -> dict[str, float]:
    return {name: float(figure["value"]) for name, figure in figures_of(report).items()}


def same_choice(benchmark: Benchmark, cell: Cell) -> list[Cell]:
    """Return the cells of a method and score, one per seed."""
    choice = (cell.method.name, cell.score.name)
    return [other for other in benchmark.cells() if (other.method.name, other.score.name) == choice]


def _failures(benchmark: Benchmark, cells: dict[str, Cell], settings: Settings) -> list[LeaderRow]:
    """Return a row with the reason for each method without a finished cell."""
    failures: dict[str, LeaderRow] = {}
    for cell in benchmark.cells():
        result = read_result(benchmark, cell, settings)
        if cell.method.name not in cells and cell.method.name not in failures:
            reason = "not computed yet" if result is None else result.get("reason", "")
            failures[cell.method.name] = LeaderRow(name=cell.method.name, score=cell.score.name, failure=reason)
    return list(failures.values())


def _run_folder(result: dict[str, Any]) -> RunFolder:
    return RunFolder.open(RunRef(**result["run"]))


def _report(benchmark: Benchmark, cell: Cell, set_name: SetShown, settings: Settings) -> EvaluationReport:
    result = read_result(benchmark, cell, settings)
    if result is None or result["state"] != "done":
        raise ArtefactError(f"The cell {cell.key} is not finished. Run the benchmark again.")
    folder = _run_folder(result)
    if not (folder.path / "evaluation" / set_name / "report.json").exists():
        raise ArtefactError(f"The run {folder.run_id} was not evaluated on {set_name}. Run the benchmark again.")
    return EvaluationReport.model_validate(folder.read(f"evaluation/{set_name}/report.json"))


def corrected(rows: Sequence[LeaderRow]) -> list[LeaderRow]:
    """Return the rows with Holm's p-values over all compared methods."""
    tested = sorted(
        (row.against.p_value, place)
        for place, row in enumerate(rows)
        if row.against is not None and row.against.p_value is not None
    )
    corrected_p, highest = {}, 0.0
    for rank, (p_value, place) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p_value))
        corrected_p[place] = highest
    return [row.model_copy(update={"holm_p": corrected_p.get(place)}) for place, row in enumerate(rows)]


def _controls(reports: Sequence[EvaluationReport]) -> list[LeaderRow]:
    strongest = strongest_controls(reports)
    return [LeaderRow(name=name, control=True, figures=figures) for name, figures in strongest.items()]

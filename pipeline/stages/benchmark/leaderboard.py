"""The table of a benchmark: one row a method with the score that develop chose, beside the best controls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from pipeline.config import Config, Settings
from pipeline.errors import ArtefactError, EmptySelection, NightreadError
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.compare import Comparison
from pipeline.evaluation.cross_fit import mean_estimate
from pipeline.evaluation.report import EvaluationReport
from pipeline.stages.benchmark.config import Benchmark, Cell
from pipeline.stages.benchmark.control_rows import against_best_control, strongest_controls
from pipeline.stages.benchmark.run import figures_of, result_of
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import RunRef

SetShown = Literal["develop", "test"]


class LeaderRow(Config):
    """A method, or a control, in the table.

    Attributes:
        name, score: the method and the score that develop chose for it.
        control: True for a trivial control.
        figures: auroc, auroc_central, pixel_ap, dice, oracle_dice: those that could be had.
        seeds: the figures on this set by training seed, of the chosen score; `figures` are those of the first.
        against: the method against the best control, by the paired bootstrap: the mean AUROC of all its seeds, patients
            and seeds both resampled, or of its folds; None where it was not measured.
        holm_p: its p-value, corrected over the methods of the table.
        failure: why there are no figures.
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
    units: int = 0
    seeds: dict[int, dict[str, float]] = {}
    against: Comparison | None = None
    holm_p: float | None = None
    failure: str = ""


class Leaderboard(Config):
    """Everything that the table shows.

    Attributes:
        title, set_name, criterion: what it is about; the criterion chose on develop.
        part: the units that `against` compares on: central slices where there are any.
        counts: of the first image-level table: units, patients, normal, abnormal.
        rows: methods, best first; those that failed last; then the controls.
        command: what makes this table.
        folds: over how many folds figures are means, and seeds mean folds; 0 without cross-fitting.
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
    """Return each method's cell of the first seed under the score that is best on develop, meaned over the seeds.

    A score that lacks a figure or a seed is not chosen while another has all; a method without any is left out.
    """
    by_method: dict[str, dict[str, list[float]]] = {}
    for cell in benchmark.cells():
        value = developed(benchmark, cell, settings)
        if value is not None:
            by_method.setdefault(cell.method.name, {}).setdefault(cell.score.name, []).append(value)
    best = {
        method: max(scores, key=lambda name, s=scores: (len(s[name]), sum(s[name]) / len(s[name])))
        for method, scores in by_method.items()
    }
    found: dict[str, Cell] = {}
    for cell in benchmark.cells():
        if best.get(cell.method.name) == cell.score.name and developed(benchmark, cell, settings) is not None:
            found.setdefault(cell.method.name, cell)
    return found


def developed(benchmark: Benchmark, cell: Cell, settings: Settings) -> float | None:
    """Return the criterion of a finished cell on develop; the whole set's AUROC where there is no such figure."""
    result = result_of(benchmark, cell, settings)
    if result is None or result["state"] != "done":
        return None
    figures = result["develop"]
    shown = figures.get(benchmark.config.criterion) or figures.get("auroc")
    return None if shown is None else float(shown["value"])


def leaderboard(
    benchmark: Benchmark, cells: dict[str, Cell], set_name: SetShown, command: str, settings: Settings
) -> Leaderboard:
    """Build the table from the finished runs' stored reports and scores; nothing is scored.

    Args:
        benchmark: what was compared.
        cells: each method's chosen cell.
        set_name: develop or test.
        command: what a reader has to type to get this table.
        settings: the workspace.

    Raises:
        EmptySelection: no cell is finished.
    """
    rows = [_row(benchmark, cell, set_name, settings) for cell in cells.values()]
    done = [row for row in rows if not row.failure]
    if not done:
        reasons = "; ".join(sorted({row.failure for row in _failures(benchmark, cells, settings)})) or "none was tried"
        raise EmptySelection(f"No cell of the benchmark {benchmark.config.name!r} is finished: {reasons}")
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
    shown = row.figures.get(criterion) or row.figures.get("auroc")
    return shown.value if shown else float("-inf")


def _row(benchmark: Benchmark, cell: Cell, set_name: SetShown, settings: Settings) -> LeaderRow:
    result = result_of(benchmark, cell, settings) or {}
    known = {k: result[k] for k in ("supervision", "training_seconds", "parameters", "images_per_second")}
    stages = result.get("stage_seconds") or ()  # cells from before they were noted have none
    row = LeaderRow(name=cell.method.name, score=cell.score.name, stage_seconds=stages, **known)
    measured = _measured(benchmark, cell, set_name, settings)
    try:
        judged = _judged(benchmark, cell, set_name, measured, settings)
    except NightreadError as error:
        return row.model_copy(update={"failure": str(error)})
    against = None
    with suppress(NightreadError):  # the central slices may lack a class: the figures stand all the same
        runs, folds = [folder for folder, _ in measured.values()], benchmark.config.folds is not None
        against = against_best_control(runs, set_name, cell.method.name, folds=folds)
    update = {"figures": _figures(judged), "against": against}
    update["units"] = sum(report.tables[0].counts["units"] for report in judged)
    return row.model_copy(update={**update, "seeds": {seed: _values(found) for seed, (_, found) in measured.items()}})


def _judged(
    benchmark: Benchmark,
    cell: Cell,
    set_name: SetShown,
    measured: Mapping[int, tuple[RunFolder, EvaluationReport]],
    settings: Settings,
) -> list[EvaluationReport]:
    """Return the reports behind a row's figures: the first seed's, or those of all folds.

    Raises:
        ArtefactError: it, or a fold, is not finished or not measured.
    """
    if benchmark.config.folds is None:
        return [_report(benchmark, cell, set_name, settings)]
    if lacking := [fold for fold in range(benchmark.config.folds) if fold not in measured]:
        raise ArtefactError(f"The folds {', '.join(map(str, lacking))} are not finished; the mean is over all of them.")
    return [report for _, report in measured.values()]


def _figures(reports: Sequence[EvaluationReport]) -> dict[str, Estimate]:
    """Return the figures that all reports have, averaged."""
    found = [{k: Estimate.model_validate(v) for k, v in figures_of(report).items()} for report in reports]
    return {name: mean_estimate([one[name] for one in found]) for name in found[0] if all(name in one for one in found)}


def _measured(
    benchmark: Benchmark, cell: Cell, set_name: SetShown, settings: Settings
) -> dict[int, tuple[RunFolder, EvaluationReport]]:
    """Return, by seed, the runs of a method and score that were measured on this set, and their reports."""
    found: dict[int, tuple[RunFolder, EvaluationReport]] = {}
    for other in same_choice(benchmark, cell):
        with suppress(NightreadError):
            report = _report(benchmark, other, set_name, settings)
            found[other.seed] = (_run_folder(result_of(benchmark, other, settings) or {}), report)
    return found


def _values(report: EvaluationReport) -> dict[str, float]:
    return {name: float(figure["value"]) for name, figure in figures_of(report).items()}


def same_choice(benchmark: Benchmark, cell: Cell) -> list[Cell]:
    """Return the cells of a method and score, one a seed."""
    wanted = (cell.method.name, cell.score.name)
    return [other for other in benchmark.cells() if (other.method.name, other.score.name) == wanted]


def _failures(benchmark: Benchmark, cells: dict[str, Cell], settings: Settings) -> list[LeaderRow]:
    """Return a row for each method that has no finished cell: why."""
    found: dict[str, LeaderRow] = {}
    for cell in benchmark.cells():
        result = result_of(benchmark, cell, settings)
        if cell.method.name not in cells and cell.method.name not in found:
            reason = "not computed yet" if result is None else result.get("reason", "")
            found[cell.method.name] = LeaderRow(name=cell.method.name, score=cell.score.name, failure=reason)
    return list(found.values())


def _run_folder(result: dict[str, Any]) -> RunFolder:
    return RunFolder.behind(RunRef(**result["run"]))


def _report(benchmark: Benchmark, cell: Cell, set_name: SetShown, settings: Settings) -> EvaluationReport:
    result = result_of(benchmark, cell, settings)
    if result is None or result["state"] != "done":
        raise ArtefactError(f"The cell {cell.key} is not finished.")
    folder = _run_folder(result)
    if not (folder.path / "evaluation" / set_name / "report.json").exists():
        raise ArtefactError(f"The run {folder.run_id} was not measured on {set_name}.")
    return EvaluationReport.model_validate(folder.read(f"evaluation/{set_name}/report.json"))


def corrected(rows: Sequence[LeaderRow]) -> list[LeaderRow]:
    """Return the rows with Holm's p-values over all methods that were compared."""
    tested = sorted(
        (row.against.p_value, place)
        for place, row in enumerate(rows)
        if row.against is not None and row.against.p_value is not None
    )
    found, highest = {}, 0.0
    for rank, (p_value, place) in enumerate(tested):
        highest = max(highest, min(1.0, (len(tested) - rank) * p_value))
        found[place] = highest
    return [row.model_copy(update={"holm_p": found.get(place)}) for place, row in enumerate(rows)]


def _controls(reports: Sequence[EvaluationReport]) -> list[LeaderRow]:
    found = strongest_controls(reports)
    return [LeaderRow(name=name, control=True, figures=figures) for name, figures in found.items()]

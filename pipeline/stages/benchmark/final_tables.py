"""Final tables and figures of a benchmark: on develop, and on test once the choices are frozen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.evaluation.style import save_png
from pipeline.stages.benchmark.config import Benchmark, Cell
from pipeline.stages.benchmark.leaderboard import Leaderboard, build_leaderboard, chosen_cells, same_choice
from pipeline.stages.benchmark.page import FIGURES, leaderboard_figure, leaderboard_page
from pipeline.stages.benchmark.run import make_benchmark_folder, read_result
from pipeline.stages.detect.evaluate import evaluate
from pipeline.stages.run.run_folder import RunFolder
from pipeline.tracking.experiment import track
from pipeline.types import RunRef


@dataclass(frozen=True, slots=True)
class BenchmarkReport:
    """Result of a benchmark: its folder, its page in Markdown, and the failed cells with their reasons."""

    folder: str
    markdown: str
    failures: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def finish(benchmark: Benchmark, settings: Settings, command: str, open_test: str | None = None) -> BenchmarkReport:
    """Write the leaderboard and its figures from the finished cells; with a purpose, open test for the frozen choice.

    The choice is each method's score, made on develop. It is written before test is opened and never changes again:
    later calls with `open_test` evaluate nothing twice.

    Args:
        benchmark: the benchmark.
        settings: the workspace.
        command: the command that creates the table.
        open_test: purpose of opening test; None for develop only.

    Raises:
        EmptySelection: no cell is finished.
        ConfigError: test was opened for another choice, or the benchmark has folds.
    """
    benchmark.check_purpose(open_test)
    folder, cells = make_benchmark_folder(benchmark, settings), chosen_cells(benchmark, settings)
    boards = [build_leaderboard(benchmark, cells, "develop", command, settings)]
    if open_test is not None:
        frozen = _frozen(benchmark, cells, open_test, folder)
        _measure_on_test(benchmark, frozen.values(), open_test, settings)
        boards.insert(0, build_leaderboard(benchmark, frozen, "test", command, settings))
    _write(folder, boards, settings)
    return BenchmarkReport(
        str(folder.path), (folder.path / "leaderboard.md").read_text(encoding="utf-8"), _failures(benchmark, settings)
    )


def _failures(benchmark: Benchmark, settings: Settings) -> dict[str, str]:
    results = {cell.key: read_result(benchmark, cell, settings) for cell in benchmark.cells()}
    return {key: result["reason"] for key, result in results.items() if result and result["state"] == "failed"}


def _frozen(benchmark: Benchmark, cells: dict[str, Cell], purpose: str, folder: RunFolder) -> dict[str, Cell]:
    """Return the choice for which test is opened; the first one is final.

    Raises:
        ConfigError: the configurations or the scores chosen on develop have changed.
    """
    choice: dict[str, Any] = {
        "fingerprint": benchmark.fingerprint,
        "cells": {name: cell.key for name, cell in cells.items()},
    }
    if not (folder.path / "choice.json").exists():
        folder.write("choice.json", {**choice, "purpose": purpose})
    frozen = folder.read("choice.json")
    if {name: frozen[name] for name in choice} != choice:
        changed = sorted(set(frozen["cells"].values()) ^ set(choice["cells"].values())) or ["their configuration"]
        raise ConfigError(
            f"Test was opened for another choice ({', '.join(changed)} changed since then). Choosing again after "
            "seeing "
            "test would invalidate its results. Give the benchmark another name, and report that test was opened twice."
        )
    return cells


def _measure_on_test(benchmark: Benchmark, cells: Iterable[Cell], purpose: str, settings: Settings) -> None:
    """Evaluate the chosen runs of every seed on test, each once."""
    for cell in (other for chosen in cells for other in same_choice(benchmark, chosen)):
        result = read_result(benchmark, cell, settings)
        if result is None or result["state"] != "done":
            continue
        run = RunRef(**result["run"])
        if not (RunFolder.open(run).path / "evaluation" / "test" / "report.json").exists():
            evaluate(run, settings, open_test=purpose)


def _write(folder: RunFolder, boards: list[Leaderboard], settings: Settings) -> None:
    """Write page, JSON and figures into the folder, and log them with the benchmark's MLflow run."""
    page = "\n".join(leaderboard_page(board) for board in boards)
    folder.write_text("leaderboard.md", page)
    folder.write("leaderboard.json", [board.model_dump(mode="json") for board in boards])
    above = folder.read("benchmark.json")
    with track(settings, above["route"], folder.run_id, run_id=above["mlflow"], system_metrics=False) as tracked:
        tracked.log_text(page, "leaderboard.md")
        for board in boards:
            for name in FIGURES:
                figure = leaderboard_figure(board, name)
                if figure is not None:
                    save_png(figure, Path(folder.path / f"{board.set_name}_{name}.png"))
                    tracked.log_figure(figure, f"{board.set_name}_{name}")

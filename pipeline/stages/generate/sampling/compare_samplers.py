"""Run a comparison of samplers: every row is a task of its own, so that an interrupted comparison continues."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import durable
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import ConfigError
from pipeline.evaluation.path_length import measure_path_length
from pipeline.evaluation.sample_sheet import draw_curves, encode_strip
from pipeline.evaluation.style import save_png
from pipeline.methods.base import Method
from pipeline.methods.capabilities import Codec
from pipeline.stages.generate.judge import Court, Judged
from pipeline.stages.generate.sampling.comparison_config import Comparison, list_tasks_of, load_comparison
from pipeline.stages.generate.sampling.comparison_page import PageRow, comparison_page, join_rows, list_curves
from pipeline.stages.generate.sampling.draw_apart import describe_failure, draw_apart
from pipeline.stages.generate.sampling.run_sample import finish_sample
from pipeline.stages.generate.sampling.sample import PLAIN, OpenTask, draw_all, open_task

Say = Callable[[str], None]
LINES = 64  # lines between images on which a codec's path length is measured


@dataclass(frozen=True, slots=True)
class SamplerRow:
    """One row: a sampler with one set of options, what it cost, and what the judge found.

    `path_length` is the perceptual one of a codec, mean over lines between held-out images.
    """

    sampler: str
    parameters: int
    training_seconds: float | None
    judged: Judged
    path_length: float | None = None


@dataclass(slots=True)
class ComparisonReport:
    """A finished comparison: its page, its folder, and the samplers that failed with the reason."""

    folder: str
    markdown: str
    failures: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def compare_samplers(
    file: Path,
    settings: Settings,
    progress: bool = False,
    say: Say = lambda _: None,
    only: Collection[str] = (),
    workers: int = 1,
) -> ComparisonReport:
    """Train, draw and judge every sampler, then write the table, the curves and leaderboard.md.

    A sampler that fails says why in the report and does not stop the others.

    Args:
        file: the configuration.
        settings: the workspace.
        progress: show a progress bar while models are trained.
        say: called with one sentence per finished sampler.
        only: samplers to run, by name; the table keeps the rows that others reached before. () runs all.
        workers: samplers to train and draw at once, each in its own process.

    Raises:
        ConfigError: the file, its base or a method cannot be read, or a name of `only` is missing in it.
    """
    comparison = load_comparison(file)
    if unknown := sorted(set(only) - {entry.name for entry in comparison.samplers}):
        raise ConfigError(
            f"{comparison.name} has no sampler {', '.join(unknown)}. Choose among "
            f"{', '.join(entry.name for entry in comparison.samplers)}."
        )
    rows: list[SamplerRow] = []
    court: Court | None = None
    every = list(list_tasks_of(comparison, file))
    tasks = [(row, task) for row, entry, task in every if not only or entry.name in only]
    failures = draw_apart(tasks, settings, workers, say) if workers > 1 else {}
    for name, task in [one for one in tasks if one[0] not in failures]:
        try:
            opened = open_task(task, settings, progress)
            court = court if court is not None or task.judge is None else Court.open(opened, task.judge)
            rows += _rows_of(opened, name, court)
            say(f"{name} is done")
        except Exception as error:
            failures[name] = describe_failure(error, settings)
            say(f"{name} failed: {failures[name]}")
    short = file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file
    command = " ".join(["nightread generate compare", str(short), *(f"--only {name}" for name in only)])
    fingerprints = {row: task.fingerprint() for row, _, task in every}
    return _write(comparison, command, settings, fingerprints, rows, failures)


def _rows_of(opened: OpenTask, name: str, court: Court | None) -> list[SamplerRow]:
    report = finish_sample(opened, draw_all(opened), court)
    parameters = sum(one.numel() for one in opened.model.method.parameters())
    with Catalogue.open(opened.settings) as catalogue:
        summary = catalogue.run(opened.folder.read("task.json")["run"]).summary
    seconds = summary.get("process_seconds")
    length = None if court is None else _path_length(opened.model.method, court)
    return [SamplerRow(name, parameters, seconds, judged, length) for judged in report.judged]


def _path_length(method: Method, court: Court) -> float | None:
    if not isinstance(method, Codec):
        return None
    return float(measure_path_length(method, court.held_out.images[:LINES]).mean())


def _write(
    comparison: Comparison,
    command: str,
    settings: Settings,
    tasks: Mapping[str, str],
    rows: list[SamplerRow],
    failures: dict[str, str],
) -> ComparisonReport:
    folder = settings.generated / comparison.name
    lines = [_line(row, tasks[row.sampler]) for row in rows]
    joined = join_rows(folder, tasks, lines, list(failures))
    page = comparison_page(comparison.name, command, joined, failures, [row.sampler for row in rows])
    durable.write(folder / "leaderboard.md", page)
    for row in rows:
        images = row.judged.drawing.images
        if images.ndim == 4 and row.judged.drawing.name == PLAIN:
            durable.write(folder / f"{row.sampler.replace(', seed ', '-')}.png", encode_strip(np.asarray(images[:, 0])))
    if joined:
        save_png(draw_curves(list_curves(joined), joined[0].floor_kid), folder / "kid.png")
    return ComparisonReport(str(folder), page, failures)


def _line(row: SamplerRow, task: str) -> PageRow:
    quality = row.judged.quality
    chosen = ", ".join(f"{name} {value}" for name, value in row.judged.drawing.options.items())
    cells = {
        "sampler": row.sampler + (f", {chosen}" if chosen else ""),
        "parameters": f"{row.parameters / 1e6:.2f} M",
        "training, CPU s": "" if row.training_seconds is None else f"{row.training_seconds:.0f}",
        **quality.row(),
        "path length": "" if row.path_length is None else f"{row.path_length:.3g}",
    }
    images = (
        f"{quality.samples} images of each sampler against {quality.real} real ones of {quality.real_patients} "
        f"patients that no model learned from; {quality.train} images of {quality.train_patients} patients to "
        "learn from."
    )
    seconds = quality.seconds_per_image or 0.0
    return PageRow(
        row.sampler, task, images, quality.floor_row(), cells, seconds, quality.kid.value, quality.floor_kid.value
    )

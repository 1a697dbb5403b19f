"""Run a task whose images have originals: solve its problems, judge the answers, draw them, and log all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config import Settings
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.paired_figure import draw_levels
from pipeline.evaluation.paired_kid import judge_likeness
from pipeline.evaluation.paired_quality import PairedRow, compare_pairs, measure_pairs
from pipeline.evaluation.sample_sheet import COLUMNS, Strip, draw_sheet
from pipeline.evaluation.style import save_png
from pipeline.stages.generate.judge import table_of
from pipeline.stages.generate.pictures import may_show, to_pixels
from pipeline.stages.generate.restoration.lesion_survival import (
    SurvivalRow,
    Watch,
    judge_survival,
    survival_line,
    survival_metrics,
    survival_warnings,
)
from pipeline.stages.generate.restoration.paired import HeldOut, Problem, Solved, read_held_out, solve_all
from pipeline.stages.generate.task_base import PairedTask
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_report import TaskReport, recorded
from pipeline.stages.generate.trained_model import TrainedModel
from pipeline.stages.run.run_config import RunConfig
from pipeline.types import SliceRef

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class JudgedPairs:
    """A problem's answers and what the judge found: one row and one KID each, and the model's beside the best other."""

    problem: Problem
    rows: tuple[PairedRow, ...]
    likeness: Mapping[str, Estimate]
    seconds: Mapping[str, float]
    best_other: str
    against_best: PairedRow
    pictures: tuple[Strip, ...]

    @property
    def own(self) -> PairedRow:
        """The row of the model."""
        return self.rows[-1]


def open_watch(config: PairedTask, run: RunConfig, settings: Settings) -> Watch | None:
    """Return the detector that a task names, for images of a run's model; None if it names none. See `Watch.open`."""
    return None if config.judge.detector is None else Watch.open(config.judge.detector, run, settings)


def run_paired(
    config: PairedTask,
    trained: TrainedModel,
    problems: Sequence[Problem],
    settings: Settings,
    watch: Watch | None = None,
    on_progress: OnProgress | None = None,
    warnings: tuple[str, ...] = (),
) -> TaskReport:
    """Run a paired task to its end; an interrupted one continues, and a finished one is judged again.

    Args:
        config: the task.
        trained: its model.
        problems: its degradations, with the answers to each, the plainest first and the model's last.
        settings: the workspace.
        watch: detector that says whether lesions survive; None does not ask.
        on_progress: called with (images solved, images in all).
        warnings: what is to be known of the models before the results.

    Raises:
        ConfigError: the model sees volumes.
        EmptySelection: a set lacks normal slices, or those that the detector needs.
    """
    folder = trained.make_folder(config, settings)
    with recorded(folder, settings) as summary:
        held_out = read_held_out(trained, settings, config.of, config.count, config.seed, _taken_by(problems))
        pictured = [place for place, ref in enumerate(held_out.refs) if may_show(ref, settings)][:COLUMNS]
        solved = solve_all(problems, held_out, config.seed, folder, on_progress)
        judged = [_judge(one, held_out, pictured) for one in solved]
        title = f"{config.name}: {trained.run.method.name}"
        originals = Strip("Originals, held out", _originals(held_out, pictured))
        save_png(draw_sheet([originals, *(strip for one in judged for strip in one.pictures)], title), folder.sheet)
        if is_sweep([one.problem for one in judged]):
            save_png(_curves(judged), folder.path / "sweep.png")
        survivals = {} if watch is None else judge_survival(problems, watch, settings, config)
        report = _report(folder, judged, survivals, warnings)
        report.publish(config, settings)
        summary |= report.metrics
    return report


def _taken_by(problems: Sequence[Problem]) -> Callable[[SliceRef], bool]:
    return lambda ref: all(problem.takes(ref) for problem in problems)


def _report(
    folder: TaskFolder,
    judged: Sequence[JudgedPairs],
    survivals: Mapping[str, Sequence[SurvivalRow]],
    warnings: tuple[str, ...],
) -> TaskReport:
    lines = [line for name, rows in survivals.items() for line in map(survival_line(name), rows)]
    seen = [{"problem": name, **row.model_dump(mode="json")} for name, rows in survivals.items() for row in rows]
    problems = [one.problem for one in judged]
    return TaskReport(
        folder,
        "\n\n".join([_table(judged), *([table_of(lines)] if lines else [])]),
        _metrics(judged) | survival_metrics(problems, survivals),
        (*_json(judged), *seen),
        (*warnings, *_warn(judged), *survival_warnings(problems, survivals)),
    )


def _judge(solved: Solved, held_out: HeldOut, pictured: Sequence[int]) -> JudgedPairs:
    problem, patients = solved.problem, held_out.patients
    measured = {name: measure_pairs(answer, solved.target, solved.region) for name, answer in solved.answers.items()}
    rows = compare_pairs(measured, patients)
    best = max(rows[:-1], key=lambda row: row.psnr.value).name
    against = compare_pairs({best: measured[best], problem.own: measured[problem.own]}, patients)[-1]
    pictures = [
        Strip(f"{problem.name}: {row.name}, {row.psnr.value:.1f} dB", to_pixels(solved.answers[row.name][pictured]))
        for row in rows
    ]
    seconds = {name: total / len(solved.target) for name, total in solved.seconds.items()}
    likeness = judge_likeness(solved.answers, solved.target, patients)
    return JudgedPairs(problem, rows, likeness, seconds, best, against, tuple(pictures))


def _originals(held_out: HeldOut, pictured: Sequence[int]) -> np.ndarray:
    images = np.concatenate([to_pixels(batch.images) for batch in held_out.batches])
    return images[list(pictured)]


def is_sweep(problems: Sequence[Problem]) -> bool:
    """Return whether the problems differ in strength only, so that a curve can be drawn through them."""
    kinds = {(one.name.rpartition(" ")[0], tuple(one.answers)) for one in problems}
    return len(problems) > 1 and len(kinds) == 1


def _curves(judged: Sequence[JudgedPairs]) -> Any:
    ordered = sorted(judged, key=lambda one: one.problem.level)
    names = [row.name for row in ordered[0].rows]
    rows = {name: [one.rows[place] for one in ordered] for place, name in enumerate(names)}
    label = ordered[0].problem.name.rpartition(" ")[0]
    return draw_levels(f"strength of the {label}", [one.problem.level for one in ordered], rows)


def _table(judged: Sequence[JudgedPairs]) -> str:
    """Return one line per problem and answer."""
    return table_of(
        [
            {
                "problem": one.problem.name,
                "answer": row.name,
                "PSNR, dB": row.psnr.text(2),
                "gain, dB": _text(row.psnr_gain, 2),
                "SSIM": row.ssim.text(),
                "perceptual distance": row.perceptual.text(),
                "its change": _text(row.perceptual_gain),
                "KID": one.likeness[row.name].text(),
                "CPU s per image": f"{one.seconds[row.name]:.2g}",
            }
            for one in judged
            for row in one.rows
        ]
    )


def _text(estimate: Estimate | None, digits: int = 3) -> str:
    return "" if estimate is None else estimate.text(digits)


def _metrics(judged: Sequence[JudgedPairs]) -> dict[str, float]:
    """Return the mean gains of the model over doing nothing and over the best other answer, then those by problem."""
    gains = [one.own.psnr_gain.value for one in judged if one.own.psnr_gain is not None]
    over_best = [one.against_best.psnr_gain.value for one in judged if one.against_best.psnr_gain is not None]
    metrics = {"psnr_gain": float(np.mean(gains)), "psnr_over_best_other": float(np.mean(over_best))}
    for one in judged:
        place = one.problem.name.replace(" ", "_")
        metrics |= {f"psnr_{place}": one.own.psnr.value, f"ssim_{place}": one.own.ssim.value}
        metrics |= {f"perceptual_{place}": one.own.perceptual.value, f"kid_{place}": one.likeness[one.own.name].value}
    return metrics


def _json(judged: Sequence[JudgedPairs]) -> list[dict[str, Any]]:
    return [
        {"problem": one.problem.name, "level": one.problem.level, **row.model_dump(mode="json")}
        | {"kid": one.likeness[row.name].model_dump(mode="json"), "seconds_per_image": one.seconds[row.name]}
        for one in judged
        for row in one.rows
    ]


def _warn(judged: Sequence[JudgedPairs]) -> list[str]:
    """Return a sentence for each problem in which the model does not surely beat the best of the other answers."""
    sentences = []
    for one in judged:
        gain = one.against_best.psnr_gain
        if gain is None or (gain.low is not None and gain.low > 0):
            continue
        outcome = "loses to" if gain.high is not None and gain.high < 0 else "does not beat"
        sentences.append(
            f"{one.problem.name}: {one.own.name} {outcome} {one.best_other}: PSNR difference {gain.text(2)} dB, paired "
            "patient bootstrap."
        )
    return sentences

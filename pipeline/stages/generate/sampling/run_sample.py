"""Task `sample` to its end: images, judgement, pictures, table, MLflow. Each part may be repeated."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.config import Settings
from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.style import save_png
from pipeline.stages.generate.judge import Court, Judged, quality_table
from pipeline.stages.generate.pictures import draw_task_sheet, draw_task_sweep
from pipeline.stages.generate.sampling.sample import Drawing, OnProgress, OpenTask, draw_all, draw_baseline, open_task
from pipeline.stages.generate.task_config import SampleTask
from pipeline.stages.generate.task_report import TaskReport, recorded


@dataclass(frozen=True, slots=True)
class SampleReport(TaskReport):
    """A finished task `sample`.

    Attributes:
        drawings: the images of the task's own options, those of its sweep, and the baseline's.
        judged: the judgement of each; () where nothing was judged.
    """

    drawings: tuple[Drawing, ...] = ()
    judged: tuple[Judged, ...] = ()


def run_sample(
    config: SampleTask, settings: Settings, progress: bool = False, on_progress: OnProgress | None = None
) -> SampleReport:
    """Train what is missing, draw, judge, and log; a finished task is reported again, an interrupted one continues.

    Args:
        config: the task.
        settings: the workspace.
        progress: show a progress bar while models are trained.
        on_progress: called with (images drawn, images in all).

    Raises:
        ArtefactError, ConfigError, EmptySelection: see `open_task`.
    """
    task = open_task(config, settings, progress)
    drawn = draw_all(task, on_progress)
    return finish_sample(task, drawn)


def finish_sample(task: OpenTask, drawings: list[Drawing], court: Court | None = None) -> SampleReport:
    """Judge the drawings beside the baseline, draw the pictures, and log everything to one MLflow run.

    Args:
        task: the open task.
        drawings: its images.
        court: of an earlier task on the same data; None opens one.
    """
    with recorded(task.folder, task.settings) as summary:
        report = _judge(task, drawings, court)
        report.publish(task.config, task.settings)
        summary |= {"images": len(drawings[0].images), "kid": report.metrics.get("kid")}
    return report


def _judge(task: OpenTask, drawings: list[Drawing], court: Court | None) -> SampleReport:
    folder, judging = task.folder, task.config.judge
    baseline = draw_baseline(task)
    everything = (*drawings, *(() if baseline is None else (baseline,)))
    if judging is not None:
        court = court or Court.open(task, judging)
    judged = () if court is None else tuple(court.judge_all(everything))
    save_png(draw_task_sheet(task, everything, court, judged), folder.sheet)
    sweep = draw_task_sweep(task, judged) if judged else None
    if sweep is not None:
        save_png(sweep, folder.path / "sweep.png")
    return SampleReport(
        folder,
        quality_table(judged) if judged else _plain_table(everything),
        judged[0].quality.numbers() if judged else {},
        tuple(one.to_json() for one in judged),
        tuple(_warn(judged)),
        everything,
        judged,
    )


def _warn(judged: tuple[Judged, ...]) -> list[str]:
    return [
        f"{one.drawing.method}, {one.drawing.name}: {verdict.sentence}"
        for one in judged
        for verdict in one.quality.verdicts
    ]


def _plain_table(drawings: tuple[Drawing, ...]) -> str:
    rows = [[one.name, len(one.images), f"{one.seconds / len(one.images):.3g}"] for one in drawings]
    return markdown_table(["images", "number", "CPU s per image"], rows)

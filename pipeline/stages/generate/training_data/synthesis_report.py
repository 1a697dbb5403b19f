"""Report of `synthesise-training`: a row per share and arm, the curve, what did not help, and the sheet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from pipeline.config import Config, Settings
from pipeline.data.images.dataset import SliceDataset
from pipeline.evaluation import style
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.cross_fit import compare_folds, mean_estimate
from pipeline.evaluation.metrics import evaluate_images
from pipeline.evaluation.sample_sheet import COLUMNS, Strip, draw_sheet
from pipeline.evaluation.style import save_png
from pipeline.stages.generate.judge import table_of
from pipeline.stages.generate.pictures import may_show, to_pixels
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_report import TaskReport
from pipeline.stages.generate.training_data.training_arms import EVERYTHING, LESIONS, LONGER, NORMALS, PLAIN
from pipeline.stages.generate.training_data.training_data_task import SynthesiseTrainingTask

ORDER = (PLAIN, LONGER, NORMALS, LESIONS, EVERYTHING)


class Result(Protocol):
    """One cell; see `pipeline.stages.generate.training_data.training_arms.CellResult`."""

    frame: pd.DataFrame
    seconds: dict[str, float]
    trained_on: dict[str, int]
    samples: Tensor


class ArmRow(Config):
    """Line of the table.

    Attributes:
        share, patients: of the training patients, and their number by fold.
        arm: how the detector was taught.
        auroc, ap: of held-out slices, means over the folds.
        gain: AUROC less that of plain augmentation at equal CPU time; None for itself.
        seconds: CPU seconds of its training, that of its sampler included, mean over the folds.
        images: training images, mean over the folds.
    """

    share: float
    patients: tuple[int, ...]
    arm: str
    auroc: Estimate
    ap: Estimate
    gain: Estimate | None
    seconds: float
    images: float


def report_synthesis(
    config: SynthesiseTrainingTask,
    folder: TaskFolder,
    results: Mapping[float, Sequence[Result]],
    counts: Mapping[float, Sequence[int]],
    learned: SliceDataset,
    settings: Settings,
) -> TaskReport:
    """Draw curve and sheet, and return the report."""
    rows = [row for share, cells in results.items() for row in rows_of(config, share, cells, counts[share])]
    save_png(_curve(rows), folder.path / "sweep.png")
    _draw(config, folder, results, learned, settings)
    metrics: dict[str, float] = {}
    for row in rows:
        name = f"{row.arm.replace(',', '').replace(' ', '_')}_{100 * row.share:g}"
        metrics[f"auroc_{name}"] = row.auroc.value
        metrics |= {} if row.gain is None else {f"gain_{name}": row.gain.value}
    return TaskReport(
        folder,
        table_of([_line(row) for row in rows]),
        metrics,
        tuple(row.model_dump(mode="json") for row in rows),
        tuple(_warn(rows)),
    )


def rows_of(
    config: SynthesiseTrainingTask, share: float, cells: Sequence[Result], patients: Sequence[int]
) -> Iterator[ArmRow]:
    """Yield one row per arm: means over the folds, and paired differences within them."""
    evaluation = config.detector.evaluation
    frames = [cell.frame for cell in cells]
    tables = [evaluate_images(frame, evaluation, models=ORDER) for frame in frames]
    for arm in ORDER:
        gain = None
        if arm != LONGER:
            compared = compare_folds(frames, arm, arm, LONGER, evaluation)
            gain = Estimate(value=compared.difference, low=compared.low, high=compared.high)
        metrics = [table.row(arm).metrics for table in tables]
        yield ArmRow(
            share=share,
            patients=tuple(patients),
            arm=arm,
            auroc=mean_estimate([one["AUROC"] for one in metrics]),
            ap=mean_estimate([one["AP"] for one in metrics]),
            gain=gain,
            seconds=float(np.mean([cell.seconds[arm] for cell in cells])),
            images=float(np.mean([cell.trained_on[arm] for cell in cells])),
        )


def _line(row: ArmRow) -> dict[str, str]:
    return {
        "patients": f"{100 * row.share:g} % ({', '.join(map(str, row.patients))})",
        "taught with": row.arm,
        "AUROC": row.auroc.text(),
        "over plain at equal CPU": "" if row.gain is None else row.gain.text(),
        "AP": row.ap.text(),
        "training images": f"{row.images:.0f}",
        "CPU s": f"{row.seconds:.0f}",
    }


def _warn(rows: Sequence[ArmRow]) -> Iterator[str]:
    """Yield a sentence for every synthetic arm that does not surely beat plain augmentation at equal CPU time."""
    for row in rows:
        gain = row.gain
        if row.arm in (PLAIN, LONGER) or gain is None or (gain.low is not None and gain.low > 0):
            continue
        outcome = "hurts" if gain.high is not None and gain.high < 0 else "does not surely help"
        where = f"At {100 * row.share:g} % of the patients"
        yield f"{where}, {row.arm} {outcome}: AUROC {gain.text()} over plain at equal CPU."


def _curve(rows: Sequence[ArmRow]) -> Figure:
    colours = dict(zip(ORDER, (style.CONTROL_GREY, style.BEST_CONTROL, *style.MODEL_COLOURS), strict=False))
    with style.plot(6.2, 4.2) as (figure, axes):
        for place, arm in enumerate(ORDER):
            own = sorted((row for row in rows if row.arm == arm), key=lambda row: row.share)
            values = np.array([row.auroc.value for row in own])
            low = np.array([row.auroc.value if row.auroc.low is None else row.auroc.low for row in own])
            high = np.array([row.auroc.value if row.auroc.high is None else row.auroc.high for row in own])
            around = np.clip([values - low, high - values], 0, None)
            shares = [100 * row.share * 1.03 ** (place - 2) for row in own]  # side by side
            axes.errorbar(shares, values, yerr=around, marker="o", capsize=3, color=colours[arm], label=arm)
        ticks = sorted({100 * row.share for row in rows})
        axes.set(xlabel="% of the training patients", ylabel="AUROC of held-out slices", xscale="log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        figure.legend(loc="outside lower center", ncols=3)
    return figure


def _draw(
    config: SynthesiseTrainingTask,
    folder: TaskFolder,
    results: Mapping[float, Sequence[Result]],
    learned: SliceDataset,
    settings: Settings,
) -> None:
    places = [place for place, ref in enumerate(learned.slices) if may_show(ref, settings)][:COLUMNS]
    if not places:
        return
    strips = [Strip("Real, learned from", to_pixels(learned.batch(places).images))]
    strips += [
        Strip(f"Synthetic normals, from {100 * share:g} % of the patients", to_pixels(cells[-1].samples[:COLUMNS]))
        for share, cells in results.items()
    ]
    save_png(draw_sheet(strips, f"{config.name}: synthetic images"), folder.sheet)

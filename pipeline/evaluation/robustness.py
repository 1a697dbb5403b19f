"""Answers under attack: accuracy of a classifier and AUROC of a detector, with intervals over patients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from pipeline.config import Config
from pipeline.evaluation import style
from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.metrics import evaluate_images
from pipeline.evaluation.paired_quality import means_of_images
from pipeline.evaluation.real_images import codes_of


class RobustnessRow(Config):
    """Line of a table of defences.

    Attributes:
        victim: what was attacked, classifier or detector.
        defence: before it.
        measure: accuracy, AUROC, or a share above the threshold.
        clean, unaware, adaptive: without an attack, under one that does not know the defence, under one that does.
        seconds_per_image: CPU seconds of the defence.
        time: t*, for purification.
    """

    victim: str
    defence: str
    measure: str
    clean: Estimate
    unaware: Estimate
    adaptive: Estimate
    seconds_per_image: float
    time: float | None = None


def mean_shares(
    measured: Mapping[str, np.ndarray], patients: Sequence[str], config: EvaluationConfig | None = None
) -> dict[str, Estimate]:
    """Return the mean of each column of values [N] with its interval over patients.

    Raises:
        EmptySelection: fewer than two patients.
    """
    owners = codes_of(patients)
    bootstrap = PatientBootstrap.draw(np.zeros(int(owners.max(initial=0)) + 1, int), config or EvaluationConfig())
    values = np.stack([np.asarray(column, float) for column in measured.values()], axis=1)
    sampled = bootstrap.sample(means_of_images(values, owners), values.size)
    return dict(zip(measured, bootstrap.estimates(sampled), strict=True))


def areas(
    scores: Mapping[str, np.ndarray],
    abnormal: np.ndarray,
    patients: Sequence[str],
    config: EvaluationConfig | None = None,
) -> dict[str, Estimate]:
    """Return the AUROC of each column of scores [N], with its interval over patients.

    Raises:
        EmptySelection: one class only, or fewer than two patients.
    """
    names = {f"score {number}": name for number, name in enumerate(scores)}
    frame = pd.DataFrame({key: scores[name] for key, name in names.items()})
    frame["unit_id"] = [str(number) for number in range(len(frame))]
    frame["patient_id"] = list(patients)
    frame["label"] = np.where(abnormal, "abnormal", "normal")
    table = evaluate_images(frame, config or EvaluationConfig(), models=list(names))
    return {name: table.row(key).metrics["AUROC"] for key, name in names.items()}


def draw_times(rows: Sequence[RobustnessRow]) -> Figure:
    """Draw a measure against t*, clean and under both attacks, with the undefended one as horizontal lines."""
    swept = sorted((row for row in rows if row.time is not None), key=lambda row: row.time or 0.0)
    first = rows[0]
    with style.plot(5.6, 4.0) as (figure, axes), mpl.rc_context(style.RC):
        for kind, colour in zip(("clean", "unaware", "adaptive"), style.MODEL_COLOURS, strict=False):
            values: list[Estimate] = [getattr(row, kind) for row in swept]
            middle = np.array([one.value for one in values])
            low = np.array([one.value if one.low is None else one.low for one in values])
            high = np.array([one.value if one.high is None else one.high for one in values])
            around = np.clip([middle - low, high - middle], 0, None)
            label = {"clean": "clean", "unaware": "unaware attack", "adaptive": "adaptive attack"}[kind]
            times = [row.time or 0.0 for row in swept]
            axes.errorbar(times, middle, yerr=around, marker="o", capsize=3, color=colour, label=label)
        axes.axhline(first.clean.value, color=style.CONTROL_GREY, linestyle="--", label="undefended, clean")
        axes.axhline(first.unaware.value, color=style.BEST_CONTROL, linestyle=":", label="undefended, attacked")
        axes.set(xlabel="t* of purification", ylabel=f"{first.measure} of the {first.victim}", ylim=(-0.03, 1.03))
        figure.legend(loc="outside lower center", ncols=3)
    return figure

"""Report of a check of the domain: table of strangers and opinions, what the gate misses, the sheet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
from torch import Tensor

from pipeline.config import Settings
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.robustness import mean_shares
from pipeline.evaluation.sample_sheet import COLUMNS, Strip, draw_sheet
from pipeline.evaluation.stranger_quality import StrangerRow, judge_strangers
from pipeline.evaluation.style import save_png
from pipeline.stages.generate.judge import table_of
from pipeline.stages.generate.pictures import may_show, to_pixels
from pipeline.stages.generate.restoration.paired import HeldOut
from pipeline.stages.generate.robustness.robustness_tasks import OutOfDomainTask
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_report import TaskReport
from pipeline.stages.generate.trained_model import TrainedModel

DOMAIN = "domain"


class Answers(Protocol):
    """Scores by opinion and kind of image; see `pipeline.stages.generate.robustness.out_of_domain.Opinions`."""

    scores: dict[tuple[str, str], list[np.ndarray]]
    patients: dict[str, list[str]]
    seconds: dict[str, list[float]]
    gates: dict[str, str]


def report_strangers(
    config: OutOfDomainTask,
    trained: TrainedModel,
    folder: TaskFolder,
    opinions: Answers,
    shown_images: Mapping[str, Tensor],
    settings: Settings,
    asked: HeldOut,
) -> TaskReport:
    """Draw the sheet, and return the report."""
    rows = [_judge(kind, opinion, opinions) for kind in _kinds(opinions) for opinion in _names(opinions)]
    passed = mean_shares(
        {name: np.concatenate(opinions.scores[name, DOMAIN]) > 1 for name in _names(opinions)},
        opinions.patients[DOMAIN],
    )
    cost = {name: 1000 * spent / max(count, 1) for name, (spent, count) in opinions.seconds.items()}
    _draw(config, trained, folder, shown_images, settings, asked)
    own = config.gate.density
    metrics = {"auroc": float(np.mean([row.auroc.value for row in rows if row.opinion == own]))}
    metrics |= {f"auroc_{row.strangers.replace(' ', '_')}": row.auroc.value for row in rows if row.opinion == own}
    metrics |= {f"fpr95_{row.strangers.replace(' ', '_')}": row.fpr.value for row in rows if row.opinion == own}
    metrics |= {"false_rejections": passed[own].value, "ms_per_scan": cost[own]}
    judged = [row.model_dump(mode="json") for row in rows]
    judged.append({"gates": dict(opinions.gates), "false_rejections": passed[own].model_dump(mode="json"), "ms": cost})
    table = "\n\n".join([table_of([_line(row) for row in rows]), _table_of_opinions(config, passed, cost)])
    return TaskReport(folder, table, metrics, tuple(judged), tuple(_warn(config, rows, passed)))


def _names(opinions: Answers) -> list[str]:
    return list(dict.fromkeys(name for name, _ in opinions.scores))


def _kinds(opinions: Answers) -> list[str]:
    return [kind for kind in dict.fromkeys(kind for _, kind in opinions.scores) if kind != DOMAIN]


def _judge(kind: str, opinion: str, opinions: Answers) -> StrangerRow:
    inside, outside = (np.concatenate(opinions.scores[opinion, one]) for one in (DOMAIN, kind))
    return judge_strangers(
        kind,
        opinion,
        np.concatenate([inside, outside]),
        np.arange(len(inside) + len(outside)) >= len(inside),
        [*opinions.patients[DOMAIN], *opinions.patients[kind]],
    )


def _line(row: StrangerRow) -> dict[str, str]:
    return {
        "strangers": f"{row.strangers} ({row.count})",
        "score": row.opinion,
        "AUROC": row.auroc.text(),
        "false positives at 95 % recall": row.fpr.text(),
        "refused": row.refused.text(),
    }


def _table_of_opinions(config: OutOfDomainTask, passed: Mapping[str, Estimate], cost: Mapping[str, float]) -> str:
    return table_of(
        [
            {
                "score": name,
                f"images of the domain refused, at most {100 * config.gate.false_rejection:g} % expected": share.text(),
                "CPU ms per image": f"{cost[name]:.2g}" if name in cost else "the sum of its parts",
            }
            for name, share in passed.items()
        ]
    )


def _warn(config: OutOfDomainTask, rows: Sequence[StrangerRow], passed: Mapping[str, Estimate]) -> Iterator[str]:
    """Yield a sentence for strangers that pass the gate, and for a gate that refuses more than it promises."""
    own = config.gate.density
    for row in rows:
        if row.opinion == own and row.refused.value < 0.5:
            yield f"The gate lets {row.strangers} pass: it refuses {row.refused.text()} of them."
    low = passed[own].low
    if low is not None and low > config.gate.false_rejection:
        yield (
            f"The gate refuses {passed[own].text()} of the domain's own images, more than the "
            f"{config.gate.false_rejection:g} that it promises on average. Calibrate it on more held-out normals."
        )


def _draw(
    config: OutOfDomainTask,
    trained: TrainedModel,
    folder: TaskFolder,
    shown_images: Mapping[str, Tensor],
    settings: Settings,
    asked: HeldOut,
) -> None:
    if not all(may_show(ref, settings) for ref in asked.refs):
        return
    strips = [
        Strip("Of the domain" if kind == DOMAIN else kind.capitalize(), to_pixels(images[:COLUMNS]))
        for kind, images in shown_images.items()
    ]
    save_png(draw_sheet(strips, f"{config.name}: what a gate sees"), folder.sheet)

"""Task `control`: images drawn from edges or masks of lesions, and whether they show what was requested, and where.

With masks, a segmenter that learned from real images says whether the lesion is in the mask. A second one that learned
from the drawn images says whether they could replace real ones as training data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor

from pipeline.config import Settings
from pipeline.errors import ConfigError
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.lesion_segmenter import LesionSegmenter, dice, mean_of_patients
from pipeline.evaluation.paired_kid import judge_likeness
from pipeline.evaluation.sample_sheet import COLUMNS, Strip, draw_sheet
from pipeline.evaluation.style import save_png
from pipeline.methods.base import Method
from pipeline.methods.controlnet import Controlnet
from pipeline.nn.rng import Rng
from pipeline.stages.generate.draw import device_of
from pipeline.stages.generate.judge import table_of
from pipeline.stages.generate.pictures import may_show, to_pixels
from pipeline.stages.generate.task_report import TaskReport, recorded
from pipeline.stages.generate.trained_model import TrainedModel, train_for
from pipeline.stages.generate.translation.control_images import Asked, paste_flat, read_asked
from pipeline.stages.generate.translation.control_task import ControlTask

AT_ONCE = 32
REAL, NOTHING, FLAT, OWN = "real, held out", "nothing requested", "flat lesion on a normal image", "controlnet"
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ControlRow:
    """What was measured of one kind of images; `followed` is the Dice coefficient with the picture that was requested.

    `taught` is the Dice coefficient, on real lesions, of a segmenter that learned from these images.
    """

    name: str
    followed: Estimate
    kid: Estimate | None = None
    taught: Estimate | None = None
    pictures: Tensor = field(default_factory=lambda: torch.zeros(0))

    def line(self, what: str) -> dict[str, str]:
        """Return the row of the table."""
        cells = {
            f"Dice with the {what}": self.followed,
            "KID": self.kid,
            "Dice of a segmenter taught by them": self.taught,
        }
        return {"images": self.name, **{name: "" if one is None else one.text() for name, one in cells.items()}}

    def to_json(self) -> dict[str, Any]:
        """Return its numbers."""
        parts = {"followed": self.followed, "kid": self.kid, "taught": self.taught}
        return {"name": self.name} | {name: one.model_dump(mode="json") for name, one in parts.items() if one}


def run_control(
    config: ControlTask, settings: Settings, progress: bool = False, on_progress: OnProgress | None = None
) -> TaskReport:
    """Draw images that follow the pictures of held-out ones, judge them, draw the sheet, and log.

    Args:
        config: the task.
        settings: the workspace.
        progress: show a progress bar while the model is trained.
        on_progress: called with (images drawn, images in all).

    Raises:
        ArtefactError: the trained run is missing, or its model has another SHA-256.
        ConfigError: the method follows no picture, or the run learned from what the task asks for.
        EmptySelection: the sets have no such images.
    """
    trained = train_for(config, settings, require_control, progress)
    refuse_learned(config, trained)
    method, folder = cast(Controlnet, trained.model.method), trained.make_folder(config, settings)
    what = "mask" if method.config.control == "lesion" else "edges"
    with recorded(folder, settings) as summary:
        asked = read_asked(trained, settings, config.of, config.count, config.seed)
        judge = _judge_lesions if method.config.control == "lesion" else _judge_edges
        rows = judge(config, trained, settings, asked, on_progress)
        pictured = [place for place, ref in enumerate(asked.refs) if may_show(ref, settings)][:COLUMNS]
        strips = [Strip("Real, held out", to_pixels(asked.images[pictured]))]
        strips.append(Strip(f"The {what} requested", to_pixels(2 * asked.pictures[pictured] - 1)))
        strips += [Strip(row.name, to_pixels(row.pictures[:COLUMNS])) for row in rows if len(row.pictures)]
        save_png(draw_sheet(strips, f"{config.name}: synthetic images of controlnet"), folder.sheet)
        own = rows[-1]
        metrics = {"followed": own.followed.value} | ({} if own.kid is None else {"kid": own.kid.value})
        metrics |= {} if own.taught is None else {"taught": own.taught.value}
        table, judged = table_of([row.line(what) for row in rows]), tuple(row.to_json() for row in rows)
        report = TaskReport(folder, table, metrics, judged, tuple(_warn(rows, what)))
        report.publish(config, settings)
        summary |= metrics
    return report


def refuse_learned(config: ControlTask, trained: TrainedModel) -> None:
    """Refuse to judge by labelled slices that the run learned from (ConfigError)."""
    if both := sorted(set(config.of) & set(trained.run.labelled_in)):
        raise ConfigError(f"The run {trained.run_id} learned from {', '.join(both)}. Name other sets in `of`.")


def require_control(method: Method) -> None:
    """Refuse a method that follows no picture (ConfigError)."""
    if not isinstance(method, Controlnet):
        raise ConfigError(f"{method.config.name} cannot follow a picture. Choose the method controlnet.")


def draw_following(
    config: ControlTask, method: Controlnet, pictures: Tensor, name: str, on_progress: OnProgress | None = None
) -> Tensor:
    """Return an image for each picture [N, 1, S, S]: [N, C, S, S]; image i depends on i, the seed and its picture."""
    parts, device = [], device_of(method)
    for first in range(0, len(pictures), AT_ONCE):
        part = pictures[first : first + AT_ONCE]
        rng = Rng.scoring(config.seed, [f"{name} {first + row}" for row in range(len(part))], device)
        parts.append(method.sample(rng, steps=config.steps, condition=part.to(device)).cpu())
        if on_progress is not None:
            on_progress(first + len(part), len(pictures))
    return torch.cat(parts)


def _judge_edges(
    config: ControlTask, trained: TrainedModel, settings: Settings, asked: Asked, on_progress: OnProgress | None
) -> list[ControlRow]:
    method = cast(Controlnet, trained.model.method)
    answers = {
        NOTHING: draw_following(config, method, torch.zeros_like(asked.pictures), "drawn"),
        OWN: draw_following(config, method, asked.pictures, "drawn", on_progress),
    }
    kid = judge_likeness(answers, asked.images, asked.patients)
    followed = {
        name: mean_of_patients(dice(method.control_of(images), asked.pictures), asked.patients)
        for name, images in answers.items()
    }
    return [ControlRow(name, followed[name], kid[name], pictures=answers[name]) for name in answers]


def _judge_lesions(
    config: ControlTask, trained: TrainedModel, settings: Settings, asked: Asked, on_progress: OnProgress | None
) -> list[ControlRow]:
    method, run = cast(Controlnet, trained.model.method), trained.run
    learned = read_asked(trained, settings, ("train", *run.labelled_in), None, config.seed)
    lesions, normals = learned.with_lesions(), learned.without()
    if not len(lesions.refs) or not len(normals.refs):
        raise ConfigError(
            f"The run {trained.run_id} learned from {len(lesions.refs)} slices with lesions and {len(normals.refs)} "
            "normal ones, and a segmenter needs both. Label more."
        )
    answers, lessons = dict[str, Tensor](), {REAL: lesions.images}
    for name, pictures, kind in ((FLAT, asked.pictures, "asked"), (FLAT, lesions.pictures, "lesson")):
        under = normals.images[torch.arange(len(pictures)) % len(normals.images)]
        rng = Rng.scoring(config.seed, [f"flat {kind} {row}" for row in range(len(pictures))])
        (answers if kind == "asked" else lessons)[name] = paste_flat(under, pictures, learned, rng)
    answers[NOTHING] = draw_following(config, method, torch.zeros_like(asked.pictures), "drawn")
    answers[OWN] = draw_following(config, method, asked.pictures, "drawn", on_progress)
    lessons[OWN] = draw_following(config, method, lesions.pictures, "lesson")
    segmenters = {name: _teach(config, images, lesions.pictures, normals) for name, images in lessons.items()}
    kid = judge_likeness(answers, asked.images, asked.patients)

    def score(judge: str, images: Tensor) -> Estimate:
        return mean_of_patients(dice(segmenters[judge].find(images), asked.pictures), asked.patients)

    taught = {name: score(name, asked.images) for name in lessons}
    rows = [ControlRow(REAL, taught[REAL], taught=taught[REAL])]
    for name in (NOTHING, FLAT, OWN):
        images = answers[name]
        rows.append(ControlRow(name, score(REAL, images), kid[name], taught.get(name), images))
    return rows


def _teach(config: ControlTask, images: Tensor, masks: Tensor, normals: Asked) -> LesionSegmenter:
    """Return a segmenter that learned images with lesions, and as many normal ones."""
    count = min(len(normals.images), len(images))
    every = torch.cat([images, normals.images[:count]]), torch.cat([masks, normals.pictures[:count]])
    return LesionSegmenter(*every, steps=config.segmenter, seed=config.seed)


def _warn(rows: list[ControlRow], what: str) -> list[str]:
    """Say where the controlled images do not beat the plainest ones."""
    by_name: Mapping[str, ControlRow] = {row.name: row for row in rows}
    own, nothing, flat = by_name[OWN], by_name[NOTHING], by_name.get(FLAT)
    warnings = []
    if (own.followed.low or 0.0) <= (nothing.followed.high or 1.0):
        warnings.append(
            f"The {what} is not surely followed: {own.followed.text()}, and {nothing.followed.text()} without it"
        )
    plain = None if flat is None else flat.taught
    if plain is not None and own.taught is not None and own.taught.value <= plain.value:
        warnings.append(f"Flat lesions teach at least as well: Dice {plain.text()}; drawn ones {own.taught.text()}")
    return warnings

"""Stage `sample`: train what is missing, draw new images, judge them beside a baseline, and log all of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.conditions import about_slice
from pipeline.evaluation.real_images import require_enough
from pipeline.methods import Model, load_model
from pipeline.methods.base import Method
from pipeline.nn.rng import row_key
from pipeline.stages.detect.train import train
from pipeline.stages.generate.draw import check_attributes, check_request, check_words, draw_part, is_conditional
from pipeline.stages.generate.task_config import SampleTask
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_images import choose_before_training, choose_like, choose_real
from pipeline.stages.generate.trained_model import find_run, train_for
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder

OnProgress = Callable[[int, int], None]
PLAIN = "as configured"
BASELINE = "baseline"


@dataclass(frozen=True, slots=True)
class OpenTask:
    """A task while its stage works on it: its folder and configuration, the run that trained its model, the model."""

    folder: TaskFolder
    config: SampleTask
    run: RunConfig
    model: Model
    settings: Settings


def open_task(config: SampleTask, settings: Settings, progress: bool = False) -> OpenTask:
    """Train the task's model if it is not trained yet, and make the task's folder.

    The folder is named by the configuration and the model's SHA-256, so that the same task continues where it stopped.

    Raises:
        ArtefactError: the trained run is missing, or its model has another SHA-256.
        ConfigError: the method cannot do what is asked of it; said before it is trained.
        EmptySelection: there are too few real images to judge by; said before it is trained.
    """
    same = [] if config.fixed is None else [config.fixed]

    def check(method: Method) -> None:
        """Refuse what the method cannot do."""
        for options in config.swept:
            check_request(method, options, same)
        check_attributes(method, config.fixed or {})
        check_words(config.fixed or {}, [about_slice(ref) for ref in learned])
        if real is not None:
            alike = choose_like(real, config.fixed).slices
            require_enough(len(alike), len({ref.patient_id for ref in alike}))

    against = () if config.judge is None else config.judge.against
    learned, real = choose_before_training(find_run(config, settings), settings, against)
    trained = train_for(config, settings, check, progress)
    about = _conditions(config, trained.run, settings, trained.model)
    return OpenTask(trained.make_folder(config, settings, about=about), config, trained.run, trained.model, settings)


def _conditions(config: SampleTask, run: RunConfig, settings: Settings, model: Model) -> list[dict[str, Any]]:
    """Return the condition of each image to draw; [] without conditions."""
    if config.fixed is not None:
        return [config.fixed] * config.count
    if config.about == "none" or not is_conditional(model.method):
        return []
    with Catalogue.open(settings) as catalogue:
        sets = ("validate", "develop") if config.judge is None else config.judge.against
        held_out = [about_slice(ref) for ref in choose_real(run, settings, catalogue, sets).slices]
    # shuffled once and repeated, so that the conditions are as frequent as they are in the held-out images
    order = sorted(range(len(held_out)), key=lambda place: row_key(config.seed, "condition", place))
    return [held_out[order[number % len(order)]] for number in range(config.count)]


@dataclass(frozen=True, slots=True)
class Drawing:
    """Images that one model drew with one set of options.

    Attributes:
        name: readable: "as configured", an option's value, or the baseline.
        method: of the model.
        images: float32 [N, C, *spatial], about [-1, 1].
        about: conditions of each image; [] for none.
        seconds: CPU seconds of all of them.
        options: the keywords of `sample`.
    """

    name: str
    method: str
    images: Tensor
    about: list[dict[str, Any]]
    seconds: float
    options: dict[str, Any]

    @property
    def steps(self) -> int | None:
        """Steps of the sampler, where they were chosen."""
        return self.options.get("steps")


def draw_all(task: OpenTask, on_progress: OnProgress | None = None) -> list[Drawing]:
    """Draw the images of every set of options; batches that an earlier process drew are read.

    Args:
        task: the open task.
        on_progress: called with (images drawn, images in all).
    """
    about, count = task.folder.read("task.json")["about"], task.config.count
    sets = task.config.swept
    drawings = []
    for number, options in enumerate(sets):
        report = None if on_progress is None else _offset(on_progress, number * count, len(sets) * count)
        drawings.append(draw(task, _name_of(task.config, options), task.model, options, about, report))
    return drawings


def draw(
    task: OpenTask,
    name: str,
    model: Model,
    options: dict[str, Any],
    about: list[dict[str, Any]],
    on_progress: OnProgress | None = None,
) -> Drawing:
    """Draw the images of one set of options in batches, each of which is kept."""
    config, parts, seconds = task.config, [], 0.0
    folder = f"{model.method.config.name}-{row_key(json.dumps(options, sort_keys=True)):016x}"
    for number, first in enumerate(range(0, config.count, config.batch)):
        rows = range(first, min(first + config.batch, config.count))
        part = task.folder.read_part(folder, number)
        if part is None or len(part[0]) != len(rows):
            part = _draw_part(task, model, rows, about, options)
            task.folder.write_part(folder, number, *part)
        parts.append(part[0])
        seconds += part[1]
        if on_progress is not None:
            on_progress(rows.stop, config.count)
    return Drawing(name, model.method.config.name, torch.cat(parts), about, seconds, options)


def _draw_part(
    task: OpenTask, model: Model, rows: range, about: list[dict[str, Any]], options: dict[str, Any]
) -> tuple[Tensor, float]:
    start = time.process_time()
    images = draw_part(model.method, rows, task.config.seed, about, options)
    return images, time.process_time() - start


def _name_of(config: SampleTask, options: dict[str, Any]) -> str:
    swept = next(iter(config.sweep), None)
    return PLAIN if options == config.options or swept is None else f"{swept} {options[swept]}"


def _offset(on_progress: OnProgress, before: int, total: int) -> OnProgress:
    return lambda done, _: on_progress(before + done, total)


def draw_baseline(task: OpenTask, on_progress: OnProgress | None = None) -> Drawing | None:
    """Train the baseline on the same images and draw as many from it; None where the task has none."""
    judge = task.config.judge
    if judge is None or judge.baseline is None or judge.baseline.name == task.run.method.name:
        return None
    run = task.run.model_copy(
        update={"name": f"{task.run.name}-{judge.baseline.name}", "method": judge.baseline, "detection": None}
    )
    model = load_model(RunFolder.open(train(run, task.settings, purpose="model")).model)
    return draw(task, BASELINE, model, {}, [], on_progress)

"""Task `walk`: images on the way between held-out ones, along lines between their codes, and how even the way is."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.sets.selection import Selection
from pipeline.errors import EmptySelection
from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.path_length import measure_path_length
from pipeline.evaluation.sample_sheet import Strip, draw_sheet
from pipeline.evaluation.style import save_png
from pipeline.methods.code_walks import interpolate
from pipeline.nn.rng import row_key
from pipeline.stages.generate.codes.code_task import run_code_task
from pipeline.stages.generate.pictures import may_show, to_pixels
from pipeline.stages.generate.task_config import WalkTask
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_images import choose_real, read_real
from pipeline.stages.generate.task_report import TaskReport
from pipeline.stages.generate.trained_model import TrainedModel


def run_walk(config: WalkTask, settings: Settings, progress: bool = False) -> TaskReport:
    """Walk between pairs of held-out images of two patients each, draw the ways, and log them.

    Args:
        config: the task.
        settings: the workspace.
        progress: show a progress bar while the model is trained.

    Raises:
        ConfigError: the method has no code to walk along, or sees volumes.
        EmptySelection: too few patients have an image that may be shown.
    """
    return run_code_task(config, _walk, settings, progress)


def _walk(config: WalkTask, trained: TrainedModel, folder: TaskFolder, settings: Settings) -> TaskReport:
    method, name = trained.model.method, trained.run.method.name
    ends = _read_ends(config, trained, settings)
    first, last = ends[0::2], ends[1::2]
    ways = interpolate(method, first, last, config.steps).cpu()
    length = float(measure_path_length(method, ends, config.seed).mean())
    error = float((torch.cat([ways[:, 0], ways[:, -1]]) - torch.cat([first, last])).abs().mean())
    save_png(draw_sheet(_strips(first, ways, last), f"{config.name}: walks of {name}"), folder.sheet)
    table = markdown_table(
        ["method", "pairs", "path length", "mean absolute error of the ends"],
        [[name, config.pairs, f"{length:.3g}", f"{error:.3g}"]],
    )
    return TaskReport(folder, table, {"path_length": length, "reconstruction_error": error})


def _read_ends(config: WalkTask, trained: TrainedModel, settings: Settings) -> Tensor:
    """Return the ends, [2 pairs, C, S, S]: one image per patient, chosen by hash."""
    with Catalogue.open(settings) as catalogue:
        chosen = choose_real(trained.run, settings, catalogue, config.between)
    ends = _one_per_patient(chosen, config, settings)
    images = read_real(ends, trained.run, settings, trained.model).images
    if len(images) < 2 * config.pairs:
        raise EmptySelection(
            f"{config.pairs} pairs need images that may be shown from {2 * config.pairs} patients, and "
            f"{len(images)} have one. Request fewer pairs, or see the setting burned_in for images with text."
        )
    return images


def _one_per_patient(chosen: Selection, config: WalkTask, settings: Settings) -> Selection:
    by_hash = sorted(chosen.slices, key=lambda ref: row_key(config.seed, ref.content_id))
    first = {ref.patient_id: ref for ref in reversed(by_hash) if may_show(ref, settings)}
    ends = sorted(first.values(), key=lambda ref: row_key(config.seed, ref.content_id))[: 2 * config.pairs]
    return replace(chosen, slices=tuple(ends))


def _strips(first: Tensor, ways: Tensor, last: Tensor) -> list[Strip]:
    """Return one block per pair: the real image, the way, the other real image."""
    rows = torch.cat([first[:, None], ways, last[:, None]], dim=1)
    way = f"real, {ways.shape[1]} images on the way, real"
    return [Strip(f"Pair {number}: {way}", to_pixels(row)) for number, row in enumerate(rows, start=1)]

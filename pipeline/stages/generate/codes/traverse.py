"""Task `traverse`: one dimension of a code moved at a time, a row of images each, and which attribute it knows."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.disentanglement import InformationGap
from pipeline.evaluation.markdown import markdown_table
from pipeline.evaluation.sample_sheet import Strip, draw_sheet
from pipeline.evaluation.style import save_png
from pipeline.methods.base import Method
from pipeline.methods.capabilities import Codec
from pipeline.methods.code_walks import traverse
from pipeline.stages.generate.codes.code_factors import factors_table, measure_factors, warn_of_gap
from pipeline.stages.generate.codes.code_task import run_code_task
from pipeline.stages.generate.draw import device_of
from pipeline.stages.generate.pictures import may_show, to_pixels
from pipeline.stages.generate.task_config import TraverseTask
from pipeline.stages.generate.task_folder import TaskFolder
from pipeline.stages.generate.task_images import BATCH, Slices, choose_real, choose_some, read_real
from pipeline.stages.generate.task_report import TaskReport
from pipeline.stages.generate.trained_model import TrainedModel

ACTIVE = 0.01  # variance of a dimension that is used, arXiv:1509.00519, section 5.1
MEASURED = 4  # images on which the effect of every dimension is measured


def run_traverse(config: TraverseTask, settings: Settings, progress: bool = False) -> TaskReport:
    """Move single dimensions of a held-out image's code, draw the rows, measure what each dimension knows, and log.

    Args:
        config: the task.
        settings: the workspace.
        progress: show a progress bar while the model is trained.

    Raises:
        ConfigError: the method has no code, the code lacks a dimension, a factor does not vary, or it sees volumes.
        EmptySelection: no held-out image may be shown.
    """
    return run_code_task(config, _traverse, settings, progress)


def _traverse(config: TraverseTask, trained: TrainedModel, folder: TaskFolder, settings: Settings) -> TaskReport:
    slices, method, name = _read_slices(config, trained, settings), trained.model.method, trained.run.method.name
    codes = _encode(method, slices.images)
    mean, spread = codes.mean(dim=(0, 2)).numpy(), codes.std(dim=(0, 2)).numpy()
    reach = config.reach * spread
    effect = _effects(method, slices.images[:MEASURED], mean - reach, mean + reach)
    gaps: dict[str, InformationGap] = {}
    if config.factors:
        pixels = slices.images.flatten(1).numpy()
        gaps = measure_factors(name, codes.mean(dim=2).numpy(), pixels, slices.about, config.factors)
    known_by = gaps[name].dimension if gaps else {}
    dimensions = _choose(config, effect, list(known_by.values()))
    start = _choose_start(slices, settings)
    strips = [Strip("Held out, then its own reconstruction", _start(method, slices, start))]
    for one in dimensions:
        values = np.linspace(mean[one] - reach[one], mean[one] + reach[one], config.steps)
        row = traverse(method, _one(method, slices, start), one, values.tolist())[0].cpu()
        strips.append(Strip(_caption(one, values, known_by), to_pixels(row)))
    save_png(draw_sheet(strips, f"{config.name}: dimensions of {name}"), folder.sheet)
    tables = [_table(dimensions, spread, effect, known_by), *([factors_table(gaps)] if gaps else [])]
    warnings = tuple(warn_of_gap(gaps)) if gaps else ()
    return TaskReport(folder, "\n\n".join(tables), _metrics(gaps, spread, effect), warnings=warnings)


def _read_slices(config: TraverseTask, trained: TrainedModel, settings: Settings) -> Slices:
    with Catalogue.open(settings) as catalogue:
        chosen = choose_real(trained.run, settings, catalogue, config.of)
    return read_real(choose_some(chosen, config.count, config.seed), trained.run, settings, trained.model)


def _choose_start(slices: Slices, settings: Settings) -> int:
    """Return the place of the first image that may be shown."""
    allowed = [place for place, ref in enumerate(slices.refs) if may_show(ref, settings)]
    if not allowed:
        raise EmptySelection(
            f"None of {len(slices.refs)} held-out images may be shown, since text may be burned into them. See the "
            "setting burned_in."
        )
    return allowed[0]


def _encode(method: Method, images: Tensor) -> Tensor:
    """Return the codes [N, D, places of the grid]."""
    device = device_of(method)
    with method.inference():
        parts = [cast(Codec, method).to_code(method.check(part.to(device))).cpu() for part in images.split(BATCH)]
    return torch.cat(parts).flatten(2) if parts[0].ndim > 2 else torch.cat(parts)[..., None]


def _effects(method: Method, images: Tensor, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the mean absolute change of the images [D] when each dimension goes from low to high."""
    images = images.to(device_of(method))
    ends = [traverse(method, images, one, [float(low[one]), float(high[one])]) for one in range(len(low))]
    return np.array([float((pair[:, 1] - pair[:, 0]).abs().mean()) for pair in ends])


def _choose(config: TraverseTask, effect: np.ndarray, informed: list[int]) -> list[int]:
    """Return the dimensions to show: those asked for, or those that know a factor and those that change most."""
    if beyond := [one for one in config.dimensions if one >= len(effect)]:
        raise ConfigError(
            f"The code has {len(effect)} dimensions, from 0 to {len(effect) - 1}, and dimensions names {beyond[0]}. "
            "Remove it, or leave out dimensions for those that change most."
        )
    by_effect = [int(one) for one in np.argsort(-effect)]
    return list(config.dimensions) or list(dict.fromkeys([*informed, *by_effect]))[: config.rows]


def _one(method: Method, slices: Slices, place: int) -> Tensor:
    return slices.images[place : place + 1].to(device_of(method))


def _start(method: Method, slices: Slices, place: int) -> np.ndarray:
    """Return the image and its reconstruction, [2, S, S]."""
    image = _one(method, slices, place)
    with method.inference():
        again = cast(Codec, method).from_code(cast(Codec, method).to_code(image))
    return to_pixels(torch.cat([image, again]).cpu())


def _caption(dimension: int, values: np.ndarray, known_by: dict[str, int]) -> str:
    knows = [factor for factor, one in known_by.items() if one == dimension]
    return f"Dimension {dimension} from {values[0]:.2g} to {values[-1]:.2g}" + (
        f", knows most of {' and '.join(knows)}" if knows else ""
    )


def _table(dimensions: list[int], spread: np.ndarray, effect: np.ndarray, known_by: dict[str, int]) -> str:
    rows: list[list[Any]] = [
        [one, f"{spread[one]:.3g}", f"{effect[one]:.3g}", ", ".join(f for f, best in known_by.items() if best == one)]
        for one in dimensions
    ]
    return markdown_table(["dimension", "standard deviation", "change of the image", "knows most of"], rows)


def _metrics(gaps: dict[str, InformationGap], spread: np.ndarray, effect: np.ndarray) -> dict[str, float]:
    active = {"active_dimensions": float((spread**2 > ACTIVE).sum()), "largest_change": float(effect.max())}
    if not gaps:
        return active
    own, *others = gaps.values()
    factors = {f"gap_{name}": gap for name, gap in own.of_factor.items()}
    return {"mig": own.gap, "mig_eigen_images": others[0].gap, "mig_shuffled": others[1].gap, **factors, **active}

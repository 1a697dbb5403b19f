"""Pictures of a task: the sheet of its images, and the curve of its sweep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from pipeline.config import Settings
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.burned_in import figures_allowed
from pipeline.evaluation.sample_sheet import COLUMNS, Strip, draw_sheet, draw_sweep
from pipeline.nn.rng import row_key
from pipeline.stages.generate.judge import Court, Judged
from pipeline.stages.generate.sampling.sample import Drawing, OpenTask
from pipeline.stages.generate.task_images import Slices
from pipeline.types import SliceRef

SHOWN, OTHERS = 40, 10  # generated pictures of the task's own options, and of the rest


def draw_task_sheet(task: OpenTask, drawings: Sequence[Drawing], real: Court | None, rows: Sequence[Judged]) -> Figure:
    """Draw the sheet: real images, the generated ones, those of the sweep and the baseline, the nearest pairs.

    A real image whose pixels may hold text is left out, as the policy `burned_in` says.
    """
    own, *others = drawings
    blocks = [] if real is None else _real(real.held_out, task.settings)
    blocks.append(Strip(f"Generated ({own.name})", to_pixels(own.images[:SHOWN])))
    blocks += [Strip(f"Generated ({one.name})", to_pixels(one.images[:OTHERS])) for one in others]
    if real is not None and rows:
        blocks += _pairs(real.learned, rows[0], task.settings)
    return draw_sheet(blocks, f"{task.config.name}: {task.run.method.name}, synthetic images")


def draw_task_sweep(task: OpenTask, rows: Sequence[Judged]) -> Figure | None:
    """Draw KID, precision, recall and class agreement against the values of the sweep; None if they are not numbers."""
    option = next(iter(task.config.sweep), None)
    swept = [row for row in rows if option in row.drawing.options]
    values = [row.drawing.options[option] for row in swept] if option else []
    if len(values) < 2 or not all(isinstance(value, int | float) for value in values):
        return None
    points = [
        {
            "value": value,
            "kid": kid.value,
            "low": kid.low or kid.value,
            "high": kid.high or kid.value,
            "seconds": seconds,
            **_shares(row),
        }
        for value, row in zip(values, swept, strict=True)
        for kid, seconds in ((row.quality.kid, row.quality.seconds_per_image or 0.0),)
    ]
    return draw_sweep(str(option), sorted(points, key=lambda point: point["value"]), rows[0].quality.floor_kid.value)


def _shares(row: Judged) -> dict[str, float]:
    """Return the shares that a sweep is drawn with: precision, recall, and images of the class asked for."""
    classes = row.quality.classes
    agreement = None if classes is None else classes.agreement
    shares = {"precision": row.quality.precision, "recall": row.quality.recall}
    return shares | ({} if agreement is None else {"class agreement": agreement.value})


def _real(slices: Slices, settings: Settings) -> list[Strip]:
    allowed = [place for place, ref in enumerate(slices.refs) if may_show(ref, settings)]
    chosen = sorted(allowed, key=lambda place: row_key(slices.refs[place].slice_id))[:COLUMNS]
    return [Strip("Real, held out", to_pixels(slices.images[chosen]))] if chosen else []


def _pairs(learned: Slices, row: Judged, settings: Settings) -> list[Strip]:
    pairs = [pair for pair in row.quality.memorisation.pairs if may_show(learned.refs[pair.train], settings)][:COLUMNS]
    if not pairs:
        return []
    return [
        Strip("Generated, nearest to training", to_pixels(row.drawing.images[[pair.sample for pair in pairs]])),
        Strip("The training image nearest to each", to_pixels(learned.images[[pair.train for pair in pairs]])),
    ]


def may_show(ref: SliceRef, settings: Settings) -> bool:
    """Return whether a real image may be shown, by the policy `burned_in`."""
    return figures_allowed(InstanceAttributes.from_json(ref.attributes), settings.burned_in)


def to_pixels(images: Tensor) -> np.ndarray:
    """Return [N, H, W] of images [N, C, H, W] or of volumes' middle slices."""
    first = images[:, 0] if images.ndim == 4 else images[:, 0, images.shape[2] // 2]
    return np.asarray(first.float())

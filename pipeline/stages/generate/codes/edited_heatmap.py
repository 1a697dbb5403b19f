"""Healthy counterfactuals as heatmaps: where an image changes when its lesion is edited away, beside the residual."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor

from pipeline.config import Config
from pipeline.data.images.dataset import SliceDataset
from pipeline.detection.filters import gaussian_blur
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.pixel_metrics import PixelCase, evaluate_pixels
from pipeline.stages.generate.codes.editing import Edits, Originals
from pipeline.types import SliceRef

SMOOTH = 3 / 64  # sigma of the maps / image size, as in the score of a detector's map


class HeatmapRow(Config):
    """How well one map finds lesions: its pixel AP within the body, with the interval over patients."""

    name: str
    pixel_ap: Estimate


def judge_heatmaps(edits: Sequence[Edits], originals: Originals, data: SliceDataset) -> tuple[HeatmapRow, ...]:
    """Return one row for what each editor changes towards "normal", and one for its residual.

    Raises:
        EmptySelection: no image has a lesion mask.
    """
    maps = {name: values for one in edits for name, values in _maps(one, originals).items()}
    table = evaluate_pixels(_cases(maps, originals.refs, data), EvaluationConfig())
    return tuple(HeatmapRow(name=name, pixel_ap=table.row(name).metrics["AP"]) for name in maps)


def _maps(edits: Edits, originals: Originals) -> dict[str, Tensor]:
    """Return the maps [N, 1, H, W]; images of the lower side were edited the other way, so they are edited again."""
    down, lower = edits.edited.clone(), np.flatnonzero(~originals.sides.upper).tolist()
    down[lower] = originals.edit(edits.method, edits.directions, np.full(len(down), -1.0), lower)
    name = edits.row.editor
    return {
        f"{name}, edited towards normal": _smooth(down - edits.still),
        f"{name}, residual": _smooth(originals.images - edits.still),
    }


def _smooth(difference: Tensor) -> Tensor:
    return gaussian_blur(difference.abs().mean(dim=1, keepdim=True), SMOOTH)


def _cases(maps: Mapping[str, Tensor], refs: Sequence[SliceRef], data: SliceDataset) -> Iterator[PixelCase]:
    """Yield the maps of each image on its native grid, with its body and its mask."""
    for place, ref in enumerate(refs):
        step = data.step(ref.slice_id)
        body = data.normaliser.mask_to_native(data.item(ref.slice_id)["body"][0].numpy(), step)
        native = {name: data.normaliser.to_native(values[place, 0].numpy(), step) for name, values in maps.items()}
        mask = data.read_mask(ref.slice_id)
        yield PixelCase(
            ref.patient_id, ref.slice_id, ref.label, native, body, np.zeros(body.shape, bool) if mask is None else mask
        )

"""Weights of an ensemble's members: how well each tells painted normals from clean ones, with paint it never saw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from pipeline.corruption.lesions import paint
from pipeline.data.images.dataset import SliceDataset
from pipeline.detection.detector import Detector
from pipeline.detection.slices import iterate_batches
from pipeline.nn.rng import Rng
from pipeline.stages.auto.members import FROZEN
from pipeline.stages.auto.painters import HELD_OUT
from pipeline.types import Batch

JUDGED = 128  # validate normals that are painted
BATCH = 32
LEAST_SKILL = 0.1  # AUROC 0.55: a member that was taught to find paint and finds less is left out
FLOOR = 0.005  # frozen features that find no paint keep this much, since disease is not paint


@dataclass(frozen=True, slots=True)
class Weighed:
    """One member's weight: `auroc` by painter, and the weight that follows, before the members are compared.

    A weight of 0 leaves the member out.
    """

    auroc: dict[str, float]
    weight: float

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def weigh(detectors: Mapping[str, Detector], trust: Mapping[str, float], validate: SliceDataset) -> dict[str, Weighed]:
    """Paint validate normals and return each member's weight; no label of disease is read.

    A slice is scored alone, so maps are not averaged over its neighbours, which are not painted.

    Args:
        detectors: the members, by role.
        trust: factor of each role's weight.
        validate: validate normals.
    """
    alone = {role: _alone(detector) for role, detector in detectors.items()}
    scores: dict[str, dict[str, list[float]]] = {role: {} for role in alone}
    for batch in _batches(validate):
        for name, images in _versions(batch).items():
            seen = Batch(images, batch.body, batch.ids, batch.about)
            for role, detector in alone.items():
                scores[role].setdefault(name, []).extend(detector.score_batch(seen).scores.tolist())
    return {role: weight_of(by_painter, trust[role], role not in FROZEN) for role, by_painter in scores.items()}


def weight_of(scores: Mapping[str, Sequence[float]], trust: float, taught: bool) -> Weighed:
    """Return trust x skill^2, where skill is the mean over the painters of 2 AUROC - 1, and chance counts 0.

    Below `LEAST_SKILL` the weight of a taught member is 0; that of another is at least trust x `FLOOR`.

    Args:
        scores: of the clean images as "clean", and of the same images painted, by painter.
        trust: factor.
        taught: whether the member learned to find paint.
    """
    auroc = {name: tells_apart(scores["clean"], values) for name, values in scores.items() if name != "clean"}
    skill = float(np.mean([max(2 * value - 1, 0.0) for value in auroc.values()]))
    if taught and skill < LEAST_SKILL:
        return Weighed(auroc, 0.0)
    return Weighed(auroc, trust * (skill**2 if taught else max(skill**2, FLOOR)))


def tells_apart(clean: Sequence[float], painted: Sequence[float]) -> float:
    """Return the probability that a painted image scores higher than a clean one; ties count half, NaN not at all."""
    low, high = (np.asarray(values, float) for values in (clean, painted))
    low, high = np.sort(low[np.isfinite(low)]), high[np.isfinite(high)]
    if not len(low) or not len(high):
        return 0.5
    below = np.searchsorted(low, high, "left") + np.searchsorted(low, high, "right")
    return float(below.mean() / (2 * len(low)))


def _alone(detector: Detector) -> Detector:
    return detector.under(detector.config.model_copy(update={"residual": detector.config.residual.alone()}))


def _batches(data: SliceDataset) -> Iterator[Batch]:
    count = min(len(data), JUDGED)
    yield from iterate_batches(data, BATCH, [number * len(data) // count for number in range(count)])


def _versions(batch: Batch) -> dict[str, torch.Tensor]:
    """Return the clean images and one painted version per painter; randomness comes from each image's id."""
    versions = {"clean": batch.images}
    for number, (name, config) in enumerate(HELD_OUT.items()):
        versions[name] = paint(batch.images, batch.body, config, Rng.scoring(number, batch.ids)).images
    return versions

"""Edits of real images along one direction of their codes, and what they change: the attribute, the rest, the likeness.

`edit_along(method, images, direction, strength, ids)` is the edit itself; everything else here measures it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.image_features import embed_images
from pipeline.evaluation.linear_probe import CrossProbe
from pipeline.evaluation.paired_quality import means_of_images, measure_pairs
from pipeline.methods.base import Method
from pipeline.methods.capabilities import Editor
from pipeline.nn.rng import Rng
from pipeline.stages.generate.codes.edited_sides import Sides
from pipeline.stages.generate.draw import device_of
from pipeline.types import SliceRef

RANDOM = "random direction"
STREAM = "edit"  # of each image: all edits of one image share what its code does not hold


def edit_along(
    method: Method,
    images: Tensor,
    directions: np.ndarray,
    strengths: np.ndarray,
    ids: Sequence[str],
    seed: int = 0,
    batch: int = 32,
) -> Tensor:
    """Return images with their codes moved by strength * direction: float32 [N, C, H, W], on the CPU.

    Args:
        method: an Editor.
        images: [N, C, H, W].
        directions: [N, D].
        strengths: [N].
        ids: content address of each image, which seeds what its code does not hold.
        seed: likewise.
        batch: images edited at once; a row depends on itself alone.

    Raises:
        ConfigError: the method does not edit, or a direction has another length than its codes.
    """
    require_editor(method)
    device = device_of(method)
    width = cast(Editor, method).embed(images[:1].to(device)).shape[1]
    if width != directions.shape[1]:
        raise ConfigError(
            f"The direction has {directions.shape[1]} numbers and a code of {method.config.name} has {width}. Take the "
            "direction from the codes of this model."
        )
    parts = []
    for first in range(0, len(images), batch):
        rows = slice(first, first + batch)
        parts.append(_edit_part(method, images[rows].to(device), directions[rows], strengths[rows], ids[rows], seed))
    return torch.cat(parts)


def _edit_part(
    method: Method, x: Tensor, directions: np.ndarray, strengths: np.ndarray, ids: Sequence[str], seed: int
) -> Tensor:
    """Return one batch; `Editor.edit` takes one direction, so rows that share theirs are edited together."""
    answer = torch.empty(x.shape, dtype=torch.float32)
    for direction in np.unique(directions, axis=0):
        rows = np.flatnonzero((directions == direction).all(axis=1)).tolist()
        strength = torch.tensor(strengths[rows], dtype=torch.float32, device=x.device)
        rng = Rng.scoring(seed, [ids[row] for row in rows], device=x.device).fork(STREAM)
        way = torch.tensor(direction, dtype=torch.float32, device=x.device)
        answer[rows] = cast(Editor, method).edit(x[rows], way, strength, rng).float().cpu()
    return answer


def require_editor(method: Method) -> None:
    """Refuse a method that cannot edit (ConfigError)."""
    if not isinstance(method, Editor):
        raise ConfigError(
            f"{method.config.name} has no code along which an image can be edited. Choose diff_ae, stylegan2 or pca."
        )


class EditingRow(Config):
    """What edits of one attribute by one editor did.

    Attributes:
        attribute, editor: names.
        probe: AUROC of the linear probe of its codes; None for a random direction, which no probe chose.
        effect: by the judge: 0 where nothing changed, 1 for the mean difference between the two sides of real images.
        likeness: share of the edited images that are most like their own reconstruction among all reconstructions.
        change: mean absolute change of the pixels.
        ssim: of the reconstructions with strength 0.
    """

    attribute: str
    editor: str
    probe: Estimate | None
    effect: Estimate
    likeness: Estimate
    change: Estimate
    ssim: Estimate


@dataclass(frozen=True, slots=True)
class Originals:
    """Real images of one attribute's sides, with what the judge knows of them.

    Attributes:
        images: [N, C, H, W].
        refs: of each image.
        sides: on which side each of them is; `places` are not used here.
        judge: probe of frozen features.
        gap: between the sides, in the judge's log odds of real images.
        seed: of the task.
        batch: images edited at once.
    """

    images: Tensor
    refs: tuple[SliceRef, ...]
    sides: Sides
    judge: CrossProbe
    gap: float
    seed: int
    batch: int

    @classmethod
    def of(cls, images: Tensor, refs: tuple[SliceRef, ...], sides: Sides, seed: int, batch: int) -> Originals:
        """Fit the judge on features of the images themselves.

        Raises:
            EmptySelection: a side has too few patients.
        """
        features = embed_images(images)
        judge = CrossProbe.fit(features, sides.upper, [ref.patient_id for ref in refs], seed)
        return cls(images, refs, sides, judge, judge.gap(judge.log_odds(features)), seed, batch)

    @property
    def patients(self) -> list[str]:
        """Pseudonym of each image's patient."""
        return [ref.patient_id for ref in self.refs]

    def edit(
        self, method: Method, directions: np.ndarray, strengths: np.ndarray, places: Sequence[int] | None = None
    ) -> Tensor:
        """Return the images at `places` (None: all) edited, each along its own direction [N, D] by its own strength."""
        rows = list(range(len(self.images)) if places is None else places)
        ids = [self.refs[row].content_id for row in rows]
        return edit_along(method, self.images[rows], directions[rows], strengths[rows], ids, self.seed, self.batch)


@dataclass(frozen=True, slots=True)
class Edits:
    """The edits of one editor: towards the other side of the attribute.

    Attributes:
        row: what they did.
        method: the editor.
        directions: [N, D], of each image.
        still: reconstructions, strength 0.
        edited: strength 1 for images of the lower side, -1 for those of the upper.
    """

    row: EditingRow
    method: Method
    directions: np.ndarray
    still: Tensor
    edited: Tensor


@dataclass(frozen=True, slots=True)
class _Still:
    """Reconstructions with strength 0, measured once for all edits: the judge's features and SSIM to the originals."""

    images: Tensor
    features: np.ndarray
    ssim: np.ndarray

    @classmethod
    def of(cls, images: Tensor, originals: Originals) -> _Still:
        return cls(images, embed_images(images), measure_pairs(images, originals.images)[:, 1])


def measure_edits(attribute: str, name: str, method: Method, originals: Originals) -> tuple[Edits, Edits]:
    """Edit every image to the other side along the probe's direction, then along a random one, and measure both."""
    device, parts = device_of(method), originals.images.split(originals.batch)
    codes = torch.cat([cast(Editor, method).embed(part.to(device)).cpu() for part in parts]).double().numpy()
    probe = CrossProbe.fit(codes, originals.sides.upper, originals.patients, originals.seed)
    still = _Still.of(originals.edit(method, np.zeros_like(codes), np.zeros(len(codes))), originals)
    draws = np.random.default_rng(originals.seed)
    ways = list(draws.normal(size=(len(probe.probes), codes.shape[1])))
    own = _measure(attribute, name, method, originals, probe.directions(), still)
    own = replace(own, row=own.row.model_copy(update={"probe": probe.auroc(codes)}))
    by_chance = _measure(attribute, f"{name}, {RANDOM}", method, originals, probe.directions(ways), still)
    return own, by_chance


def _measure(
    attribute: str, name: str, method: Method, originals: Originals, directions: np.ndarray, still: _Still
) -> Edits:
    way = np.where(originals.sides.upper, -1.0, 1.0)
    edited = originals.edit(method, directions, way)
    before, after = still.features, embed_images(edited)
    moved = (originals.judge.log_odds(after) - originals.judge.log_odds(before)) * way / originals.gap
    change = (edited - still.images).abs().flatten(1).mean(dim=1).double().numpy()
    values = np.stack([moved, _are_own(after, before), change, still.ssim], axis=1)
    effect, likeness, changed, similar = _means(values, originals.judge.patient)
    row = EditingRow(
        attribute=attribute, editor=name, probe=None, effect=effect, likeness=likeness, change=changed, ssim=similar
    )
    return Edits(row, method, directions, still.images, edited)


def _are_own(after: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return 1 for each edited image whose nearest reconstruction, in features, is its own, else 0."""
    distance = (before**2).sum(axis=1) - 2 * after @ before.T
    return (distance.argmin(axis=1) == np.arange(len(after))).astype(float)


def _means(values: np.ndarray, owners: np.ndarray) -> list[Estimate]:
    bootstrap = PatientBootstrap.draw(np.zeros(int(owners.max()) + 1, int), EvaluationConfig())
    return bootstrap.estimates(bootstrap.sample(means_of_images(values, owners), len(owners)))

"""Real images with the pictures that a `controlnet` is to follow, and the plainest answer to a mask."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import SliceDataset
from pipeline.errors import EmptySelection
from pipeline.methods.controlnet import Controlnet
from pipeline.nn.rng import Rng
from pipeline.stages.generate.task_images import choose_some
from pipeline.stages.generate.trained_model import TrainedModel
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.stages.run.masked_slices import with_known_masks
from pipeline.training.with_masks import read_grid_mask
from pipeline.types import Label, SetName, SliceRef

RING = 3  # pixels about a lesion that its contrast is measured against


@dataclass(frozen=True, slots=True)
class Asked:
    """Real images and the picture of each: images [N, C, S, S], pictures [N, 1, S, S] of 0 and 1, references."""

    images: Tensor
    pictures: Tensor
    refs: tuple[SliceRef, ...]

    @property
    def patients(self) -> list[str]:
        """Pseudonym of each image's patient."""
        return [ref.patient_id for ref in self.refs]

    def part(self, rows: Tensor) -> Asked:
        """Return some of the rows, bool [N]."""
        refs = tuple(ref for ref, taken in zip(self.refs, rows.tolist(), strict=True) if taken)
        return Asked(self.images[rows], self.pictures[rows], refs)

    def with_lesions(self) -> Asked:
        """Return the images whose picture is not empty."""
        return self.part(self.pictures.flatten(1).any(dim=1))

    def without(self) -> Asked:
        """Return the normal images."""
        return self.part(torch.tensor([ref.label == "normal" for ref in self.refs]))


def read_asked(
    trained: TrainedModel, settings: Settings, sets: Sequence[SetName], count: int | None, seed: int
) -> Asked:
    """Read labelled slices with their masks, or normal slices with their edges, chosen by hash.

    Raises:
        EmptySelection: the sets have none.
    """
    method, run = cast(Controlnet, trained.model.method), trained.run
    lesions = method.config.control == "lesion"
    labels: tuple[Label, ...] = ("normal", "abnormal") if lesions else ("normal",)
    with Catalogue.open(settings) as catalogue:
        chosen = with_known_masks(choose(catalogue, run, settings, sets=sets, labels=labels))
    if lesions and count is not None:
        chosen = replace(chosen, slices=tuple(ref for ref in chosen.slices if ref.label == "abnormal"))
    if not chosen.slices:
        what = "slices with the mask of a lesion" if lesions else "normal slices"
        raise EmptySelection(
            f"The sets {', '.join(sets)} have no {what} of the route {run.data.route}, so there is nothing to follow. "
            f"Label more, or change `of`.{chosen.left_out()}"
        )
    data = dataset(chosen if count is None else choose_some(chosen, count, seed), run, settings, whole=False)
    images = torch.stack([torch.as_tensor(data[index]["image"]).float() for index in range(len(data))])
    return Asked(images, _pictures(method, data, images), data.slices)


def _pictures(method: Controlnet, data: SliceDataset, images: Tensor) -> Tensor:
    if method.config.control == "edges":
        return method.control_of(images)
    return torch.stack([read_grid_mask(data, ref.slice_id) for ref in data.slices])


def paste_flat(normal: Tensor, masks: Tensor, learned: Asked, rng: Rng) -> Tensor:
    """Return normal images with a flat lesion in each mask, as bright against its surroundings as a real one.

    Args:
        normal: [N, C, S, S].
        masks: [N, 1, S, S].
        learned: real lesions, from whose contrasts one is drawn for each image.
        rng: one stream per row.
    """
    masked = learned.with_lesions()
    ring = F.max_pool2d(masked.pictures, 2 * RING + 1, 1, RING) - masked.pictures
    contrast = _mean_in(masked.images, masked.pictures) - _mean_in(masked.images, ring)
    drawn = contrast[rng.integers(0, len(contrast)).cpu()]
    return (normal + masks * drawn[:, None, None, None]).clamp(-1, 1)


def _mean_in(images: Tensor, where: Tensor) -> Tensor:
    return (images.mean(dim=1, keepdim=True) * where).flatten(1).sum(dim=1) / where.flatten(1).sum(dim=1).clamp_min(1)

"""The slice of the first domain that shows the same place of the same patient as one of the second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import SliceDataset
from pipeline.errors import EmptySelection
from pipeline.nn.rng import Rng
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.towards import Place, find_places, place_of
from pipeline.types import Batch, Label, SetName, SliceRef

LABELS: tuple[Label, ...] = ("normal", "abnormal")


@dataclass(frozen=True, slots=True)
class Counterparts:
    """Slices of the first domain by place, for slices of the second by their content.

    Attributes:
        source: slices of the first domain.
        places: index of each place in `source`.
        target: place of each slice of the second domain, by its content id.
    """

    source: SliceDataset
    places: dict[Place, int]
    target: dict[str, Place]

    @classmethod
    def read(cls, run: RunConfig, settings: Settings, sets: Sequence[SetName]) -> Counterparts:
        """Find the labelled slices of both domains in some sets.

        Raises:
            EmptySelection: no slice has a counterpart.
        """
        other = run.build_other_side()
        with Catalogue.open(settings) as catalogue:
            ours, theirs = (choose(catalogue, one, settings, sets=sets, labels=LABELS) for one in (run, other))
        source = dataset(ours, run, settings, whole=False)
        places, originals = find_places(source.slices), find_places(theirs.slices)
        target = {theirs.slices[index].content_id: place for place, index in originals.items() if place in places}
        if not target:
            raise EmptySelection(
                f"No slice of {other.data.route} in {', '.join(sets)} has a counterpart in {run.data.route}: a slice "
                "of the same patient at the same relative position. A translation's error is measured on such pairs. "
                f"Ingest both examinations of the same patients.{ours.left_out()}{theirs.left_out()}"
            )
        return cls(source, places, target)

    def has(self, ref: SliceRef) -> bool:
        """Return whether a slice of the second domain has a counterpart."""
        return place_of(ref) == self.target.get(ref.content_id)

    def replace(self, batch: Batch, rng: Rng) -> Batch:
        """Return a batch of the second domain with its images as the first domain shows them; nothing is drawn."""
        return replace(batch, images=torch.stack([self._image(one) for one in batch.ids]))

    def _image(self, content_id: str) -> Tensor:
        image: Tensor = self.source[self.places[self.target[content_id]]]["image"]
        return torch.as_tensor(image).float()

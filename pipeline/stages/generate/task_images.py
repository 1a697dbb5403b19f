"""Real images of a task: held-out ones that generated images are judged against, and those that the model learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.conditions import about_slice
from pipeline.data.images.dataset import iterate_batches
from pipeline.data.sets.selection import Selection
from pipeline.data.sets.splits import assign_sets
from pipeline.errors import ConfigError, EmptySelection
from pipeline.methods import Model
from pipeline.nn.condition import VOCABULARY
from pipeline.nn.rng import row_key
from pipeline.stages.run.learning_sets import list_patients_of
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.stages.run.run_config import RunConfig
from pipeline.types import SetName, SliceRef

BATCH = 64


@dataclass(frozen=True, slots=True)
class Slices:
    """Slices of a selection in memory: images float32 [N, C, S, S] about [-1, 1], and their references."""

    images: Tensor
    refs: tuple[SliceRef, ...]

    @property
    def patients(self) -> list[str]:
        """Pseudonym of each slice's patient."""
        return [ref.patient_id for ref in self.refs]

    @property
    def about(self) -> list[dict[str, Any]]:
        """Conditions of each slice."""
        return [about_slice(ref) for ref in self.refs]


def classes_of(about: Sequence[Mapping[str, Any]], attributes: Sequence[str]) -> list[str] | None:
    """Return the class of each row, the words of these attributes ("CT CHEST"); None without rows or attributes."""
    if not about or not attributes:
        return None
    return [" ".join(str(row.get(name, "unknown")) for name in attributes) for row in about]


def choose_real(config: RunConfig, settings: Settings, catalogue: Catalogue, sets: Sequence[SetName]) -> Selection:
    """Choose normal slices of the run's route and sets.

    Raises:
        EmptySelection: they have no such slices.
    """
    chosen = choose(catalogue, config, settings, sets=sets, labels=("normal",))
    if not chosen.slices:
        raise EmptySelection(
            f"The sets {', '.join(sets)} have no normal slices of the route {config.data.route}, so there are no "
            "real images to begin with or to compare with. Ingest and label more, choose other sets, or change "
            "data.splits."
            f"{chosen.left_out()}"
        )
    return chosen


def choose_before_training(
    config: RunConfig, settings: Settings, sets: Sequence[SetName] = ()
) -> tuple[tuple[SliceRef, ...], Selection | None]:
    """Return the slices to learn from and the real images of sets, so that a lack of them is said before the training.

    Without sets, or without slices to learn from, of which the training itself says what is missing, there are no
    real images (None).

    Raises:
        EmptySelection: the sets have no normal slices.
    """
    with Catalogue.open(settings) as catalogue:
        assign_sets(catalogue, config.data.splits, list_patients_of(config, settings, catalogue))
        train = choose(catalogue, config, settings, sets=("train",), labels=("normal",)).slices
        return train, choose_real(config, settings, catalogue, sets) if train and sets else None


def choose_like(chosen: Selection, about: Mapping[str, Any] | None) -> Selection:
    """Return the slices of a selection that have the words of a condition; None takes all of them.

    Raises:
        EmptySelection: none has them.
    """
    words = {name: word for name, word in (about or {}).items() if name in VOCABULARY}
    alike = tuple(
        ref for ref in chosen.slices if all(about_slice(ref).get(name) == word for name, word in words.items())
    )
    if chosen.slices and not alike:
        listed = ", ".join(f"{name} {word}" for name, word in words.items())
        raise EmptySelection(
            f"No held-out image has {listed}, so there are no real images to compare with. Change `about` or "
            "judge.against, or set judge=null."
        )
    return replace(chosen, slices=alike)


def choose_some(chosen: Selection, count: int, seed: int) -> Selection:
    """Return at most `count` slices of a selection, chosen by the hash of their pixels and the seed."""
    by_hash = sorted(chosen.slices, key=lambda ref: row_key(seed, ref.content_id))
    few = {ref.slice_id for ref in by_hash[:count]}
    return replace(chosen, slices=tuple(ref for ref in chosen.slices if ref.slice_id in few))


def read_real(chosen: Selection, config: RunConfig, settings: Settings, model: Model) -> Slices:
    """Read a selection as the model sees it.

    Raises:
        ConfigError: the model has another image size than the run's data, or sees volumes.
        EmptySelection: none of the slices can be read.
    """
    if model.volumes is not None:
        raise ConfigError("The images of a model of volumes cannot be judged yet. Set `judge: null`.")
    data = dataset(chosen, config, settings, cache="none", whole=False)
    images = [batch.images.clone() for batch in iterate_batches(data, BATCH)]
    if not images:
        raise EmptySelection(
            f"None of the {len(chosen.slices)} slices that were chosen can be used as an image.{chosen.left_out()}"
        )
    refs = tuple(ref for ref in data.slices if not data.refuses(ref.stack_id))
    return Slices(torch.cat(images), refs)

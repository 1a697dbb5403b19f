"""Victims of attacks: a classifier of what images show, and a detector's own score.

The attack on the classifier raises the cross-entropy of the true class. That on the detector lowers the score of slices
with lesions, so that they are missed, and raises that of normal ones, so that they are flagged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import iterate_batches
from pipeline.detection.scorer import Scorer
from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.attacks import Objective
from pipeline.evaluation.image_classifier import ImageClassifier
from pipeline.nn.condition import Attribute
from pipeline.nn.rng import Rng, row_key
from pipeline.stages.generate.restoration.lesion_survival import Watch
from pipeline.stages.generate.restoration.paired import AT_ONCE, HeldOut, read_held_out
from pipeline.stages.generate.robustness.robustness_tasks import PurifyTask
from pipeline.stages.generate.task_images import choose_real, choose_some, classes_of, read_real
from pipeline.stages.generate.trained_model import TrainedModel
from pipeline.stages.run.load_slices import choose, dataset
from pipeline.types import Batch, Label, SliceRef

THIRDS = ("lower third", "middle third", "upper third")


@dataclass(frozen=True, slots=True)
class Victim:
    """What is attacked, and the images on which it is.

    Attributes:
        name: readable.
        images: in batches, with their references.
        objective: of a batch: what the attack raises.
        judge: of a batch and the images in its place: 1 where the class is right, or the score, [B].
        upwards: of a batch: whether a successful attack raises what `judge` says, bool [B].
    """

    name: str
    images: HeldOut
    objective: Callable[[Batch], Objective]
    judge: Callable[[Batch, Tensor], Tensor]
    upwards: Callable[[Batch], Tensor]


def words_of(about: Sequence[Mapping[str, Any]], attributes: Sequence[str]) -> list[str]:
    """Return the class of each row; a relative position is cut into thirds."""
    cut = [
        {**row, "relative_position": THIRDS[min(int(3 * row["relative_position"]), 2)]}
        if "relative_position" in row
        else row
        for row in about
    ]
    return classes_of(cut, attributes) or []


def open_classifier(config: PurifyTask, trained: TrainedModel, settings: Settings) -> Victim:
    """Return a classifier that is trained on the real training images, and held-out images of its classes.

    Raises:
        ConfigError: the training images have one class only.
        EmptySelection: a set has no normal slices.
    """
    held_out = read_held_out(trained, settings, config.of, config.count, config.seed)
    return learn_classifier(config.classes, config.learn, config.seed, held_out, trained, settings)


def learn_classifier(
    classes: Sequence[Attribute],
    learn: int,
    seed: int,
    held_out: HeldOut,
    trained: TrainedModel,
    settings: Settings,
) -> Victim:
    """Return a classifier of some attributes, trained on at most `learn` real images, and its held-out images.

    Raises:
        ConfigError, EmptySelection: see `open_classifier`.
    """
    with Catalogue.open(settings) as catalogue:
        chosen = choose_some(choose_real(trained.run, settings, catalogue, ("train",)), learn, seed)
    learned = read_real(chosen, trained.run, settings, trained.model)
    classifier = ImageClassifier(learned.images, words_of(learned.about, classes))

    def truth(batch: Batch) -> Tensor:
        return classifier.numbers(words_of(batch.about, classes))

    def objective(batch: Batch) -> Objective:
        numbers = truth(batch)
        return lambda x, rng: F.cross_entropy(classifier.logits(x), numbers.clamp_min(0), reduction="none")

    def judge(batch: Batch, x: Tensor) -> Tensor:
        with torch.no_grad():
            return (classifier.logits(x).argmax(dim=1) == truth(batch)).double()

    return Victim("classifier", held_out, objective, judge, lambda batch: torch.zeros(len(batch.ids), dtype=torch.bool))


def open_detector(config: PurifyTask, watch: Watch, settings: Settings) -> Victim:
    """Return a detector's own score, and labelled slices, half of them abnormal.

    Raises:
        ConfigError: it reads whole series.
        EmptySelection: the sets lack normal or abnormal slices.
    """
    if watch.detector.whole:
        raise ConfigError(
            "This detector reads whole series, and attacks change single slices. Name a run without adjacent and "
            "hysteresis in detection.residual, and without data.volumes."
        )
    images = _labelled(config, watch, settings)
    abnormal = {ref.content_id for ref in images.refs if ref.label == "abnormal"}

    def upwards(batch: Batch) -> Tensor:
        return torch.tensor([item not in abnormal for item in batch.ids])

    def objective(batch: Batch) -> Objective:
        sign = torch.where(upwards(batch), 1.0, -1.0).double()
        return lambda x, rng: sign * score_of(watch.detector, batch, x, rng).nan_to_num()

    def judge(batch: Batch, x: Tensor) -> Tensor:
        return watch.detector.score_batch(replace(batch, images=x)).scores.cpu()

    return Victim("detector", images, objective, judge, upwards)


def score_of(detector: Scorer, batch: Batch, x: Tensor, rng: Rng) -> Tensor:
    """Return the detector's scores of images in the place of a batch's, with randomness from the rows' streams."""
    ids = tuple(f"{key:016x}" for key in rng.keys)
    return detector.score_batch(replace(batch, images=x, ids=ids)).scores.cpu()


def _labelled(config: PurifyTask, watch: Watch, settings: Settings) -> HeldOut:
    labels: tuple[Label, ...] = ("normal", "abnormal")
    with Catalogue.open(settings) as catalogue:
        chosen = choose(catalogue, watch.config, settings, sets=config.lesions_in, labels=labels)
    if {ref.label for ref in chosen.slices} != set(labels):
        raise EmptySelection(
            f"The sets {', '.join(config.lesions_in)} lack normal or abnormal slices of the route "
            f"{watch.config.data.route}, and an attack on a detector needs both. Import labels with nightread labels "
            f"import FILE.csv, or change lesions_in.{chosen.left_out()}"
        )
    by_hash = sorted(chosen.slices, key=lambda ref: row_key(config.seed, ref.content_id))
    few = [ref for label in labels for ref in [one for one in by_hash if one.label == label][: config.slices // 2]]
    data = dataset(replace(chosen, slices=tuple(few)), watch.config, settings, cache="none", whole=False)
    batches: list[Batch] = []
    refs: list[SliceRef] = []
    for batch in iterate_batches(data, AT_ONCE):
        scored = watch.detector.score_batch(batch).scores
        rows = [place for place, score in enumerate(scored) if torch.isfinite(score)]
        taken = [data.ref(batch.ids[place]) for place in rows]
        about, ids = tuple(batch.about[place] for place in rows), tuple(ref.content_id for ref in taken)
        if taken:
            batches.append(Batch(batch.images[rows], batch.body[rows], ids, about))
            refs += taken
    return HeldOut(tuple(batches), tuple(refs))

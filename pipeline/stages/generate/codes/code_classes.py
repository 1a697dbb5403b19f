"""`nightread generate codes RUN`: how well the categories of an infogan agree with what its images are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import ConfigError
from pipeline.evaluation.category_agreement import judge_codes, name_codes, share_information
from pipeline.evaluation.image_features import embed_images
from pipeline.methods import load_model
from pipeline.methods.infogan import InfoGan
from pipeline.nn.condition import Attribute
from pipeline.stages.generate.task_images import BATCH, Slices, choose_real, classes_of, read_real
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import SetName

CONFIDENCE = 0.95
ROUNDS = 4  # starts of k-means


@dataclass(frozen=True, slots=True)
class CodeRow:
    """One row: who sorted the images into categories, and how well these agree with the classes of held-out images.

    Attributes:
        sorted_by: the method, or k-means on pixels or on features of a frozen network.
        categories, classes: numbers of them; the categories that no training image has are counted too.
        images: held-out images.
        accuracy, low, high: share of them that have the class of their category, with its 95 % interval over images.
        information, information_low, information_high: normalised mutual information, over patients.
    """

    sorted_by: str
    categories: int
    classes: int
    images: int
    accuracy: float
    low: float | None
    high: float | None
    information: float
    information_low: float | None
    information_high: float | None


def measure_code_classes(
    settings: Settings, run_id: str, attributes: Sequence[Attribute], sets: Sequence[SetName] = ("develop",)
) -> list[CodeRow]:
    """Sort held-out images by the categories of a trained infogan, by k-means on pixels, and on frozen features.

    No label is used to sort. A category is called by the most frequent class of the training images in it.

    Raises:
        ConfigError: the run's method is not infogan, or its images have a single class.
        EmptySelection: a set has no images.
    """
    folder = RunFolder.find(settings, run_id)
    config, model = folder.read_config(), load_model(folder.model)
    method = model.method
    if not isinstance(method, InfoGan):
        raise ConfigError(
            f"{folder.run_id} is a run of {method.config.name}, which has no categories. Name an infogan."
        )
    with Catalogue.open(settings) as catalogue:
        learned, held_out = (
            read_real(choose_real(config, settings, catalogue, chosen), config, settings, model)
            for chosen in (("train",), tuple(sets))
        )
    images = [learned, held_out]
    names = [classes_of(slices.about, attributes) or [] for slices in images]
    if len(set(names[0])) < 2:
        raise ConfigError(
            f"All training images have the same {' and '.join(attributes)}, so there are no classes to compare with. "
            "Name attributes in which they differ."
        )
    count = method.config.categories
    sortings = {
        method.config.name: [_categories(method, slices.images) for slices in images],
        "k-means on pixels": _cluster([slices.images.flatten(1).numpy() for slices in images], count),
        "k-means on frozen features": _cluster([embed_images(slices.images) for slices in images], count),
    }
    return [_row(sorted_by, count, codes, names, held_out) for sorted_by, codes in sortings.items()]


def _row(
    sorted_by: str, count: int, codes: Sequence[Sequence[int]], names: Sequence[Sequence[str]], held_out: Slices
) -> CodeRow:
    share = judge_codes(name_codes(codes[0], names[0]), codes[1], names[1], CONFIDENCE)
    shared = share_information(codes[1], names[1], held_out.patients, CONFIDENCE)
    values = (share.value, share.low, share.high, shared.value, shared.low, shared.high)
    return CodeRow(sorted_by, count, len(set(names[0])), len(names[1]), *values)


def _categories(method: InfoGan, images: Tensor) -> list[int]:
    """Return the likeliest category of each image."""
    answers = torch.cat([method.embed(part) for part in images.split(BATCH)])
    return [int(code) for code in answers[:, : method.config.categories].argmax(dim=1)]


def _cluster(numbers: Sequence[np.ndarray], count: int) -> list[list[int]]:
    """Return the nearest of `count` means for each image; the means are those of the images learned from, the first."""
    from sklearn.cluster import KMeans

    means = KMeans(count, n_init=ROUNDS, random_state=0).fit(numbers[0])
    return [[int(code) for code in means.predict(part)] for part in numbers]

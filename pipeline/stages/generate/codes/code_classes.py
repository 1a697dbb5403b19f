"""`nightread generate codes RUN`: how well the categories of an infogan agree with what its images are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import ConfigError
from pipeline.evaluation.category_agreement import judge_codes, name_codes
from pipeline.methods import load_model
from pipeline.methods.infogan import InfoGan
from pipeline.nn.condition import Attribute
from pipeline.stages.generate.task_images import BATCH, choose_real, classes_of, read_real
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import SetName

CONFIDENCE = 0.95
ROUNDS = 4  # starts of k-means


@dataclass(frozen=True, slots=True)
class CodeRow:
    """One row: who sorted the images into categories, and how many held-out images have the class of their category.

    Attributes:
        sorted_by: the method, or k-means on pixels.
        categories, classes: numbers of them; the categories that no training image has are counted too.
        images: held-out images.
        accuracy, low, high: share of them, with its 95 % interval over images.
    """

    sorted_by: str
    categories: int
    classes: int
    images: int
    accuracy: float
    low: float | None
    high: float | None


def measure_code_classes(
    settings: Settings, run_id: str, attributes: Sequence[Attribute], sets: Sequence[SetName] = ("develop",)
) -> list[CodeRow]:
    """Sort held-out images by the categories of a trained infogan, and by k-means on pixels.

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
    names = [classes_of(slices.about, attributes) or [] for slices in (learned, held_out)]
    if len(set(names[0])) < 2:
        raise ConfigError(
            f"All training images have the same {' and '.join(attributes)}, so there are no classes to compare with. "
            "Name attributes in which they differ."
        )
    count = method.config.categories
    by_method = [_categories(method, slices.images) for slices in (learned, held_out)]
    by_pixels = _cluster(learned.images, held_out.images, count)
    return [
        _row(method.config.name, count, by_method, names),
        _row("k-means on pixels", count, by_pixels, names),
    ]


def _row(sorted_by: str, count: int, codes: Sequence[Sequence[int]], names: Sequence[Sequence[str]]) -> CodeRow:
    share = judge_codes(name_codes(codes[0], names[0]), codes[1], names[1], CONFIDENCE)
    return CodeRow(sorted_by, count, len(set(names[0])), len(names[1]), share.value, share.low, share.high)


def _categories(method: InfoGan, images: Tensor) -> list[int]:
    """Return the likeliest category of each image."""
    answers = torch.cat([method.embed(part) for part in images.split(BATCH)])
    return [int(code) for code in answers[:, : method.config.categories].argmax(dim=1)]


def _cluster(learned: Tensor, held_out: Tensor, count: int) -> list[list[int]]:
    """Return the nearest of `count` means for each image; the means are those of the images learned from."""
    from sklearn.cluster import KMeans

    flat = [images.flatten(1).numpy() for images in (learned, held_out)]
    means = KMeans(count, n_init=ROUNDS, random_state=0).fit(flat[0])
    return [[int(code) for code in means.predict(part)] for part in flat]

"""Real images that samples are compared with, and their patients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.distribution_distance import NEIGHBOURS
from pipeline.evaluation.image_features import check_images

SMALLEST = 2 * (NEIGHBOURS + 1)  # images: each half of the real ones needs neighbours


@dataclass(frozen=True)
class RealImages:
    """Real images, their patients and, if known, their classes.

    Attributes:
        images: [N, C, H, W], about [-1, 1].
        patients: of each image.
        classes: of each image, or None.

    Raises:
        ConfigError: the lengths differ, or the images cannot be judged.
        EmptySelection: fewer than 8 images, or fewer than 4 patients.
        Rejected: NaN or infinity.
    """

    images: Tensor
    patients: Sequence[str]
    classes: Sequence[str] | None = None

    def __post_init__(self) -> None:
        check_images(self.images, "real images")
        counts = {len(self.images), len(self.patients), len(self.classes or self.patients)}
        if len(counts) > 1:
            raise ConfigError(
                f"There are {len(self.images)} real images, {len(self.patients)} patients and "
                f"{len(self.classes or ())} classes; each image needs one of each. Give them in the order of the "
                "images."
            )
        require_enough(len(self.images), len(set(self.patients)))

    @property
    def owners(self) -> np.ndarray:
        """Number of each image's patient, int [N]."""
        return codes_of(self.patients)

    @property
    def codes(self) -> np.ndarray:
        """Number of each image's class, int [N]; 0 without classes."""
        return codes_of(self.classes or [""] * len(self.images))


def require_enough(images: int, patients: int) -> None:
    """Check that this many real images can be judged by.

    Raises:
        EmptySelection: fewer than 8 images, or fewer than 4 patients.
    """
    if images < SMALLEST or patients < NEIGHBOURS + 1:
        raise EmptySelection(
            f"There are {images} real images of {patients} patients; judging needs at least {SMALLEST} of "
            f"{NEIGHBOURS + 1}. Choose a set with more."
        )


def codes_of(names: Sequence[str]) -> np.ndarray:
    """Return the number of each name among the sorted different ones, int [N]."""
    codes: np.ndarray = np.unique(np.array(names, dtype=str), return_inverse=True)[1]
    return codes

"""Answers to a translation: the image as it is, matched histograms, and models that restore or translate."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.methods.base import Method
from pipeline.methods.capabilities import Restorer, Translator
from pipeline.nn.rng import Rng
from pipeline.stages.generate.draw import device_of
from pipeline.stages.generate.restoration.paired import Answer
from pipeline.stages.generate.restoration.restoration_answers import draws_of
from pipeline.types import Batch

NOTHING = "nothing"


def require_translator(method: Method) -> None:
    """Refuse a method that gives no image of another domain (ConfigError)."""
    if not isinstance(method, Restorer | Translator):
        raise ConfigError(
            f"{method.config.name} gives no image of another domain, so it cannot translate. Choose cycle_gan, "
            "regression_unet, conditional_gan, conditional_ddpm or conditional_flow."
        )


def plain_translations(source: Tensor, target: Tensor) -> dict[str, Answer]:
    """Return the answers that need no training, by name, the plainest first.

    Args:
        source, target: training images of the two domains, [N, 1, S, S] and [M, 1, S, S], of any patients.
    """
    curve = _match(source.numpy(), target.numpy())
    levels, values = np.unique(source.numpy(), return_index=True)
    mapped = curve.ravel()[values]

    def as_it_is(worse: Batch, rng: Rng) -> Tensor:
        """Return the image."""
        return worse.images

    def one_curve(worse: Batch, rng: Rng) -> Tensor:
        """Return the image after the curve that makes the histogram of all training images that of the other domain."""
        return torch.from_numpy(np.interp(worse.images.numpy(), levels, mapped).astype(np.float32))

    def each_image(worse: Batch, rng: Rng) -> Tensor:
        """Return the image with the histogram of the other domain's training images."""
        return torch.from_numpy(np.stack([_match(one, target.numpy()) for one in worse.images.numpy()]))

    return {NOTHING: as_it_is, "histogram matching": each_image, "histogram matching, one curve": one_curve}


def translations_of(method: Method, to: str) -> dict[str, Answer]:
    """Return the answers of a method by name; a translator makes images of the domain `to`."""
    if not isinstance(method, Translator):
        return draws_of(method)

    def translated(worse: Batch, rng: Rng) -> Tensor:
        """Return the images as the other domain shows them."""
        device = device_of(method)
        return cast(Translator, method).translate(worse.images.to(device), to, Rng(rng.keys, device))

    return {method.config.name: translated}


def _match(images: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return images whose grey values are distributed as in the reference, float32, by scikit-image."""
    from skimage.exposure import match_histograms

    return np.asarray(match_histograms(images.ravel(), reference.ravel()), np.float32).reshape(images.shape)

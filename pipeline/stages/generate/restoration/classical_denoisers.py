"""Denoisers without a model: a Gaussian filter and non-local means, each with the setting that suits training images.

Non-local means: Buades, Coll and Morel, CVPR 2005, in scikit-image's fast variant, which is given the true strength of
the noise. Settings are chosen on images of the train set by their squared error within the region, never on those
judged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from pipeline.nn.rng import Rng
from pipeline.stages.generate.restoration.paired import Answer, Problem
from pipeline.types import Batch

TUNED_ON = 24  # training images on which settings are chosen
SIGMAS_PIXELS = (0.3, 0.5, 0.7, 1.0, 1.4, 2.0)
CUT_OFFS = (0.4, 0.6, 0.8, 1.0, 1.3)  # h of non-local means, in standard deviations of the noise
PATCH, DISTANCE = 5, 6  # pixels, as in scikit-image's own example

Filter = Callable[[Batch, float], Tensor]
Setting = tuple[Filter, Sequence[float]]  # a filter of degraded images, and the values of its setting to choose from


def tune(problem: Problem, learned: Sequence[Batch], filters: Mapping[str, Setting], seed: int) -> dict[str, Answer]:
    """Return each filter as an answer, with the setting that has the least error on training images.

    Args:
        problem: the degradation.
        learned: batches of the train set.
        filters: by name.
        seed: of the degradation of the training images.
    """
    worse = [problem.worsen(batch, seed) for batch in learned] if filters else []

    def error(smooth: Filter, setting: float) -> float:
        errors = [(smooth(one, setting) - one.target) * problem.region(one) for one in worse]  # type: ignore[operator]
        return sum(float(one.square().sum()) for one in errors)

    def answer(smooth: Filter, settings: Sequence[float]) -> Answer:
        setting = min(settings, key=lambda one: error(smooth, one))
        return lambda batch, rng: smooth(batch, setting)

    return {name: answer(*one) for name, one in filters.items()}


def tune_denoisers(problem: Problem, learned: Sequence[Batch], std: float, seed: int) -> dict[str, Answer]:
    """Return both denoisers by name, for noise of a known standard deviation; see `tune`."""
    filters: dict[str, Setting] = {
        "Gaussian filter": (lambda batch, sigma: smooth_gaussian(batch.images, sigma), SIGMAS_PIXELS),
        "non-local means": (lambda batch, cut_off: smooth_non_local(batch.images, std, cut_off), CUT_OFFS),
    }
    return tune(problem, learned, filters, seed)


def keep(batch: Batch, rng: Rng) -> Tensor:
    """Return the degraded images as they are: what any answer has to be better than."""
    return batch.images


def smooth_gaussian(images: Tensor, sigma_pixels: float) -> Tensor:
    """Return [N, C, H, W] smoothed in the plane."""
    return torch.from_numpy(gaussian_filter(images.numpy(), sigma_pixels, mode="nearest", axes=(-2, -1)))


def smooth_non_local(images: Tensor, std: float, cut_off: float) -> Tensor:
    """Return [N, C, H, W] with each pixel the mean of those whose surroundings are alike; h is `cut_off` times std."""
    from skimage.restoration import denoise_nl_means

    planes = [
        denoise_nl_means(plane, PATCH, DISTANCE, h=cut_off * std, sigma=std, fast_mode=True)
        for plane in images.flatten(0, 1).double().numpy()
    ]
    return torch.from_numpy(np.stack(planes)).float().reshape(images.shape)

"""Restoration without a model: what each problem's plainest answers are, set on training images where they have a
setting.

Enlarging: pixels repeated, bicubic. Holes: the mean of the rest, biharmonic (Damelin and Hoang 2018). K-space:
zero-filling, total variation with the measured frequencies put back after every step. Blur: Wiener (Orieux et al.
2010), Richardson-Lucy (1972/74). Noise: Gaussian filter, non-local means, total variation (Chambolle 2004). All but the
first of each and bicubic are scikit-image's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.corruption.degrade import Blur, CartesianLines, DegradationConfig, Downsample, RadialSpokes
from pipeline.corruption.degrade_masks import MaskConfig
from pipeline.nn.hidden_pixels import fill_hidden
from pipeline.nn.rng import Rng
from pipeline.stages.generate.restoration.classical_denoisers import (
    CUT_OFFS,
    SIGMAS_PIXELS,
    Setting,
    keep,
    smooth_gaussian,
    smooth_non_local,
)
from pipeline.stages.generate.restoration.known_degradation import KnownDegradation
from pipeline.stages.generate.restoration.paired import Answer
from pipeline.types import Batch

BALANCES = (0.001, 0.01, 0.03, 0.1, 0.3, 1.0)  # of Wiener: how smooth the image is held to be
ROUNDS = (3, 6, 12, 25, 50)  # of Richardson-Lucy
WEIGHTS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)  # of total variation
PROJECTIONS = 15  # rounds of smoothing and putting the measured frequencies back
REACH = 4.0  # standard deviations of a blur at which its kernel ends


def plain_answers(degradation: KnownDegradation) -> tuple[dict[str, Answer], Mapping[str, Setting]]:
    """Return the answers without a setting, the plainest first, and those whose setting is to be chosen."""
    way = degradation.way
    first = way.steps[0] if way.steps else None
    if isinstance(first, Downsample) and len(way.steps) == 1:
        return {"pixels repeated": keep, "bicubic": partial(enlarge, degradation)}, {}
    if isinstance(first, MaskConfig) and len(way.steps) == 1:
        return {"mean of the rest": fill_with_mean, "biharmonic": fill_smoothly}, {}
    if isinstance(first, CartesianLines | RadialSpokes) and len(way.steps) == 1:
        return {"zero-filling": keep}, {"total variation": (partial(project_smooth, degradation), WEIGHTS)}
    if isinstance(first, Blur) and len(way.steps) == 1:
        return {"nothing": keep}, {
            "Wiener": (partial(deconvolve, first.sigma_pixels), BALANCES),
            "Richardson-Lucy": (partial(sharpen_in_rounds, first.sigma_pixels), ROUNDS),
        }
    return {"nothing": keep}, _against_noise(way)


def _against_noise(way: DegradationConfig) -> dict[str, Setting]:
    if way.steps or way.noise is None:
        return {}
    std = way.noise.level
    return {
        "Gaussian filter": (lambda batch, sigma: smooth_gaussian(batch.images, sigma), SIGMAS_PIXELS),
        "non-local means": (lambda batch, cut_off: smooth_non_local(batch.images, std, cut_off), CUT_OFFS),
        "total variation": (lambda batch, weight: smooth_flat(batch.images, weight), WEIGHTS),
    }


def enlarge(degradation: KnownDegradation, batch: Batch, rng: Rng) -> Tensor:
    """Return the small images enlarged bicubically (a = -0.75, torch's)."""
    small = degradation.operator(batch).read(batch.images)
    return F.interpolate(small, size=batch.images.shape[-2:], mode="bicubic", align_corners=False)


def fill_with_mean(batch: Batch, rng: Rng) -> Tensor:
    """Return the images with the mean of their other pixels in the hole."""
    return fill_hidden(batch.images, missing_of(batch) > 0)


def fill_smoothly(batch: Batch, rng: Rng) -> Tensor:
    """Return the images with the hole filled by the biharmonic equation."""
    from skimage.restoration import inpaint_biharmonic

    holes = missing_of(batch)[:, 0].bool().numpy()
    images = batch.images.double().numpy()
    filled = [
        np.stack([inpaint_biharmonic(plane, hole) for plane in image])
        for image, hole in zip(images, holes, strict=True)
    ]
    return torch.from_numpy(np.stack(filled)).float()


def missing_of(batch: Batch) -> Tensor:
    """Return the mask of a degraded batch, 1 where missing; zeros where nothing is."""
    return torch.zeros_like(batch.images[:, :1]) if batch.condition is None else batch.condition


def smooth_flat(images: Tensor, weight: float) -> Tensor:
    """Return [N, C, H, W] with less total variation."""
    from skimage.restoration import denoise_tv_chambolle

    return _plane_by_plane(images, lambda plane: denoise_tv_chambolle(plane, weight))


def project_smooth(degradation: KnownDegradation, batch: Batch, weight: float) -> Tensor:
    """Return images of little total variation whose measured frequencies are as they were measured."""
    operator, measured = degradation.operator(batch), batch.images
    images = measured
    for _ in range(PROJECTIONS):
        smooth = smooth_flat(images, weight)
        images = measured + smooth - operator.forward(smooth)
    return images


def deconvolve(sigma_pixels: float, batch: Batch, balance: float) -> Tensor:
    """Return the images with a Gaussian blur undone by Wiener's filter."""
    from skimage.restoration import wiener

    kernel = gaussian_kernel(sigma_pixels, batch.images.shape[-1])
    return _plane_by_plane(batch.images, lambda plane: wiener(plane, kernel, balance, clip=False))


def sharpen_in_rounds(sigma_pixels: float, batch: Batch, rounds: float) -> Tensor:
    """Return the images with a Gaussian blur undone by Richardson and Lucy's rounds; intensities count from -1."""
    from skimage.restoration import richardson_lucy

    kernel = gaussian_kernel(sigma_pixels, batch.images.shape[-1])

    def sharpen(plane: np.ndarray) -> np.ndarray:
        lit = np.clip((plane + 1) / 2, 0, None)
        return 2 * richardson_lucy(lit, kernel, int(rounds), clip=False, filter_epsilon=1e-3) - 1

    return _plane_by_plane(batch.images, sharpen)


def gaussian_kernel(sigma_pixels: float, largest: int) -> np.ndarray:
    """Return a Gaussian kernel of odd edge, at most `largest`, whose sum is 1."""
    reach = min(int(np.ceil(REACH * sigma_pixels)), (largest - 1) // 2)
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma_pixels) ** 2)
    kernel = np.outer(line, line)
    return kernel / kernel.sum()


def _plane_by_plane(images: Tensor, change: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    planes: Sequence[np.ndarray] = [change(plane) for plane in images.flatten(0, 1).double().numpy()]
    return torch.from_numpy(np.stack(planes)).float().reshape(images.shape)

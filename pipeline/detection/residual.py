"""Residual map: the difference between an image and its normal version."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from pipeline.config import Config
from pipeline.detection.connected import hysteresis
from pipeline.detection.filters import across_slices, erode, gaussian_blur
from pipeline.detection.median import median_filter
from pipeline.errors import ConfigError
from pipeline.nn.perceptual import PerceptualConfig, perceptual

RANGE = 2.0  # range of normalised images, which are in [-1, 1]
K1, K2 = 0.01, 0.03  # Wang et al. 2004, section III.B


class ResidualConfig(Config):
    """Kind of difference, and cleaning of its map."""

    kind: Literal["l1", "l2", "ssim", "signed", "perceptual"] = Field(
        "ssim", description="comparison of image and reconstruction"
    )
    direction: Literal["positive", "negative"] = Field(
        "positive", description="for `signed`: whether brighter or darker than normal is anomalous"
    )
    sigma_fraction: float = Field(3 / 64, gt=0, le=1, description="for `ssim`: sigma of its Gaussian / image size")
    perceptual: PerceptualConfig = Field(PerceptualConfig(), description="for `perceptual`: features and distance")
    low_pass: float = Field(
        0.0,
        ge=0,
        le=1,
        description=(
            "sigma / image size of a Gaussian on x - x_hat before the comparison, so that only low frequencies differ; "
            "0 is off"
        ),
    )
    median: int = Field(1, ge=1, le=9, description="edge of the median filter, odd; 1 is off")
    smooth_fraction: float = Field(0.0, ge=0, le=1, description="sigma of a final Gaussian / image size; 0 is off")
    adjacent: float = Field(
        0.0,
        ge=0,
        le=1,
        description=(
            "weight of each adjacent slice's map, relative to 1 for the slice itself; above 0, whole series are read"
        ),
    )
    hysteresis: float = Field(
        1.0,
        ge=1,
        le=1000,
        description=(
            "a pixel above a threshold counts only if it is connected, also through adjacent slices, with one above "
            "this many times the threshold; 1 is off; above 1, whole series are read"
        ),
    )
    erode: int = Field(0, ge=0, description="pixels by which the body mask is eroded first")

    @property
    def whole(self) -> bool:
        """Whether a slice's map depends on the other slices of its series."""
        return self.adjacent > 0 or self.connects

    @property
    def connects(self) -> bool:
        """Whether a pixel counts only in connection with others."""
        return self.hysteresis > 1

    def alone(self) -> ResidualConfig:
        """Return the same comparison of each slice on its own."""
        return self.model_copy(update={"adjacent": 0.0, "hysteresis": 1.0})

    @field_validator("median")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that the filter has a centre")
        return value


def residual(x: Tensor, x_hat: Tensor, body: Tensor, config: ResidualConfig) -> Tensor:
    """Compare images with their reconstructions; higher = more anomalous, never clamped or rescaled.

    Channels are averaged, then median and smoothing are applied, then everything outside `counted_body` is set to 0.
    `signed` maps may be negative; the others are >= 0 up to rounding (ssim: 1 - SSIM, in [0, 2]).

    With `low_pass`, x_hat first gets the high frequencies of x: lesions change low ones, and a blurred reconstruction
    misses the high ones everywhere (FDP, arXiv:2511.12899, which takes both from the image in the same way; here by a
    Gaussian, and after the reconstruction, in place of a learned bank of low frequencies before it).

    Args:
        x, x_hat: float [B, C, *spatial] in [-1, 1], two or three spatial dimensions.
        body: bool [B, 1, *spatial].

    Returns:
        float32 [B, 1, *spatial].

    Raises:
        ConfigError: the shapes do not match.
    """
    _check(x, x_hat, body)
    x, x_hat = x.float(), x_hat.float()
    if config.low_pass:
        x_hat = x - gaussian_blur(x - x_hat, config.low_pass)
    difference = _difference(x, x_hat, config)
    maps = clean(difference if difference.shape[1] == 1 else difference.mean(dim=1, keepdim=True), config)
    return maps.masked_fill_(~counted_body(body, config), 0.0)


def clean(maps: Tensor, config: ResidualConfig) -> Tensor:
    """Apply the median filter and the final smoothing to maps [B, 1, *spatial], whatever their source."""
    maps = median_filter(maps, config.median)
    return gaussian_blur(maps, config.smooth_fraction) if config.smooth_fraction else maps


def counted_body(body: Tensor, config: ResidualConfig) -> Tensor:
    """Return the part of the body whose residual counts: bool [B, 1, *spatial]."""
    return erode(body, config.erode)


def across(maps: Tensor, counted: Tensor, config: ResidualConfig) -> Tensor:
    """Average the maps of one whole series over adjacent slices, then apply hysteresis, each if configured.

    Args:
        maps: float [N, 1, *spatial], slices in order, 0 outside `counted`, so that these pixels add nothing.
        counted: bool [N, 1, *spatial], of `counted_body`.

    Returns:
        float [N, 1, *spatial], 0 outside `counted`.
    """
    if config.adjacent:
        maps = across_slices(maps, config.adjacent).masked_fill_(~counted, 0.0)
    return connected(maps, config)


def connected(maps: Tensor, config: ResidualConfig) -> Tensor:
    """Apply hysteresis to the maps [N, 1, *spatial] of one whole series; without it, return them unchanged."""
    return hysteresis(maps, config.hysteresis) if config.connects else maps


def _difference(x: Tensor, x_hat: Tensor, config: ResidualConfig) -> Tensor:
    match config.kind:
        case "l1":
            return (x - x_hat).abs()
        case "l2":
            return (x - x_hat).square()
        case "signed":
            return x - x_hat if config.direction == "positive" else x_hat - x
        case "ssim":
            return ssim(x, x_hat, config.sigma_fraction).neg_().add_(1)
        case "perceptual":
            return perceptual(config.perceptual, x.ndim - 2).to(x.device).maps(x, x_hat)


def ssim(x: Tensor, y: Tensor, sigma_fraction: float) -> Tensor:
    """Return the structural similarity map of x and y, [B, C, *spatial].

    Wang, Bovik, Sheikh, Simoncelli 2004, equation 13, with a Gaussian window whose sigma scales with the image (Cai et
    al. 2024, MedIAnomaly: sigma 3 at 64 px, replicate padding; a narrow window loses ten points of AUROC). Moments are
    weighted by the window, without the n/(n-1) correction, as in the paper.
    """
    c1, c2 = (K1 * RANGE) ** 2, (K2 * RANGE) ** 2
    if x.requires_grad or y.requires_grad:
        blurred = gaussian_blur(torch.cat([x, y, x.square() + y.square(), x * y]), sigma_fraction).chunk(4)
        means, both = blurred[0].square() + blurred[1].square(), blurred[0] * blurred[1]
        similarity = (2 * both + c1) * (2 * (blurred[3] - both) + c2)
        return similarity / ((means + c1) * (blurred[2] - means + c2))
    moments = torch.stack([x, y, x, x])
    moments[2].mul_(x).addcmul_(y, y)
    moments[3].mul_(y)
    mean_x, mean_y, squares, products = gaussian_blur(moments.flatten(0, 1), sigma_fraction).chunk(4)
    both = mean_x * mean_y
    means = mean_x.square_().add_(mean_y.square_())  # in place from here on, which takes a fifth of the time
    spread, shared = squares.sub_(means), products.sub_(both)
    similarity = both.mul_(2).add_(c1).mul_(shared.mul_(2).add_(c2))
    return similarity.div_(means.add_(c1).mul_(spread.add_(c2)))


def _check(x: Tensor, x_hat: Tensor, body: Tensor) -> None:
    one = (x.shape[0], 1, *x.shape[2:])
    if x.shape != x_hat.shape or tuple(body.shape) != one or x.ndim not in (4, 5):
        raise ConfigError(
            f"Images {list(x.shape)}, reconstructions {list(x_hat.shape)} and bodies {list(body.shape)} do not match: "
            "the first two must be [B, C, *spatial] with 2 or 3 spatial dimensions, the last [B, 1, *spatial]."
        )

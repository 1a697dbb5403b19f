"""Noise of scanners, by its physics: Gaussian, Rician in magnitude images of MR, Poisson counts of X-rays.

Images are in [-1, 1]; in MR, -1 means no signal. In X-ray images -1 is air, through which all photons pass, and
brightness is attenuation, as after the usual logarithm."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from pipeline.config import Config
from pipeline.nn.rng import Rng


class GaussianNoise(Config):
    """The same Gaussian noise everywhere."""

    kind: Literal["gaussian"] = "gaussian"
    std: float = Field(0.1, gt=0, description="standard deviation, in units of the image [-1, 1]")

    @property
    def label(self) -> str:
        """Readable name."""
        return f"gaussian {self.std:g}"

    @property
    def level(self) -> float:
        """Standard deviation on the images, about."""
        return self.std

    def add(self, y: Tensor, rng: Rng) -> Tensor:
        """Return y + std n; differentiable."""
        return y + self.std * rng.normal(*y.shape[1:])


class RicianNoise(Config):
    """Noise of magnitude images of MR: both parts of a complex signal have Gaussian noise (Gudbjartsson and Patz 1995).

    Its mean is not 0: where there is no signal, the magnitude is std sqrt(pi / 2).
    """

    kind: Literal["rician"] = "rician"
    std: float = Field(0.1, gt=0, description="standard deviation of each part, in units of the image [-1, 1]")

    @property
    def label(self) -> str:
        """Readable name."""
        return f"rician {self.std:g}"

    @property
    def level(self) -> float:
        """Standard deviation on the images, about: exact where the signal is strong."""
        return self.std

    def add(self, y: Tensor, rng: Rng) -> Tensor:
        """Return |signal + complex noise| - 1, with a signal of y + 1; differentiable."""
        parts = self.std * rng.normal(2, *y.shape[1:])
        real, imaginary = (y + 1).clamp_min(0) + parts[:, 0], parts[:, 1]
        return (real.square() + imaginary.square() + 1e-12).sqrt() - 1


class PoissonNoise(Config):
    """Noise of counted photons (X-ray, and CT as if each pixel were a ray): Beer-Lambert, with Poisson counts.

    A ray of attenuation p is met by Poisson(photons e^-p) photons, and the image is -log of the share that passed. Its
    variance is about e^p / photons: dense parts are noisier. A ray of which no photon arrives counts as half a photon.
    """

    kind: Literal["poisson"] = "poisson"
    photons: float = Field(
        1000.0, ge=1, description="photons per pixel where nothing attenuates; fewer is a lower dose"
    )
    attenuation: float = Field(4.0, gt=0, description="attenuation p of the brightest pixel, 1; that of -1 is 0")

    @property
    def label(self) -> str:
        """Readable name."""
        return f"poisson {self.photons:g}"

    @property
    def level(self) -> float:
        """Standard deviation at the middle grey, 0."""
        return 2 / self.attenuation * (2.718281828 ** (self.attenuation / 2) / self.photons) ** 0.5

    def add(self, y: Tensor, rng: Rng) -> Tensor:
        """Return the image of the counted photons; not differentiable."""
        p = self.attenuation * (y.clamp(-1, 1) + 1) / 2
        counts = rng.poisson(self.photons * torch.exp(-p)).clamp_min(0.5)
        return -2 / self.attenuation * (counts / self.photons).log() - 1


NoiseConfig = Annotated[GaussianNoise | RicianNoise | PoissonNoise, Field(discriminator="kind")]

"""Linear degradations of images as operators with an exact adjoint: smaller, blurred, partly hidden, from few
frequencies.

Notation of inverse problems: y = A x, where x is the image and y is what is measured. The adjoint satisfies <A x, y> =
<x, A^T y> for every x and y. An operator holds what was drawn for each row (a mask, k-space lines), so that the same
one can be applied again. It works in the plane of the last two axes; slices of a volume are degraded one by one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import torch
from torch import Tensor

from pipeline.errors import ConfigError

CUBIC = -0.5  # Keys' cubic convolution, IEEE Trans. ASSP 29 (1981), as bicubic resampling usually is


class Operator(Protocol):
    """A linear map from images to measurements, row by row."""

    @property
    def missing(self) -> Tensor | None:
        """Pixels of which nothing is measured, float32 [B, 1, *spatial], 1 where missing; None if nothing is
        missing."""
        ...

    def forward(self, x: Tensor) -> Tensor:
        """Return y = A x."""
        ...

    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^T y."""
        ...

    def show(self, y: Tensor) -> Tensor:
        """Return a measurement as an image on the grid of x; nothing is lost."""
        ...

    def read(self, picture: Tensor) -> Tensor:
        """Return the measurement that `show` made an image of."""
        ...


@dataclass(frozen=True, slots=True)
class InPlane:
    """Images multiplied by one matrix per axis of the plane: y = rows x columns^T, on the same grid or a smaller one.

    Attributes:
        rows: [P, H].
        columns: [Q, W].
        factor: pixels of x along the edge of a pixel of y, which is repeated to show it.
    """

    rows: Tensor
    columns: Tensor
    factor: int = 1

    @property
    def missing(self) -> None:
        """Nothing is missing."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        """Return y = A x."""
        return self.rows.to(x) @ x @ self.columns.to(x).T

    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^T y."""
        return self.rows.to(y).T @ y @ self.columns.to(y)

    def show(self, y: Tensor) -> Tensor:
        """Return y with each pixel repeated."""
        return y.repeat_interleave(self.factor, dim=-2).repeat_interleave(self.factor, dim=-1)

    def read(self, picture: Tensor) -> Tensor:
        """Return one of each pixel's copies."""
        return picture[..., :: self.factor, :: self.factor]


@dataclass(frozen=True, slots=True)
class Hidden:
    """Images whose missing pixels are 0.

    Attributes:
        missing: float32 [B, 1, *spatial], 1 where missing.
    """

    missing: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return y = (1 - missing) x."""
        return x * (1 - self.missing).to(x)

    adjoint = forward  # a diagonal matrix is its own adjoint

    def show(self, y: Tensor) -> Tensor:
        """Return y, which is an image."""
        return y

    read = show


@dataclass(frozen=True, slots=True)
class FewFrequencies:
    """Images of which only some frequencies are measured, the others being 0: zero-filled k-space of real images.

    With an orthonormal Fourier transform F and a mask M that is symmetric about the centre, A = F^-1 M F is real and is
    the projection onto the measured frequencies: it is its own adjoint and A A = A, and F y is the k-space.

    Attributes:
        measured: bool [B, 1, H, W] in the order of `torch.fft.fft2`, symmetric.
    """

    measured: Tensor

    @property
    def missing(self) -> None:
        """Every pixel is measured somehow."""
        return None

    def forward(self, x: Tensor) -> Tensor:
        """Return the zero-filled image y = A x."""
        mask = self.measured if x.ndim == 4 else self.measured[:, :, None]
        return torch.fft.ifft2(torch.fft.fft2(x) * mask.to(x.device)).real.to(x.dtype)

    adjoint = forward

    def show(self, y: Tensor) -> Tensor:
        """Return y, which is an image."""
        return y

    read = show


@dataclass(frozen=True, slots=True)
class Chain:
    """Operators one after the other, the first of them first: A = A_n ... A_1."""

    parts: tuple[Operator, ...] = ()

    @property
    def missing(self) -> Tensor | None:
        """Pixels that one of the operators hides, on the grid of x."""
        hidden: Tensor | None = None
        for part in reversed(self.parts):
            below = None if hidden is None else part.show(hidden)
            both = [one for one in (part.missing, below) if one is not None]
            hidden = reduce(torch.maximum, both) if both else None
        return hidden

    def forward(self, x: Tensor) -> Tensor:
        """Return y = A x."""
        return reduce(lambda image, part: part.forward(image), self.parts, x)

    def adjoint(self, y: Tensor) -> Tensor:
        """Return A^T y."""
        return reduce(lambda image, part: part.adjoint(image), reversed(self.parts), y)

    def show(self, y: Tensor) -> Tensor:
        """Return y on the grid of x."""
        return reduce(lambda image, part: part.show(image), reversed(self.parts), y)

    def read(self, picture: Tensor) -> Tensor:
        """Return the measurement that `show` made an image of."""
        return reduce(lambda image, part: part.read(image), self.parts, picture)


def shrink_by(factor: int, spatial: Sequence[int]) -> InPlane:
    """Return antialiased downsampling: Keys' cubic stretched by the factor, as for thumbnails.

    Raises:
        ConfigError: the factor does not divide the edges of the plane, or leaves fewer than two pixels.
    """
    *_, rows, columns = spatial
    if rows % factor or columns % factor or min(rows, columns) // factor < 2:
        allowed = [n for n in range(2, min(rows, columns) // 2 + 1) if not (rows % n or columns % n)]
        advice = f"Choose among {', '.join(map(str, allowed))}" if allowed else "Choose another image_size"
        raise ConfigError(
            f"Images of {rows} x {columns} pixels cannot be downsampled by {factor}: the factor must divide both edges "
            f"and leave two pixels or more. {advice}."
        )
    return InPlane(_cubic(factor, rows), _cubic(factor, columns), factor)


def blur_by(sigma_pixels: float, spatial: Sequence[int]) -> InPlane:
    """Return a Gaussian blur in the plane; each row of its matrices sums to 1, so that a border does not darken."""
    *_, rows, columns = spatial
    return InPlane(_gaussian(sigma_pixels, rows), _gaussian(sigma_pixels, columns))


def _cubic(factor: int, size: int) -> Tensor:
    """Return weights [size / factor, size], rows summing to 1."""
    centres = (torch.arange(size // factor, dtype=torch.float64) + 0.5) * factor - 0.5
    distance = (torch.arange(size, dtype=torch.float64) - centres[:, None]).abs() / factor
    near = (CUBIC + 2) * distance**3 - (CUBIC + 3) * distance**2 + 1
    far = CUBIC * (distance**3 - 5 * distance**2 + 8 * distance - 4)
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    return (weights / weights.sum(dim=1, keepdim=True)).float()


def _gaussian(sigma: float, size: int) -> Tensor:
    places = torch.arange(size, dtype=torch.float64)
    weights = torch.exp(-0.5 * ((places - places[:, None]) / sigma).square())
    return (weights / weights.sum(dim=1, keepdim=True)).float()


def symmetric(measured: Tensor) -> Tensor:
    """Return a mask of frequencies [..., H, W] together with its mirror image about frequency 0."""
    return measured | measured.flip(-2, -1).roll((1, 1), (-2, -1))


def frequencies(size: int) -> Tensor:
    """Return the whole numbers of cycles in the order of `torch.fft.fft`: 0, 1, ..., -1."""
    return (torch.fft.fftfreq(size) * size).round()


def spokes(angles: Tensor, rows: int, columns: int) -> Tensor:
    """Return the frequencies within half a cell of spokes through the centre: bool [B, 1, rows, columns].

    Args:
        angles: [B, spokes], in turns of pi.
        rows, columns: of the plane.
    """
    down, right = frequencies(rows)[:, None], frequencies(columns)
    across = (angles * math.pi)[..., None, None]
    return ((right * across.sin() - down * across.cos()).abs() < 0.5).any(dim=1, keepdim=True)

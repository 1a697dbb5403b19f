"""Shapes and textures for drawing phantoms: soft ellipses and smooth random fields on the square [-1, 1]^2.

Coordinates do not depend on the image size, so a patient drawn at 64 and at 512 pixels is the same patient.
All arrays are float32 [S, S]; x grows to the right, y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

Array = np.ndarray


@lru_cache(maxsize=8)
def grid(size: int) -> tuple[Array, Array]:
    """Return the x and y coordinates of the pixel centres, each [size, size]."""
    line = ((np.arange(size, dtype=np.float32) + 0.5) * (2.0 / size) - 1.0).astype(np.float32)
    x, y = np.meshgrid(line, line)
    return x, y


@lru_cache(maxsize=64)
def _weights(size: int, cells: int) -> Array:
    """Cubic B-spline weights [size, cells], scaled so that white cells give a field of mean variance one."""
    where = np.linspace(0.0, cells - 1.0, size)[:, None] - np.arange(cells)[None, :]
    distance = np.abs(where)
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    weights = np.where(distance < 1, near, far)
    return (weights / np.sqrt((weights**2).sum(1).mean())).astype(np.float32)


class Field:
    """Smooth, roughly Gaussian random field through the patient, with zero mean and unit variance.

    Args:
        rng: source of the coarse values (drawn once, at construction).
        cells: coarse values across the image; more cells give a finer texture.
        layers: coarse values along the patient's axis.
    """

    __slots__ = ("_coarse",)

    def __init__(self, rng: np.random.Generator, cells: int, layers: int = 4) -> None:
        # Uniform values cost a third of normal ones, and a cubic spline over sixteen of them is close to normal.
        self._coarse = (rng.random((layers, cells, cells), dtype=np.float32) - np.float32(0.5)) * np.float32(12**0.5)

    def at(self, z: float, size: int) -> Array:
        """Return the field [size, size] at the axial position `z` in [0, 1]."""
        layers, cells = self._coarse.shape[:2]
        low = min(int(z * (layers - 1)), layers - 2)
        part = z * (layers - 1) - low
        flat = (1 - part) * self._coarse[low] + part * self._coarse[low + 1]
        weights = _weights(size, cells)
        return weights @ (flat / np.hypot(1 - part, part)).astype(np.float32) @ weights.T


@dataclass(frozen=True, slots=True)
class Ellipse:
    """An ellipse: centre, half axes, and rotation in radians."""

    x: float
    y: float
    a: float
    b: float
    angle: float = 0.0

    def depth(self, x: Array, y: Array) -> Array:
        """Signed depth below the edge, in coordinate units near the edge: positive inside."""
        cosine, sine = math.cos(self.angle), math.sin(self.angle)
        u = x * (cosine / self.a)
        u += y * (sine / self.a)
        u -= (self.x * cosine + self.y * sine) / self.a
        v = y * (cosine / self.b)
        v -= x * (sine / self.b)
        v -= (self.y * cosine - self.x * sine) / self.b
        u *= u
        v *= v
        u += v
        np.sqrt(u, out=u)
        np.subtract(1.0, u, out=u)
        u *= min(self.a, self.b)
        return u

    def alpha(self, x: Array, y: Array, edge: float = 0.03) -> Array:
        """Coverage in [0, 1] with a linear edge `edge` wide."""
        return ramp(self.depth(x, y), edge)

    def scaled(self, factor: float) -> Ellipse:
        """Return the ellipse with both half axes multiplied by `factor`."""
        return Ellipse(self.x, self.y, self.a * factor, self.b * factor, self.angle)

    def mirrored(self) -> Ellipse:
        """Return the ellipse mirrored at the midline x = 0."""
        return Ellipse(-self.x, self.y, self.a, self.b, -self.angle)


def depths(shapes: Sequence[Ellipse], x: Array, y: Array) -> Array:
    """Return signed depths [n, ...] of many ellipses with one matrix product: each is a quadratic form in (x, y)."""
    columns = np.array([(e.x, e.y, 1 / e.a, 1 / e.b, math.cos(e.angle), math.sin(e.angle)) for e in shapes]).T
    cx, cy, p, q, cosine, sine = columns
    u = p * cosine, p * sine, -p * (cx * cosine + cy * sine)
    v = -q * sine, q * cosine, q * (cx * sine - cy * cosine)
    pairs = ((0, 0, 1), (1, 1, 1), (2, 2, 1), (0, 1, 2), (0, 2, 2), (1, 2, 2))
    forms = np.stack([weight * (u[i] * u[j] + v[i] * v[j]) for i, j, weight in pairs], axis=1).astype(np.float32)
    terms = np.stack([x * x, y * y, np.ones_like(x), x * y, x, y]).reshape(6, -1)
    result = forms @ terms
    np.sqrt(np.abs(result, out=result), out=result)
    np.subtract(1.0, result, out=result)
    result *= (1 / np.maximum(p, q)).astype(np.float32)[:, None]
    return result.reshape(len(shapes), *x.shape)


def ramp(depth: Array, edge: float) -> Array:
    """Map signed depth to coverage: 0 outside, 1 inside, linear over `edge`."""
    alpha = depth * (1 / edge)
    alpha += 0.5
    return alpha.clip(0.0, 1.0, out=alpha)


def paint(image: Array, alpha: Array, value: Array | float) -> None:
    """Blend `value` into `image` in place with coverage `alpha`."""
    change = value - image
    change *= alpha
    image += change


def stamp(image: Array, shape: Ellipse, where: tuple[Array, Array], value: float, edge: float = 0.03) -> None:
    """Paint a small ellipse in place, touching only the pixels near it (many times faster than `paint`)."""
    window = near(shape, image.shape[0])
    paint(image[window], shape.alpha(where[0][window], where[1][window], edge), value)


def near(shape: Ellipse, size: int) -> tuple[slice, slice]:
    """Return rows and columns that contain `shape` in any pose: patients are shifted and warped by less than 0.15."""
    reach = max(shape.a, shape.b) + 0.15
    half = size / 2
    top, left = max(0, int((shape.y - reach + 1) * half)), max(0, int((shape.x - reach + 1) * half))
    bottom, right = int((shape.y + reach + 1) * half) + 1, int((shape.x + reach + 1) * half) + 1
    return slice(top, max(bottom, 0)), slice(left, max(right, 0))


def section(z: float, centre: float, half_length: float) -> float:
    """Radius of a unit ellipsoid's cross-section at `z`, 0 beyond its poles."""
    along = (z - centre) / half_length
    return float(np.sqrt(max(0.0, 1.0 - along * along)))

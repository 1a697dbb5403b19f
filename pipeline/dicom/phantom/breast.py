"""Breast-like ultrasound: a fan of echoes through skin, fat, gland and muscle, as log-compressed brightness 0..1.

The anatomy is drawn in the probe's own coordinates, depth and angle, and then scan-converted to the picture, so its
speckle widens with depth as on a real scanner. Speckle is the magnitude of a complex Gaussian field (Rayleigh; Wagner
et al., IEEE Trans Son Ultrason 1983), which multiplies the echo and therefore adds to its logarithm. Age replaces gland
by fat; the amounts are in `facts()`.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from pipeline.dicom.phantom.brain import Rendered
from pipeline.dicom.phantom.drawing import Array, Field, grid, ramp
from pipeline.dicom.phantom.phantom_lesions import Lesion, LesionKind

POLAR = 192  # samples along a beam, and beams
TOP, BOTTOM = -0.82, 0.92  # of the fan's middle beam in the picture
COMPRESSION = 20 / np.log(10) / 60  # brightness per unit of the echo's natural logarithm: 60 dB fill the range
DARKEST = 0.012  # inside the fan, so that its darkest shadow is not the black around it
LINEAR_SHARE, LINEAR_ANGLE = 0.3, 0.02  # probes whose beams are practically parallel


class Breast:
    """One person's breast under one probe.

    Args:
        rng: draws the person and the probe; the same state gives the same person.
        age_factor: 0 (18 years) .. 1 (90 years).
    """

    def __init__(self, rng: np.random.Generator, age_factor: float) -> None:
        u = rng.uniform(-1, 1, 16).tolist()
        linear = 0.5 + 0.5 * u[0] < LINEAR_SHARE
        self.angle = LINEAR_ANGLE if linear else 0.29 + 0.13 * u[1]
        self.reach = (0.84 + 0.08 * u[2]) / np.sin(self.angle)
        self.skin = 0.05 + 0.012 * u[3]
        self.fat = self.skin + 0.12 + 0.04 * u[4] + 0.06 * age_factor
        self.gland = self.fat + 0.36 - 0.14 * age_factor + 0.05 * u[5]
        self.retro = self.gland + 0.09 + 0.03 * u[6]
        self.muscle = self.retro + 0.15 + 0.03 * u[7]
        self.dense = 0.55 - 0.06 * age_factor + 0.05 * u[8]
        self.attenuation = 0.14 + 0.05 * u[9]
        self.shadows = [(0.75 * u[10 + k], 0.05 + 0.03 * abs(u[12 + k]), 0.16 * max(0.0, u[14 + k])) for k in range(2)]
        self._waves = [Field(rng, 5, 2) for _ in range(5)]
        self._fine, self._coarse, self._septa = Field(rng, 40, 2), Field(rng, 14, 2), Field(rng, 11, 2)
        self._speckle = _speckle(rng)

    def facts(self) -> dict[str, float]:
        """Known values that the image is drawn from: depths as shares of the field of view, the fan in radians."""
        names = ("angle", "skin", "fat", "gland", "retro", "muscle", "dense", "attenuation")
        return {name: float(getattr(self, name)) for name in names}

    def slice(self, z: float, size: int) -> Rendered:
        """Render the picture, a single image; black outside the fan. `z` only bends the layers."""
        depth, beam = self._places(size)
        inside = (depth >= 0) & (depth <= 1) & (np.abs(beam) <= 1)
        where = np.stack([depth, (beam + 1) / 2]) * (POLAR - 1)
        echoes = map_coordinates(self._echoes(z), where, order=1, mode="nearest")
        image = np.where(inside, np.clip(echoes, DARKEST, 1.0), 0).astype(np.float32)
        organ = ramp(np.minimum(depth - self.skin - 0.05, self.gland + 0.06 - depth), 0.04)
        organ = organ * ramp(0.86 - np.abs(beam), 0.08) * inside
        return Rendered(image, organ.astype(np.float32), inside.astype(np.float32), echo=True)

    def _places(self, size: int) -> tuple[Array, Array]:
        """Return depth (0 at the probe, 1 at the far end) and beam (-1 left, 1 right) of each pixel."""
        x, y = grid(size)
        down = y.astype(np.float64) - BOTTOM + self.reach
        depth = (np.hypot(x, down) - self.reach) / (BOTTOM - TOP) + 1
        return depth, np.arctan2(x, down) / self.angle

    def _echoes(self, z: float) -> Array:
        """Return brightness [depth, beam] in the probe's coordinates."""
        line = np.linspace(0, 1, POLAR, dtype=np.float32)
        depth, beam = line[:, None], 2 * line[None, :] - 1
        value = self._layers(z, depth) - self.attenuation * depth - 0.10 * beam**4
        for centre, width, strength in self.shadows:
            value = value - strength * ramp(width - np.abs(beam - centre), 0.04) * ramp(depth - self.fat, 0.1)
        return value + np.float32(COMPRESSION) * np.log(self._speckle)

    def _layers(self, z: float, depth: Array) -> Array:
        fine, coarse, septa = (field.at(z, POLAR) for field in (self._fine, self._coarse, self._septa))
        walls = np.clip(0.22 - np.abs(septa), 0, 0.22) / 0.22  # ligaments: the zero lines of a smooth field
        fat = 0.40 + 0.03 * coarse + 0.26 * walls
        gland = self.dense + 0.09 * coarse + 0.04 * fine + 0.08 * walls
        strands = np.cos(np.float32(2 * np.pi * 15) * depth + 1.2 * coarse)
        muscle = 0.44 + 0.12 * np.clip(strands, 0, 1) + 0.03 * fine
        edges = self.skin, self.fat, self.gland, self.retro, self.muscle
        value = 0.78 + 0.03 * fine
        for edge, tissue, wave in zip(edges, (fat, gland, fat, muscle, muscle - 0.22), self._waves, strict=True):
            height = edge + (0.006 if edge == self.skin else 0.022) * wave.at(z, POLAR)[POLAR // 2]
            value = value + ramp(depth - height, 0.012) * (tissue - value)
            bright = {self.skin: 0.18, self.retro: 0.22, self.muscle: 0.42}.get(edge, 0.06)
            value = value + bright * ramp(0.007 - np.abs(depth - height), 0.008)
        return value


def _speckle(rng: np.random.Generator) -> Array:
    """Return Rayleigh amplitudes [depth, beam] of mean one, correlated more across the beams than along them."""
    parts = [gaussian_filter(rng.standard_normal((POLAR, POLAR), dtype=np.float32), (0.7, 1.3)) for _ in range(2)]
    amplitude = np.hypot(*parts)
    return np.maximum(amplitude / amplitude.mean(), np.float32(0.05))


def behind(image: Array, body: Array, lesion: Lesion, alpha: Array) -> Array:
    """Return the image with what lies behind a dark lesion: a shadow where it absorbs, brightness where it is fluid.

    Which of them follows from the lesion. Only pixels below it change, and nothing beyond four of its radii.
    """
    changed = image
    if lesion.kind is LesionKind.DARKER:
        strength = -0.20 if lesion.angle > np.pi / 2 else 0.10
        _, y = grid(image.shape[0])
        under = gaussian_filter(alpha.max(axis=0), 0.1 * lesion.radius * image.shape[0])[None, :]
        fade = np.clip(1 - (y - lesion.y) / (4 * lesion.radius), 0, 1) * (y > lesion.y)
        changed = image + np.float32(strength) * under * fade * (1 - alpha)
    return np.where(body >= 0.5, np.clip(changed, DARKEST, 1.0), image).astype(np.float32)

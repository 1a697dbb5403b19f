"""Chest-like projection (postero-anterior radiograph): attenuation in relative units, 0 = open beam, about 1 = spine.

The heart is on the right of the image (the patient's left). Age enlarges the heart and unfolds the aorta, thins bone
and coarsens the lung markings; the amounts are in `facts()`.
"""

from __future__ import annotations

import numpy as np

from pipeline.dicom.phantom.brain import Rendered
from pipeline.dicom.phantom.drawing import Array, Ellipse, Field, grid, near, paint, ramp, stamp


class Chest:
    """One person's chest.

    Args:
        rng: draws the person; the same state gives the same person.
        age_factor: 0 (18 years) .. 1 (90 years).
    """

    def __init__(self, rng: np.random.Generator, age_factor: float) -> None:
        u = rng.uniform(-1, 1, 20).tolist()
        self.width, self.height = 0.72 + 0.07 * u[0], 0.78 + 0.06 * u[1]
        self.x, self.y, self.turn = 0.04 * u[2], 0.05 * u[3], 0.04 * u[4]
        self.heart = 0.25 + 0.07 * age_factor + 0.035 * u[5]
        self.bone = 0.105 - 0.045 * age_factor + 0.015 * u[6]
        self.ribs = 8.2 + 0.7 * u[7]
        self.rib_phase = np.pi * u[8]
        self.markings = 0.055 + 0.030 * age_factor + 0.012 * u[9]
        self.lung = 0.20 + 0.05 * u[10]
        self.soft = 0.62 + 0.07 * u[11]
        self.diaphragm = 0.50 + 0.08 * u[12]
        self.knob = 0.055 + 0.035 * age_factor + 0.01 * u[13]
        self.bubble = max(0.0, 0.5 + 0.5 * u[14])
        self.clavicle = 0.05 * u[15]
        self._warp = Field(rng, 6), Field(rng, 6)
        self._fine, self._coarse, self._haze = Field(rng, 48, 2), Field(rng, 22, 2), Field(rng, 7, 2)

    def facts(self) -> dict[str, float]:
        """Known values that the image is drawn from: sizes as fractions of half the field of view."""
        names = ("width", "height", "heart", "bone", "ribs", "markings", "lung", "soft", "diaphragm", "knob")
        return {name: float(getattr(self, name)) for name in names}

    def slice(self, z: float, size: int) -> Rendered:
        """Render the projection, a single image; `z` only affects the warp."""
        x0, y0 = grid(size)
        wx, wy = (field.at(z, size) for field in self._warp)
        x = x0 - np.float32(self.x) + np.float32(self.turn) * y0 + 0.014 * wx
        y = y0 - np.float32(self.y) + 0.014 * wy
        image, body = self._trunk(x, y)
        lungs = self._lungs(x, y)
        paint(image, lungs, self._lung_field(x, y, z, size))
        self._mediastinum(image, x, y)
        air = ramp(self.soft - 0.03 - image, 0.08) * lungs
        self._bones(image, x, y, lungs)
        image += 0.012 * self._haze.at(z, size) * body
        return Rendered(image, air, body)

    def _trunk(self, x: Array, y: Array) -> tuple[Array, Array]:
        shoulders = 0.94 - 0.75 * np.clip(-y - 0.55, 0, 1) ** 1.2
        neck = ramp(0.24 - np.abs(x), 0.05) * ramp(-0.5 - y, 0.1)
        body = np.maximum(ramp(shoulders - np.abs(x), 0.05) * ramp(y + 0.86, 0.10), neck)
        value = self.soft + 0.10 * ramp(y - self.diaphragm, 0.25) - 0.16 * np.clip(np.abs(x) - 0.72, 0, 1)
        return (body * value).astype(np.float32), body

    def _lungs(self, x: Array, y: Array) -> Array:
        total = np.zeros_like(x)
        for side in (-1.0, 1.0):
            dome = self.diaphragm + (0.03 if side > 0 else -0.03) - 0.55 * (np.abs(x) - 0.36) ** 2 * -1.6
            shape = Ellipse(side * 0.37 * self.width / 0.72, -0.02, 0.33 * self.width / 0.72, self.height, side * 0.10)
            alpha = ramp(np.minimum(shape.depth(x, y), np.float32(0.9) * (dome - y)), 0.035)
            total = np.maximum(total, alpha)
        return total

    def _lung_field(self, x: Array, y: Array, z: float, size: int) -> Array:
        """Dark lung with vessels that branch from the hila and thin out towards the edge."""
        fine, coarse = self._fine.at(z, size), self._coarse.at(z, size)
        reach = np.sqrt((np.abs(x) - 0.16) ** 2 + (y - 0.02) ** 2)
        central = np.clip(1 - reach * np.float32(1 / 0.62), 0, 1)
        ridges = np.clip(0.45 - np.abs(coarse), 0, 0.45) * (1 / 0.45)
        vessels = ridges * central * 1.5 + 0.35 * fine * (0.4 + central)
        basal = 0.05 * np.clip(y, 0, 1)
        return self.lung + basal + 0.10 * central**2 + self.markings * vessels

    def _mediastinum(self, image: Array, x: Array, y: Array) -> None:
        column = 0.115 + 0.05 * np.clip(y + 0.1, 0, 1)
        paint(image, ramp(column - np.abs(x), 0.06) * ramp(y + 0.95, 0.1), self.soft + 0.03)
        where = x, y
        stamp(image, Ellipse(0.13, 0.26, self.heart * 1.12, self.heart * 0.92, 0.55), where, self.soft + 0.08, 0.07)
        stamp(image, Ellipse(-0.07, 0.22, 0.13, 0.22), where, self.soft + 0.06, 0.07)
        stamp(image, Ellipse(0.09, -0.28, self.knob + 0.03, self.knob + 0.02), where, self.soft + 0.05, 0.06)
        stamp(image, Ellipse(0.03, -0.10, 0.13, 0.24), where, self.soft + 0.05, 0.08)
        trachea = Ellipse(0.0, -0.55, 0.045, 0.33)
        box = near(trachea, image.shape[0])
        paint(image[box], trachea.alpha(x[box], y[box], 0.04) * 0.75, self.soft - 0.13)
        stomach = Ellipse(0.40, self.diaphragm + 0.13, 0.10, 0.05)
        box = near(stomach, image.shape[0])
        paint(image[box], stomach.alpha(x[box], y[box], 0.04) * self.bubble, self.soft - 0.28)

    def _bones(self, image: Array, x: Array, y: Array, lungs: Array) -> None:
        """Posterior ribs run outwards and down, anterior ribs down and inwards; each is dense at its borders."""
        side = np.abs(x)
        cage = ramp(0.80 * self.width / 0.72 - side, 0.06) * ramp(0.72 - y, 0.2) * ramp(side - 0.11, 0.05)
        cage = cage * ramp(y + 0.80, 0.1)
        frequency = np.float32(np.pi * self.ribs)
        back = np.cos(frequency * (y - 0.55 * side + 0.55 * side * side) + np.float32(self.rib_phase))
        front = np.cos(frequency * (y + 0.50 * side - 0.10) + np.float32(self.rib_phase + 1.0))
        image += cage * self.bone * np.clip(back * 2 - 0.2, 0, 1) * (1.15 - 0.35 * np.clip(back, 0, 1))
        image += lungs * ramp(side - 0.30, 0.1) * 0.45 * self.bone * np.clip(front * 2 - 0.7, 0, 1)
        spine = 0.55 + 0.45 * np.cos(np.float32(np.pi * 9.5) * y + np.float32(self.rib_phase))
        image += ramp(0.085 - side, 0.03) * self.bone * (0.35 + 0.6 * spine)
        bar = np.abs(y + 0.66 + self.clavicle - 0.30 * (side - 0.1) * (0.9 - side))
        image += ramp(0.026 - bar, 0.02) * ramp(side - 0.08, 0.05) * ramp(0.66 - side, 0.05) * 1.3 * self.bone

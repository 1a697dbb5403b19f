"""Abdomen-like body in axial CT slices (HU), in the portal-venous phase, with its patient table.

The patient's right (liver) is on the left of the image. Age adds fat, thins muscle and bone, and calcifies the aorta;
the amounts are in `facts()`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from pipeline.dicom.phantom.brain import Rendered
from pipeline.dicom.phantom.drawing import Array, Ellipse, Field, depths, grid, paint, ramp, section

AIR, FAT, MUSCLE, SKIN, FLUID = -1000.0, -105.0, 55.0, 30.0, 12.0
ASPECT = 0.71  # height to width of the wall that holds the ribs


@lru_cache(maxsize=8)
def _ring(size: int) -> tuple[Array, Array, Array]:
    """Cosine and sine of 13 times the angle around the body's axis, and the part of the front without ribs."""
    x, y = grid(size)
    angle = np.arctan2(y / np.float32(ASPECT), x)
    return np.cos(13 * angle), np.sin(13 * angle), (0.8 * (np.abs(angle + np.pi / 2) < 0.9)).astype(np.float32)


@lru_cache(maxsize=8)
def _table(size: int) -> tuple[Array, Array]:
    """Coverage of the table's shell and of its foam."""
    x, y = grid(size)
    curve, wide = y - 0.665 + 0.10 * x * x, np.abs(x) < 0.75
    return ramp(0.012 - np.abs(curve), 0.02) * wide, ramp(0.040 - np.abs(curve - 0.055), 0.02) * wide


class Abdomen:
    """One person's abdomen.

    Args:
        rng: draws the person; the same state gives the same person.
        age_factor: 0 (18 years) .. 1 (90 years).
    """

    def __init__(self, rng: np.random.Generator, age_factor: float) -> None:
        u = rng.uniform(-1, 1, 20).tolist()
        self.width, self.depth = 0.80 + 0.08 * u[0], 0.57 + 0.06 * u[1]
        self.x, self.y = 0.03 * u[2], 0.04 * u[3]
        self.fat = 0.045 + 0.035 * age_factor + 0.022 * u[4]
        self.muscle = 0.055 - 0.015 * age_factor + 0.008 * u[5]
        self.enhancement = 45 + 18 * u[6]
        self.liver = 1 + 0.13 * u[7]
        self.steatosis = max(0.0, 12 + 14 * u[8])
        self.spleen = 1 + 0.22 * u[9]
        self.kidneys = 1 + 0.12 * u[10]
        self.bone = 330 - 140 * age_factor + 45 * u[11]
        self.aorta = 0.050 + 0.015 * age_factor + 0.006 * u[12]
        self.calcium = float(np.clip(1.6 * age_factor - 0.6 + 0.3 * u[13], 0, 1))
        self.gas = 0.55 + 0.45 * u[14]
        self.turn = 0.04 * u[15]
        self.stomach = 0.14 + 0.03 * u[16]
        self.loops = rng.uniform(-1, 1, (9, 5)).tolist()
        self._warp = Field(rng, 6), Field(rng, 6)
        self._texture, self._vessels, self._mesentery = Field(rng, 34, 6), Field(rng, 15, 5), Field(rng, 20, 5)

    def facts(self) -> dict[str, float]:
        """Values that the image is drawn from: sizes as fractions of half the field of view, enhancement in HU."""
        names = ("width", "depth", "fat", "muscle", "enhancement", "liver", "steatosis", "spleen", "kidneys", "bone")
        return {name: float(getattr(self, name)) for name in (*names, "aorta", "calcium", "stomach")}

    def slice(self, z: float, size: int) -> Rendered:
        """Render the axial position `z` in [0, 1]: 0 at the lower poles of the kidneys, 1 at the dome of the liver."""
        x, y = grid(size)
        wx, wy = (field.at(z, size) for field in self._warp)
        x, y = x - self.x + 0.016 * wx, y - self.y + 0.016 * wy
        shapes = self._shapes(z)
        depth = dict(zip(shapes, depths(list(shapes.values()), x, y), strict=True))
        image, mesentery = np.full((size, size), AIR, np.float32), self._mesentery.at(z, size)
        for coverage, value in zip(_table(size), (-250.0, -920.0), strict=True):
            paint(image, coverage, value)
        body = ramp(depth["body"], 0.02)
        paint(image, body, SKIN)
        paint(image, ramp(depth["body"] - 0.012, 0.015), FAT + 4 * mesentery)
        inside = depth["body"] - (0.012 + self.fat)
        self._wall(image, inside, z)
        cavity = ramp(inside - self.muscle, 0.02)
        paint(image, cavity, FAT + 10 + 9 * mesentery)
        organ = self._organs(image, cavity, depth, y, z)
        self._vessels_and_spine(image, depth, y)
        return Rendered(image, organ, body)

    def _shapes(self, z: float) -> dict[str, Ellipse]:
        """All ellipses of the slice by name, without those that the slice does not reach."""
        shapes = {"body": Ellipse(0, 0, self.width, self.depth), **self._solid_organs(z), **self._hollow_organs(z)}
        shapes["aorta"] = Ellipse(0.05, 0.13, self.aorta, self.aorta)
        shapes["cava"] = Ellipse(-0.09, 0.12, 0.065, 0.045)
        for side, name in ((-1, "right"), (1, "left")):
            shapes[f"psoas {name}"] = Ellipse(side * 0.19, 0.29, 0.085, 0.075, side * 0.5)
            shapes[f"back {name}"] = Ellipse(side * 0.13, 0.44, 0.10, 0.055, side * 0.25)
        shapes["transverse"] = Ellipse(0, 0.385, 0.16, 0.022)
        shapes["spinous"] = Ellipse(0, 0.43, 0.024, 0.085)
        shapes["canal"] = Ellipse(0, 0.375, 0.050, 0.036)
        shapes["vertebra"] = Ellipse(0, 0.265, 0.125, 0.095)
        return shapes

    def _solid_organs(self, z: float) -> dict[str, Ellipse]:
        shapes = {}
        r = section(z, 0.95, 0.98) * self.liver
        if r >= 0.1:
            shapes["liver right"] = Ellipse(-0.33, -0.04, 0.36 * r, 0.40 * r, 0.15)
            shapes["liver left"] = Ellipse(-0.08, -0.22, 0.34 * r, 0.17 * r, 0.12)
        if 0.1 <= r < 0.92:
            shapes["gallbladder"] = Ellipse(-0.22, 0.10 * r, 0.06 * r, 0.09 * r, -0.4)
        r = section(z, 0.72, 0.48) * self.spleen
        if r >= 0.1:
            shapes["spleen"] = Ellipse(0.52, 0.12, 0.13 * r, 0.25 * r, 0.45)
            shapes["hilum"] = Ellipse(0.38, 0.10, 0.10 * r, 0.10 * r)
        r = section(z, 0.30, 0.48) * self.kidneys
        if r >= 0.15:
            shapes["kidney right"] = Ellipse(-0.36, 0.22, 0.115 * r, 0.15 * r, -0.5)
            shapes["kidney left"] = Ellipse(0.34, 0.21, 0.115 * r, 0.15 * r, 0.5)
            shapes["sinus right"] = Ellipse(-0.317, 0.20, 0.05 * r, 0.05 * r)
            shapes["sinus left"] = Ellipse(0.299, 0.19, 0.05 * r, 0.05 * r)
        return shapes

    def _hollow_organs(self, z: float) -> dict[str, Ellipse]:
        shapes = {}
        r = section(z, 0.85, 0.62)
        if r >= 0.15:
            shapes["stomach"] = Ellipse(0.27, -0.16, self.stomach * 1.5 * r, self.stomach * r, -0.5)
        r = section(z, 0.05, 0.85)
        for number, (a, b, c, d, e) in enumerate(self.loops):
            if r * (1 + 0.4 * a) >= 0.45:
                across, down = -0.30 + 0.29 * (number % 3) + 0.05 * a, -0.32 + 0.15 * (number // 3) + 0.04 * b
                content = "gas" if e > 0.55 else "fluid"
                shapes[f"{content} {number}"] = Ellipse(across, down, 0.095 + 0.02 * c, 0.07, d)
        return shapes

    def _wall(self, image: Array, inside: Array, z: float) -> None:
        paint(image, ramp(inside, 0.02), MUSCLE)
        cosine, sine, front = _ring(image.shape[0])
        ribs = cosine * float(np.cos(9 * z)) - sine * float(np.sin(9 * z)) - 0.72 - front
        shell = 0.018 - np.abs(inside - 0.5 * self.muscle)
        paint(image, (ribs * 5).clip(0, 1) * ramp(shell, 0.02), self.bone + 120)

    def _organs(self, image: Array, cavity: Array, depth: dict[str, Array], y: Array, z: float) -> Array:
        size = image.shape[0]
        texture = self._texture.at(z, size)
        for content, value in (("fluid", 18.0), ("gas", -300.0 * self.gas)):
            loops = [field for name, field in depth.items() if name.startswith(content)]
            if loops:
                deepest = np.maximum.reduce(loops)
                paint(image, ramp(deepest, 0.025) * cavity, 62.0)
                paint(image, ramp(deepest - 0.022, 0.025) * cavity, value)
        self._stomach(image, cavity, depth, y, z)
        organ = self._kidneys(image, depth, texture)
        if "spleen" in depth:
            alpha = ramp(np.minimum(depth["spleen"], -depth["hilum"]), 0.03) * cavity
            paint(image, alpha, 60 + 1.2 * self.enhancement + 4.0 * texture)
            organ = np.maximum(organ, alpha)
        return np.maximum(organ, self._liver(image, cavity, depth, texture, z))

    def _liver(self, image: Array, cavity: Array, depth: dict[str, Array], texture: Array, z: float) -> Array:
        if "liver right" not in depth:
            return np.zeros_like(image)
        alpha = ramp(np.maximum(depth["liver right"], depth["liver left"]), 0.03) * cavity
        veins = np.abs(self._vessels.at(z, image.shape[0]) - 0.3)
        value = 6.0 * texture + 300 * (0.10 - veins).clip(0, 0.10)
        paint(image, alpha, value + (62 + self.enhancement - self.steatosis))
        if "gallbladder" in depth:
            bile = ramp(depth["gallbladder"], 0.03) * cavity
            paint(image, bile, FLUID)
            alpha = alpha * (1 - bile)
        return alpha

    def _kidneys(self, image: Array, depth: dict[str, Array], texture: Array) -> Array:
        if "kidney left" not in depth:
            return np.zeros_like(image)
        shape = np.maximum(depth["kidney left"], depth["kidney right"])
        alpha = ramp(shape, 0.03)
        paint(image, alpha, 70 + 2.2 * self.enhancement + 4 * texture)
        paint(image, ramp(shape - 0.045, 0.035), 60 + 1.1 * self.enhancement + 4 * texture)
        sinus = ramp(np.maximum(depth["sinus left"], depth["sinus right"]), 0.03)
        paint(image, sinus, -40.0)
        return alpha * (1 - sinus)

    def _stomach(self, image: Array, cavity: Array, depth: dict[str, Array], y: Array, z: float) -> None:
        if "stomach" not in depth:
            return
        paint(image, ramp(depth["stomach"], 0.03) * cavity, 55.0)
        lumen = ramp(depth["stomach"] - 0.02, 0.02) * cavity
        paint(image, lumen, 22.0)
        paint(image, lumen * ramp(-0.16 - 0.10 * self.gas * section(z, 0.85, 0.62) - y, 0.02), -900.0)

    def _vessels_and_spine(self, image: Array, depth: dict[str, Array], y: Array) -> None:
        blood = 70 + 1.9 * self.enhancement
        paint(image, ramp(depth["cava"], 0.03), blood - 25)
        paint(image, ramp(depth["aorta"], 0.03), blood)
        wall = ramp(0.008 - np.abs(depth["aorta"] - 0.004), 0.012) * (y > 0.13)
        paint(image, wall * self.calcium, 480.0)
        muscles = [depth[f"{name} {side}"] for name in ("psoas", "back") for side in ("left", "right")]
        paint(image, ramp(np.maximum.reduce(muscles), 0.03), MUSCLE + 4)
        arch = np.maximum.reduce([depth["transverse"], depth["spinous"], depth["canal"] + 0.02])
        paint(image, ramp(arch, 0.03), self.bone + 150)
        paint(image, ramp(depth["canal"], 0.03), 25.0)
        paint(image, ramp(depth["vertebra"], 0.02), self.bone + 260)
        paint(image, ramp(depth["vertebra"] - 0.018, 0.02), self.bone - 60)

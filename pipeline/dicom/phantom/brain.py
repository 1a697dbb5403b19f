"""Brain-like head in axial slices, as FLAIR MR (relative signal, white matter near 0.5) or as CT (HU).

Age widens sulci and ventricles and brightens the rim of the ventricles, as it does in people; the amounts are in
`facts()`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.dicom.phantom.drawing import Array, Ellipse, Field, depths, grid, near, paint, ramp, section

# tissue: (FLAIR relative signal, CT number in HU)
TISSUE = {
    "air": (0.0, -1000.0),
    "scalp": (0.80, 10.0),
    "bone": (0.10, 950.0),
    "fluid": (0.10, 6.0),
    "white": (0.47, 28.0),
    "grey": (0.62, 38.0),
    "deep": (0.57, 36.0),
    "rim": (0.82, 24.0),
}


@dataclass(frozen=True, slots=True)
class Rendered:
    """One noise-free slice. `image` float32 [S, S] in physical units; `organ` [0, 1], the region for lesions;
    `body` [0, 1]; `echo`: ultrasound, where a lesion also changes what lies behind it."""

    image: Array
    organ: Array
    body: Array
    echo: bool = False


class Brain:
    """One person's head.

    Args:
        rng: draws the person; the same state gives the same person.
        age_factor: 0 (18 years) .. 1 (90 years).
        ct: Hounsfield units instead of FLAIR signal.
    """

    def __init__(self, rng: np.random.Generator, age_factor: float, ct: bool) -> None:
        u = rng.uniform(-1, 1, 16).tolist()
        self.width, self.length = 0.66 + 0.05 * u[0], 0.82 + 0.05 * u[1]
        self.x, self.y, self.tilt = 0.04 * u[2], 0.03 * u[3], 0.08 * u[4]
        self.scalp, self.skull = 0.045 + 0.015 * u[5], 0.055 + 0.012 * u[6]
        self.ventricles = (0.72 + 0.60 * age_factor) * (1 + 0.18 * u[7])
        self.sulci = 0.16 + 0.28 * age_factor + 0.05 * u[8]
        self.cortex = 0.085 + 0.015 * u[9]
        self.caps = float(np.clip(0.05 + 0.65 * age_factor**2 + 0.12 * u[10], 0, 1))
        self.asymmetry = 0.12 * u[11]
        self.contrast = 1 + 0.18 * u[12]
        self.brightness = 1 + 0.08 * u[13]
        self.ct = ct
        self._warp = Field(rng, 6), Field(rng, 6)
        self._folds, self._fine = Field(rng, 26, 5), Field(rng, 44, 5)
        self._texture = Field(rng, 30, 6)

    def facts(self) -> dict[str, float]:
        """Known values that the image is drawn from: sizes as fractions of half the field of view."""
        names = ("width", "length", "ventricles", "sulci", "cortex", "caps", "contrast", "brightness")
        return {name: float(getattr(self, name)) for name in names}

    def tissue(self, name: str) -> float:
        """Physical value of a tissue; `contrast` scales the difference of soft tissues to white matter."""
        white, value = TISSUE["white"][self.ct], TISSUE[name][self.ct]
        if name in ("grey", "deep", "rim"):
            value = white + (value - white) * self.contrast
        return value if self.ct or name == "air" else value * self.brightness

    def slice(self, z: float, size: int) -> Rendered:
        """Render the axial position `z` in [0, 1]: 0 near the skull base, 1 near the vertex."""
        x, y = self._coordinates(z, size)
        reach = 0.62 + 0.38 * section(z, 0.35, 0.95)
        head = Ellipse(0, 0, self.width * reach, self.length * reach).depth(x, y)
        image = np.full((size, size), self.tissue("air"), np.float32)
        body = ramp(head, 0.03)
        paint(image, body, self.tissue("scalp"))
        paint(image, ramp(head - self.scalp, 0.025), self.tissue("bone"))
        inner = head - self.scalp - self.skull
        paint(image, ramp(inner, 0.02), self.tissue("fluid"))
        organ = ramp(inner - 0.015, 0.02)
        paint(image, organ, self._parenchyma(inner, x, y, z, size))
        self._inside(image, x, y, z)
        return Rendered(image, organ, body)

    def _coordinates(self, z: float, size: int) -> tuple[Array, Array]:
        x, y = grid(size)
        cosine, sine = np.float32(np.cos(self.tilt)), np.float32(np.sin(self.tilt))
        dx, dy = x - np.float32(self.x), y - np.float32(self.y)
        warp_x, warp_y = (field.at(z, size) for field in self._warp)
        return dx * cosine + dy * sine + 0.014 * warp_x, dy * cosine - dx * sine + 0.014 * warp_y

    def _parenchyma(self, inner: Array, x: Array, y: Array, z: float, size: int) -> Array:
        """White matter, a folded cortical band, and dark sulci that open towards the surface."""
        folds, fine = self._folds.at(z, size), self._fine.at(z, size)
        value = self.tissue("white") + self._unit(0.012) * self._texture.at(z, size) + 0 * x
        band = inner - self.cortex - 0.05 * np.abs(folds) + 0.012 * fine
        paint(value, 1 - ramp(band, 0.03), self.tissue("grey"))
        surface = np.clip(1 - inner * np.float32(1 / 0.20), 0, 1)
        midline = np.clip(1 - np.abs(x + 0.012 * fine) * np.float32(1 / 0.035), 0, 1) * (np.abs(y) > 0.30)
        sulci = np.clip(self.sulci * surface * 1.5 - np.abs(folds + 0.25 * fine), 0, 0.35) * np.float32(1 / 0.35)
        paint(value, np.maximum(sulci, midline) * 0.85, self.tissue("fluid"))
        return value

    def _unit(self, fraction: float) -> float:
        """Scale a fraction to soft tissue: 1 in MR, 60 HU in CT."""
        return fraction * (60.0 if self.ct else 1.0)

    def _inside(self, image: Array, x: Array, y: Array, z: float) -> None:
        reach = section(z, 0.42, 0.50)
        if reach <= 0.05:
            return
        window = near(Ellipse(0, 0, 0.36, 0.42), image.shape[0])
        image = image[window]
        third = Ellipse(0, 0.06, 0.018 * self.ventricles * reach, 0.10 * reach)
        shapes = [*self._side(-1.0, reach), *self._side(1.0, reach), third]
        depth = depths(shapes, x[window], y[window])
        paint(image, ramp(np.maximum.reduce(depth[[0, 1, 4, 5]]), 0.04), self.tissue("deep"))
        horns = np.maximum.reduce(depth[[2, 3, 6, 7, 8]])
        paint(image, ramp(horns + 0.035, 0.06) * self.caps, self.tissue("rim"))
        paint(image, ramp(horns, 0.03), self.tissue("fluid"))

    def _side(self, side: float, reach: float) -> list[Ellipse]:
        """Two deep nuclei, then the front and back horns of the ventricle, on one side."""
        size = reach * (1 + side * self.asymmetry)
        horn = size * self.ventricles
        return [
            Ellipse(side * 0.19, -0.02, 0.055 * size, 0.13 * size, -side * 0.25),
            Ellipse(side * 0.27, 0.06, 0.060 * size, 0.15 * size, side * 0.25),
            Ellipse(side * (0.060 + 0.025 * horn), -0.17, 0.042 * horn, 0.17 * horn, side * 0.26),
            Ellipse(side * (0.090 + 0.045 * horn), 0.17, 0.040 * horn, 0.19 * horn, -side * 0.32),
        ]

"""Invented scanners: each turns noise-free slices into stored integers with its own noise, gain and bit depth.

Noise is Gaussian with a correlation length in CT and radiographs and Rician in MR (Gudbjartsson and Patz, Magn Reson
Med 1995: the magnitude of a signal with noise in both channels). Manufacturer and model names do not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from scipy.ndimage import gaussian_filter

from pipeline.dicom.phantom.drawing import Array, Field, grid

PhantomModality = Literal["CT", "MR", "CR", "DX", "US"]
MANUFACTURER = "Nightread Phantoms"
PADDING = -2000


@dataclass(frozen=True, slots=True)
class Scanner:
    """One invented scanner.

    Attributes:
        noise: standard deviation; HU (CT), fraction of white matter's scale (MR), attenuation (CR, DX), or
            brightness (US).
        correlation: width in pixels of the noise's Gaussian kernel; 0 = white.
        gain, offset: stored or physical unit per rendered unit, and the constant added; HU error in CT.
        bias: depth of the coil's sensitivity profile, MR only.
        spread: standard deviation of the point spread function / field of view; 0 = sharp.
        gamma: exponent of the magnitude before the gain, MR only.
        slope, intercept: rescale to HU, CT only (PS3.3 C.11.1).
        colour: whether pixels are stored as RGB, with yellow marks, US only.
        calibrated: whether the file declares its ultrasound region (PS3.3 C.8.5.5), US only.
        padded: whether corners outside the reconstruction circle hold -2000, declared as Pixel Padding Value.
    """

    model: str
    modality: PhantomModality
    noise: float
    correlation: float
    gain: float = 1.0
    offset: float = 0.0
    bias: float = 0.0
    spread: float = 0.0
    gamma: float = 1.0
    bits_stored: int = 12
    signed: bool = False
    slope: float = 1.0
    intercept: float = 0.0
    photometric: Literal["MONOCHROME1", "MONOCHROME2"] = "MONOCHROME2"
    colour: bool = False
    calibrated: bool = True
    padded: bool = False
    kernel: str = ""
    field_of_view_mm: float = 360.0

    @property
    def dtype(self) -> type[np.integer]:
        """Type of a stored pixel."""
        if self.bits_stored <= 8:
            return np.uint8
        return np.int16 if self.signed else np.uint16

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest value that a stored pixel may hold."""
        if self.signed:
            return -(2 ** (self.bits_stored - 1)), 2 ** (self.bits_stored - 1) - 1
        return 0, 2**self.bits_stored - 1


SCANNERS: dict[str, tuple[Scanner, ...]] = {
    "CT": (
        Scanner("Aster 16", "CT", 11.0, 0.8, offset=2.0, intercept=-1024.0, kernel="SOFT", field_of_view_mm=380),
        Scanner("Aster 64", "CT", 8.0, 0.6, offset=-3.0, bits_stored=16, signed=True, padded=True, kernel="STD"),
        Scanner("Borea X", "CT", 14.0, 0.35, offset=5.0, intercept=-1024.0, bits_stored=16, kernel="SHARP"),
        Scanner("Borea Y", "CT", 10.0, 0.7, slope=0.5, intercept=-1024.0, bits_stored=16, kernel="SOFT"),
    ),
    "MR": (
        Scanner("Cirrus 1.5T", "MR", 0.034, 0.5, gain=900.0, bias=0.14, field_of_view_mm=230),
        Scanner("Cirrus 3T", "MR", 0.022, 0.4, gain=1500.0, bias=0.26, field_of_view_mm=220),
        Scanner("Dione 3T", "MR", 0.026, 0.7, gain=420.0, bias=0.22, field_of_view_mm=240),
        Scanner("Dione 1T", "MR", 0.044, 0.6, gain=3000.0, bias=0.10, bits_stored=16, field_of_view_mm=230),
    ),
    "CR": (
        Scanner("Electra CR", "CR", 0.015, 0.7, gain=3300.0, offset=180.0, field_of_view_mm=350),
        Scanner("Electra CR-1", "CR", 0.018, 0.5, gain=3000.0, offset=300.0, photometric="MONOCHROME1"),
        Scanner("Faro C", "CR", 0.012, 0.8, gain=780.0, offset=60.0, bits_stored=10, field_of_view_mm=350),
    ),
    "DX": (
        Scanner("Faro D", "DX", 0.009, 0.5, gain=13000.0, offset=900.0, bits_stored=14, field_of_view_mm=400),
        Scanner("Galene D", "DX", 0.011, 0.6, gain=3000.0, offset=200.0, photometric="MONOCHROME1"),
    ),
    "US": (
        Scanner("Hydra 12", "US", 0.012, 0.4, gain=238.0, bits_stored=8, field_of_view_mm=45),
        Scanner("Hydra 15", "US", 0.008, 0.0, gain=225.0, bits_stored=8, colour=True, field_of_view_mm=40),
        Scanner("Icarus V", "US", 0.016, 0.6, gain=250.0, bits_stored=8, calibrated=False, field_of_view_mm=50),
    ),
}


@lru_cache(maxsize=64)
def _blur(size: int, width: float) -> Array:
    """Matrix [size, size] that correlates white noise along one axis and keeps its variance at one."""
    steps = np.arange(size)
    kernel = np.exp(-0.5 * ((steps[:, None] - steps[None, :]) / max(width, 1e-3)) ** 2)
    return (kernel / np.sqrt((kernel**2).sum(1, keepdims=True))).astype(np.float32)


@lru_cache(maxsize=8)
def _outside_circle(size: int) -> Array:
    x, y = grid(size)
    return x * x + y * y > 1


def correlated_noise(rng: np.random.Generator, size: int, width: float) -> Array:
    """Unit-variance Gaussian noise [size, size] with a Gaussian kernel of `width` pixels."""
    blur = _blur(size, width)
    return blur @ rng.standard_normal((size, size), dtype=np.float32) @ blur.T


@dataclass(frozen=True, slots=True)
class Acquisition:
    """One examination on a scanner; its dose or coil loading is drawn per patient.

    Attributes:
        noise: standard deviation for this patient, in the scanner's unit.
        gain: stored units per rendered unit.
        shading: sensitivity profile of the coil, MR only.
    """

    scanner: Scanner
    noise: float
    gain: float
    shading: Field | None

    @classmethod
    def draw(cls, rng: np.random.Generator, scanner: Scanner, share: float = 1.0) -> Acquisition:
        """Draw noise (`share` of the scanner's, spread 18 %) and gain (spread 8 %, none in CT)."""
        noise, gain = np.exp(rng.standard_normal(2) * (0.18, 0.08)).tolist()
        shading = Field(rng, 4, 2) if scanner.bias else None
        gain = 1.0 if scanner.modality == "CT" else gain
        return cls(scanner, scanner.noise * share * noise, scanner.gain * gain, shading)

    def stored(self, rng: np.random.Generator, image: Array, z: float) -> Array:
        """Add noise and return integers [S, S]: int16 where the scanner stores signed values, uint8 where it stores 8
        bits, else uint16."""
        scanner, size = self.scanner, image.shape[0]
        if scanner.spread:
            image = gaussian_filter(image, scanner.spread * size, mode="nearest")
        noise = self.noise * correlated_noise(rng, size, scanner.correlation)
        values = self._measured(rng, image, noise, z)
        low, high = scanner.limits
        if scanner.photometric == "MONOCHROME1":
            values = high - values
        whole = np.rint(values).clip(low, high).astype(scanner.dtype)
        if scanner.padded:
            whole[_outside_circle(size)] = PADDING
        return whole

    def _measured(self, rng: np.random.Generator, image: Array, noise: Array, z: float) -> Array:
        scanner, size = self.scanner, image.shape[0]
        if scanner.modality == "CT":
            return (image + noise + (scanner.offset - scanner.intercept)) * (1 / scanner.slope)
        if scanner.modality == "US":  # the black around the fan is not a measurement and has no noise
            return np.where(image > 0, np.maximum(self.gain * (image + noise), 1), 0)
        if self.shading is not None:
            profile = 1 + scanner.bias * 0.6 * self.shading.at(z, size)
            other = self.noise * correlated_noise(rng, size, scanner.correlation)
            real = image * profile + noise
            # Magnitude of a complex signal with independent noise in both channels, hence Rician.
            magnitude = np.sqrt(real * real + other * other)
            return self.gain * (magnitude if scanner.gamma == 1 else magnitude**scanner.gamma)
        return self.gain * (image + noise * (0.6 + 0.8 * image)) + scanner.offset

"""Phantoms of an upgraded scanner: the same anatomy, with more noise in its pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from pydicom.uid import ExplicitVRLittleEndian

SHARE = 0.15  # standard deviation of the noise, as a share of that of the pixels


def upgrade_scanner(folder: Path, seed: int) -> None:
    """Write noise into the pixels of every file below a folder, in place."""
    rng = np.random.default_rng(seed)
    for file in sorted(folder.rglob("*.dcm")):
        try:
            ds = pydicom.dcmread(file)
            pixels = ds.pixel_array
        except (pydicom.errors.InvalidDicomError, AttributeError):  # a file that is broken on purpose
            continue
        limits = np.iinfo(pixels.dtype)
        noisy = pixels + rng.normal(0.0, SHARE * float(pixels.std()), pixels.shape)
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.PixelData = noisy.clip(limits.min, limits.max).astype(pixels.dtype).tobytes()
        ds["PixelData"].VR = "OW"
        ds.save_as(file, enforce_file_format=True)

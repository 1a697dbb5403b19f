"""Convert stored values to physical units, and to a picture for display.

A window that a technologist chose for display must never change a CT or MR value. It is applied only to projection
images, whose values mean nothing before it, and to the 8-bit picture for display. Every step is in the history.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.voi import apply_voi, is_inverted, next_voi, voi_step
from pipeline.dicom.decode.waveform import to_physical_signal
from pipeline.types import Step

DISPLAY_PERCENTILES = (0.5, 99.5)
FEWEST_GREYS = 8


@dataclass(frozen=True, slots=True)
class Physical:
    """Frames in physical units.

    Attributes:
        pixels: float32 [F, H, W]: Hounsfield units (CT), the modality's output units, or [0, 1] after a VOI step.
        valid: bool [F, H, W], False where the stored value is padding; None where the file declares none.
        history: the steps from stored values to `pixels`.
        regions: of an ultrasound picture, as `InstanceAttributes.ultrasound_regions`.
        waveforms: of a signal, as `InstanceAttributes.waveforms`.
    """

    pixels: np.ndarray
    valid: np.ndarray | None
    history: tuple[Step, ...]
    regions: tuple[tuple[int, int, int, int], ...] = ()
    waveforms: tuple[tuple[Any, ...], ...] = ()


def to_physical(stored: np.ndarray, attributes: InstanceAttributes) -> Physical:
    """Apply padding, modality LUT or rescale and, for projection modalities, VOI and inversion.

    Args:
        stored: [F, H, W] as returned by `read_instance`, or some of its frames (then with those frames' attributes).
        attributes: of the same instance.

    Source: PS3.3 C.7.5.1.1.2 (padding), C.11.1 (modality), C.11.2 (VOI), C.11.6 (presentation LUT shape); PS3.4 N.2 for
    their order. Padding is compared with stored values, before any table.
    """
    if attributes.waveforms:
        signal, inside, sensitivity = to_physical_signal(stored, attributes.waveforms)
        return Physical(signal, inside, (sensitivity,), waveforms=attributes.waveforms)
    valid = _valid(stored, attributes)
    pixels, step = apply_modality(stored, attributes)
    steps = [step] if step else []
    if attributes.is_projection:
        pixels, presentation = _presentation(pixels, attributes)
        steps += presentation
    if valid is not None:
        limits = [attributes.padding_value, attributes.padding_range_limit]
        steps.insert(0, Step("padding", {"stored_values": limits}))
    return Physical(pixels, valid, tuple(steps), attributes.ultrasound_regions)


def for_display(physical: Physical, attributes: InstanceAttributes) -> np.ndarray:
    """Return the picture that a viewer shows: uint8 [F, H, W], 255 bright, padding 0.

    It uses the first window of the file that shows more than one grey, and 8 or more if there are more to show. Without
    one, it uses the 0.5 to 99.5 % range of the valid pixels of all frames.
    """
    if attributes.is_projection:
        bright = physical.pixels if voi_step(attributes) else _robust(physical)
    else:
        bright = _through_voi(physical, attributes)
        bright = 1.0 - bright if is_inverted(attributes) else bright
    picture = np.rint(np.clip(bright, 0.0, 1.0) * 255.0).astype(np.uint8)
    return picture if physical.valid is None else np.where(physical.valid, picture, np.uint8(0))


def _through_voi(physical: Physical, attributes: InstanceAttributes) -> np.ndarray:
    voi: InstanceAttributes | None = attributes
    while voi is not None and voi_step(voi):
        bright = apply_voi(physical.pixels, voi)
        if not _is_dim(bright, physical):
            return bright
        voi = next_voi(voi)
    return _robust(physical)


def _is_dim(bright: np.ndarray, physical: Physical) -> bool:
    greys = count_greys(bright)
    return greys == 1 or 1 < greys < FEWEST_GREYS <= count_greys(_robust(physical))


def count_greys(bright: np.ndarray) -> int:
    """Return how many of 256 greys a picture in [0, 1] has."""
    return len(np.unique(np.rint(np.clip(bright, 0.0, 1.0) * 255.0).astype(np.uint8)))


def _valid(stored: np.ndarray, attributes: InstanceAttributes) -> np.ndarray | None:
    if attributes.padding_value is None:
        return None
    limit = attributes.padding_range_limit
    low, high = sorted((attributes.padding_value, attributes.padding_value if limit is None else limit))
    return (stored < low) | (stored > high)


def apply_modality(stored: np.ndarray, attributes: InstanceAttributes) -> tuple[np.ndarray, Step | None]:
    """Return float32 [F, H, W], what the modality LUT or rescale makes of stored values, and the step, if any (PS3.3
    C.11.1).
    """
    if attributes.modality_lut is not None:
        table = attributes.modality_lut
        return table.apply(stored), Step("modality-lut", {"first": table.first, "bits": table.bits})
    if not attributes.rescale:
        return stored.astype(np.float32), None
    lines = np.array(attributes.rescale, dtype=np.float64)
    pixels = np.empty(stored.shape, dtype=np.float32)
    # A float32 holds integers exactly only up to 24 bits, so 32-bit values are rescaled in float64.
    exact = np.float64 if stored.dtype.itemsize > 2 else np.float32
    for frame in range(len(stored)):
        slope, intercept = lines[frame % len(lines)]
        pixels[frame] = stored[frame].astype(exact) * exact(slope) + exact(intercept)
    return pixels, Step("rescale", {"slope_intercept": lines.tolist(), "type": attributes.rescale_type})


def _presentation(pixels: np.ndarray, attributes: InstanceAttributes) -> tuple[np.ndarray, list[Step]]:
    steps = [step for step in [voi_step(attributes)] if step]
    low, high = (0.0, 1.0) if steps else _output_range(attributes)
    if steps:
        pixels = apply_voi(pixels, attributes)
    if is_inverted(attributes):
        pixels = np.float32(low + high) - pixels
        steps.append(Step("invert", {"low": low, "high": high}))
    return pixels, steps


def _output_range(attributes: InstanceAttributes) -> tuple[float, float]:
    """Return the declared range of the modality step's output, so that inversion does not depend on the image."""
    if attributes.modality_lut is not None:
        return 0.0, float(2**attributes.modality_lut.bits - 1)
    bits = attributes.bits_stored
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if attributes.pixel_representation else [0, 2**bits - 1])
    slope, intercept = attributes.rescale[0] if attributes.rescale else (1.0, 0.0)
    low, high = np.sort(ends * slope + intercept)
    return float(low), float(high)


def _robust(physical: Physical) -> np.ndarray:
    values = physical.pixels if physical.valid is None else physical.pixels[physical.valid]
    if values.size == 0:
        return np.zeros(physical.pixels.shape, dtype=np.float32)
    low, high = np.percentile(values, DISPLAY_PERCENTILES)
    return (physical.pixels - low) / max(high - low, np.finfo(np.float32).tiny)

"""Normalisation of physical values to the [-1, 1] square that models see, and back; stored in every model artefact.

Statistics come only from the series itself, so a score never depends on the batch around it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.data.images.body import body_mask
from pipeline.data.images.fan import Region
from pipeline.data.images.intensity import (
    AnyRange,
    CTWindow,
    FixedRange,
    MRMedian,
    MRPercentile,
    NormaliserConfig,
    PhysicalPlane,
    RobustRange,
    SeriesRange,
    SignalRange,
    needs_series,
    parse_normaliser,
    require_valid_values,
    series_range,
)
from pipeline.data.images.letterbox import Letterbox
from pipeline.data.images.signal_grid import SignalGrid, to_grid
from pipeline.data.images.ultrasound import Echoes, UltrasoundConfig, prepare
from pipeline.dicom.decode.waveform import Multiplex
from pipeline.errors import ArtefactError, ConfigError, Rejected, RejectionCode
from pipeline.types import Step

__all__ = [
    "CTWindow",
    "FixedRange",
    "MRMedian",
    "MRPercentile",
    "Normalised",
    "Normaliser",
    "NormaliserConfig",
    "Plane",
    "RobustRange",
    "SeriesRange",
    "SignalRange",
    "UltrasoundConfig",
    "parse_normaliser",
    "planes",
]

VERSION = 1  # increase with any change, here or in body, letterbox and intensity, that alters a normalised pixel


@dataclass(frozen=True, slots=True)
class Plane:
    """One physical image: `pixels` float32 [H, W]; `valid` bool [H, W], False = padding, None = all valid; `regions` of
    an ultrasound picture as its file declares them (`InstanceAttributes.ultrasound_regions`); `waveform` of a
    signal, whose rows are channels (`pipeline.dicom.decode.waveform`)."""

    pixels: np.ndarray
    valid: np.ndarray | None = None
    regions: tuple[Region, ...] = ()
    waveform: Multiplex | None = None


def planes(physical: PhysicalPlane) -> Iterator[Plane]:
    """Split a `Physical` of [F, H, W] into its F planes."""
    for frame in range(physical.pixels.shape[0]):
        valid = None if physical.valid is None else physical.valid[frame]
        groups = getattr(physical, "waveforms", ())
        waveform = Multiplex.of(groups[frame]) if groups else None
        yield Plane(physical.pixels[frame], valid, getattr(physical, "regions", ()), waveform)


@dataclass(frozen=True, slots=True)
class Normalised:
    """One image on the model grid: `image` float32 [1, S, S] in [-1, 1], `body` bool [1, S, S], and the step back."""

    image: np.ndarray
    body: np.ndarray
    step: Step


class Normaliser:
    """Physical values to [-1, 1] on a square grid, and back.

    Deterministic. The same object serves training and scoring, and its JSON travels in the model artefact.
    """

    def __init__(self, config: AnyRange) -> None:
        self.config = config

    @property
    def image_size(self) -> int:
        """Edge of the square grid, pixels."""
        return self.config.image_size

    @property
    def needs_series(self) -> bool:
        """Whether all slices of a series are needed to normalise one of them."""
        return needs_series(self.config)

    def series(self, slices: Sequence[PhysicalPlane]) -> list[Normalised]:
        """Normalise all slices of one series, in the given order.

        A single slice without foreground becomes a blank image with an empty body.

        Raises:
            Rejected: non-finite values, no foreground in any slice, or no contrast to estimate a range from.
        """
        estimated = self.estimate(slices)
        items = [self.apply(plane, estimated) for plane in slices]
        self.require_body([bool(item.body.any()) for item in items])
        return items

    def estimate(self, slices: Iterable[PhysicalPlane], total: int | None = None) -> SeriesRange | None:
        """Return the statistics of one series, or None where each slice is normalised alone.

        `total` is the pixel count of all slices; with it, `slices` may be a generator and need not fit into memory.
        """
        if not self.needs_series:
            return None
        if total is None:
            slices = list(slices)
            total = sum(plane.pixels.size for plane in slices)
        return series_range(self.config, (self._echoes(plane) for plane in slices), total)

    def apply(self, plane: PhysicalPlane, estimated: SeriesRange | None = None) -> Normalised:
        """Normalise one slice; `estimated` is the result of `estimate` for its whole series."""
        if estimated is None and self.needs_series:
            raise ConfigError(
                f"{self.config.kind} needs the statistics of the whole series; pass the result of estimate()."
            )
        if isinstance(self.config, SignalRange):
            return self._signal(plane, self.config)
        plane = self._echoes(plane)
        limits = estimated or series_range(self.config, [plane], plane.pixels.size)
        filled = plane.pixels if plane.valid is None else np.where(plane.valid, plane.pixels, np.float32(limits.low))
        box = Letterbox.fit(filled.shape, self.image_size, plane.crop)
        grid = box.place(np.clip(filled, limits.low, limits.high), limits.low)
        # In double precision, so that neither a large offset nor a huge range loses precision.
        image = np.clip((grid.astype(np.float64) - limits.low) / (limits.high - limits.low) * 2 - 1, -1, 1)
        cut = limits.high - limits.low if limits.cut is None else limits.cut
        body = body_mask(filled, plane.valid, box, self.config.body, cut)
        params = {"kind": self.config.kind, "low": limits.low, "high": limits.high, **box.to_json()}
        params |= {} if self.config.ultrasound is None else {"marks": plane.marks}
        return Normalised(image.astype(np.float32)[None], body[None], Step("normalise", params))

    def _signal(self, plane: PhysicalPlane, config: SignalRange) -> Normalised:
        waveform = getattr(plane, "waveform", None)
        image, body, params = to_grid(_plane_pixels(plane), plane.valid, waveform, config)
        return Normalised(image, body, Step("normalise", params))

    def _echoes(self, plane: PhysicalPlane) -> Echoes:
        """Return the checked plane: as it is, or an ultrasound picture without what is not the patient."""
        pixels = _plane_pixels(plane)
        if self.config.ultrasound is None:
            return Echoes(pixels, plane.valid, None, 0)
        return prepare(pixels, plane.valid, getattr(plane, "regions", ()), self.config.ultrasound)

    def require_body(self, has_body: Sequence[bool]) -> None:
        """Raise Rejected(EMPTY_FOREGROUND) if no slice of a series has a body."""
        if has_body and not any(has_body):
            raise Rejected(
                RejectionCode.EMPTY_FOREGROUND,
                f"The rule {self.config.body.method!r} detects no body in any of the {len(has_body)} slices, so the "
                "series is left out. To use it, change the body mask of its route.",
            )

    def invert(self, image: np.ndarray, step: Step) -> np.ndarray:
        """Return native float32 [H, W] in physical units from [S, S] in [-1, 1]; clipping is not undone."""
        low, high = float(step.params["low"]), float(step.params["high"])
        grid = np.asarray(image, dtype=np.float32)
        unit = _place(step).restore(grid, fill=-1.0).astype(np.float64)
        return (low + (unit + 1) / 2 * (high - low)).astype(np.float32)

    def to_native(self, grid: np.ndarray, step: Step) -> np.ndarray:
        """Bring a map [S, S] to the native grid by linear interpolation, without changing its scale; float32 [H, W]."""
        return _place(step).restore(np.asarray(grid, dtype=np.float32))

    def mask_to_native(self, mask: np.ndarray, step: Step) -> np.ndarray:
        """Bring a mask [S, S] to the native grid: True where interpolation gives at least one half."""
        return self.to_native(np.asarray(mask, dtype=np.float32), step) >= 0.5

    def to_json(self) -> dict[str, Any]:
        """Return everything needed to rebuild this normaliser."""
        return {"version": VERSION, "config": self.config.model_dump(mode="json")}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Normaliser:
        """Rebuild from `to_json`; raises ArtefactError for another version, ConfigError for a wrong field."""
        if values.get("version") != VERSION:
            raise ArtefactError(
                f"This normaliser has version {values.get('version')!r}; this Nightread reads only version {VERSION}. "
                "Retrain the model, or use the release that saved it."
            )
        return cls(parse_normaliser(values.get("config", {})))

    def fingerprint(self) -> str:
        """SHA-256 of the JSON; equal fingerprints mean equal normalisation."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def _place(step: Step) -> Letterbox | SignalGrid:
    kind = SignalGrid if step.params.get("kind") == "signal" else Letterbox
    return kind.from_json(step.params)


def _plane_pixels(plane: PhysicalPlane) -> np.ndarray:
    pixels = np.asarray(plane.pixels, dtype=np.float32)
    if pixels.ndim != 2:
        raise ConfigError(
            f"A slice of shape {pixels.shape} was given, but it must be [H, W]. Split frames with planes()."
        )
    if plane.valid is not None and plane.valid.shape != pixels.shape:
        raise ConfigError(
            f"The valid mask has shape {plane.valid.shape}, its image {pixels.shape}; they must be equal."
        )
    require_valid_values(plane)
    return pixels

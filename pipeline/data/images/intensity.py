"""Intensity range that is mapped to [-1, 1]: its kinds, and its estimation from a series' own pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import numpy as np
from pydantic import Field, TypeAdapter, ValidationError, model_validator

from pipeline.config import Config
from pipeline.data.images.body import BodyConfig, foreground_cut
from pipeline.data.images.ultrasound import UltrasoundConfig
from pipeline.dicom.decode.waveform import LEADS
from pipeline.errors import ConfigError, Rejected, RejectionCode

SAMPLE = 2**19  # pixels used for a percentile; larger series are thinned evenly (rank error in the tails < 0.1 %)


MR_BODY = BodyConfig(method="otsu", otsu_factor=0.25, smaller_parts=0.05, closing=0.03)


class PhysicalPlane(Protocol):
    """One physical image: `pixels` float [H, W]; `valid` bool [H, W], False = padding, None = all valid."""

    @property
    def pixels(self) -> np.ndarray:
        """Physical values."""

    @property
    def valid(self) -> np.ndarray | None:
        """Pixels that are not padding."""


@dataclass(frozen=True, slots=True)
class SeriesRange:
    """The values that are mapped to -1 and 1, and the foreground threshold (None if the body mask uses none)."""

    low: float
    high: float
    cut: float | None = None


class _Base(Config):
    image_size: int = Field(64, ge=32, le=256, description="edge of the square model input, pixels")
    ultrasound: UltrasoundConfig | None = Field(
        None, description="steps for ultrasound: crop to the fan, fill callipers and text; null for other modalities"
    )


class CTWindow(_Base):
    """Hounsfield units within a fixed window, the same for every scanner; nothing is estimated."""

    kind: Literal["ct_window"] = "ct_window"
    centre: float = Field(40.0, allow_inf_nan=False, description="window centre, HU")
    width: float = Field(400.0, gt=0, allow_inf_nan=False, description="window width, HU")
    body: BodyConfig = Field(BodyConfig(), description="body mask")

    @property
    def limits(self) -> tuple[float, float]:
        """Ends of the window, HU."""
        return self.centre - self.width / 2, self.centre + self.width / 2


class _Pair(_Base):
    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> _Pair:
        if self.low >= self.high:
            raise ValueError(f"low ({self.low}) must be below high ({self.high})")
        return self

    @property
    def limits(self) -> tuple[float, float]:
        """Both fields, the lower one first."""
        return self.low, self.high


class MRPercentile(_Pair):
    """MR has no unit: two percentiles of the whole series' foreground are mapped to the ends of the range."""

    kind: Literal["mr_percentile"] = "mr_percentile"
    low: float = Field(0.5, ge=0, lt=100, description="lower percentile of the foreground")
    high: float = Field(99.5, gt=0, le=100, description="upper percentile of the foreground")
    body: BodyConfig = Field(
        MR_BODY,
        description="foreground of the statistics, and body mask",
    )


class MRMedian(_Base):
    """MR has no unit: 0 is mapped to -1, and the median of the whole series' foreground to a fixed value.

    A lesion, bright fat or a vessel shifts a percentile near the end of the range, but hardly shifts the median (Nyul
    and Udupa 1999 standardise by landmarks for the same reason; this is the only landmark that needs no population).
    """

    kind: Literal["mr_median"] = "mr_median"
    span: float = Field(4.0, gt=1, le=64, description="value mapped to 1, as a multiple of the foreground's median")
    body: BodyConfig = Field(
        MR_BODY,
        description="foreground of the median, and body mask",
    )


class RobustRange(_Pair):
    """Projection images (CR, DX): two percentiles of each image's own valid pixels are mapped to the ends."""

    kind: Literal["range"] = "range"
    low: float = Field(1.0, ge=0, lt=100, description="lower percentile of the valid pixels")
    high: float = Field(99.0, gt=0, le=100, description="upper percentile of the valid pixels")
    body: BodyConfig = Field(BodyConfig(method="frame"), description="body mask")


class FixedRange(_Pair):
    """Two fixed values: for wrapped 8-bit images, whose intensities were chosen by their authors."""

    kind: Literal["fixed_range"] = "fixed_range"
    low: float = Field(0.0, allow_inf_nan=False, description="value mapped to -1")
    high: float = Field(255.0, allow_inf_nan=False, description="value mapped to 1")
    body: BodyConfig = Field(BodyConfig(threshold=12.0, smaller_parts=0.05, closing=0.03), description="body mask")


class SignalRange(_Pair):
    """Signals such as an ECG: leads in rows of the square, at one rate, two physical values mapped to the ends."""

    kind: Literal["signal"] = "signal"
    image_size: int = Field(128, ge=32, le=256, description="edge of the square that holds the rows, values")
    low: float = Field(-1.5, allow_inf_nan=False, description="value mapped to -1, in `unit`")
    high: float = Field(1.5, allow_inf_nan=False, description="value mapped to 1, in `unit`")
    unit: str = Field("mV", description="unit that every channel must have; empty for samples without one, as of audio")
    leads: tuple[str, ...] = Field(
        LEADS, description="leads of the rows, in this order; (): the channels of the file in theirs"
    )
    features: Literal["samples", "log_mel"] = Field(
        "samples", description="what the rows hold: leads, or the bands of one channel in decibels, both over time"
    )
    level_db: float | None = Field(
        None,
        allow_inf_nan=False,
        description="root mean square to which log_mel first scales a recording; null: as it is",
    )
    rate_hz: float = Field(100.0, gt=0, le=96_000, description="values of a row per second")
    samples: int = Field(1024, ge=32, description="values of a row; the square holds image_size^2 / samples rows")
    shortest: float = Field(0.5, gt=0, le=1, description="share of a row that a recording must at least fill")
    detrend_hz: float = Field(0.5, ge=0, description="high pass that removes the wandering of the baseline; 0: none")
    body: BodyConfig = Field(BodyConfig(method="frame"), description="not used: the whole recording is the body")

    @property
    def rows(self) -> int:
        """Rows of the square."""
        return self.image_size**2 // self.samples

    @model_validator(mode="after")
    def _fills_the_square(self) -> SignalRange:
        if self.features == "log_mel" and len(self.leads) > 1:
            raise ValueError("log_mel reads one channel: name one lead, or none for the first channel of the file")
        if self.image_size**2 % self.samples or self.rows < max(len(self.leads), 1):
            raise ValueError(
                f"{len(self.leads)} rows of {self.samples} values do not fit a square of {self.image_size}: samples "
                "must divide image_size^2, into at least as many rows as there are leads"
            )
        return self


AnyRange = CTWindow | MRPercentile | MRMedian | RobustRange | FixedRange | SignalRange
NormaliserConfig = Annotated[AnyRange, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[AnyRange] = TypeAdapter(NormaliserConfig)


def parse_normaliser(values: Mapping[str, Any]) -> AnyRange:
    """Return the configuration that `values["kind"]` names; raises ConfigError with the invalid fields."""
    try:
        return _ADAPTER.validate_python(dict(values))
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'kind'}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"The normaliser configuration is not valid: {faults}. Correct these fields.") from None


def needs_series(config: AnyRange) -> bool:
    """Whether statistics are estimated over all slices of a series; projection images are estimated one by one."""
    if isinstance(config, RobustRange):
        return False
    return isinstance(config, (MRPercentile, MRMedian)) or config.body.method == "otsu"


def series_range(config: AnyRange, planes: Iterable[PhysicalPlane], total: int) -> SeriesRange:
    """Return the range of the given planes: of a series, or of one image for `range`. Their order does not matter.

    `total` is the number of pixels of all planes; knowing it allows planes to be read one by one.

    Raises:
        Rejected: non-finite values, only padding, no foreground, or no contrast to estimate a range from.
    """
    if isinstance(config, (CTWindow, FixedRange, SignalRange)) and config.body.method != "otsu":
        return SeriesRange(*config.limits, _fixed_cut(config.body))
    values = _sample(planes, total)
    cut = _cut(values, config.body)
    if isinstance(config, (CTWindow, FixedRange, SignalRange)):
        return SeriesRange(*config.limits, cut)
    if isinstance(config, (MRPercentile, MRMedian)) and cut is not None:
        values = _above(values, cut)
    if isinstance(config, MRMedian):
        return _median_range(values, config, cut)
    return _percentiles(values, config, cut)


def require_valid_values(plane: PhysicalPlane) -> np.ndarray:
    """Return the valid pixels, flat float32; raises Rejected(NON_FINITE) where one is NaN or infinite."""
    pixels = np.asarray(plane.pixels, dtype=np.float32)
    values = pixels.ravel() if plane.valid is None else pixels[plane.valid]
    if not np.isfinite(values).all():
        bad = int(values.size - np.isfinite(values).sum())
        raise Rejected(
            RejectionCode.NON_FINITE,
            f"{bad} of {values.size} pixels outside the declared padding are NaN or infinite, but all must be finite. "
            "Correct the source, or declare these pixels as padding.",
        )
    return values


def _sample(planes: Iterable[PhysicalPlane], total: int) -> np.ndarray:
    stride = -(-total // SAMPLE) | 1  # odd, so that it never walks down the columns of an even-sized image
    parts = [require_valid_values(plane)[::stride].copy() for plane in planes]
    values = np.concatenate(parts) if parts else np.empty(0, np.float32)
    if values.size == 0:
        raise Rejected(
            RejectionCode.EMPTY_FOREGROUND,
            "Every pixel is declared padding, so the series is left out. No action is needed.",
        )
    return values


def _fixed_cut(body: BodyConfig) -> float | None:
    return body.threshold if body.method == "threshold" else None


def _cut(values: np.ndarray, body: BodyConfig) -> float | None:
    if body.method != "otsu":
        return _fixed_cut(body)
    return foreground_cut(values, body.otsu_factor)


def _above(values: np.ndarray, cut: float) -> np.ndarray:
    foreground = values[values > cut]
    if foreground.size == 0:
        raise Rejected(
            RejectionCode.EMPTY_FOREGROUND,
            f"No pixel of the series is above the foreground threshold of {cut:g}; the brightest "
            f"is {float(values.max()):g}. Lower that threshold to use the series; otherwise it is left out.",
        )
    return foreground


def _percentiles(values: np.ndarray, config: MRPercentile | RobustRange, cut: float | None) -> SeriesRange:
    low, high = (float(v) for v in np.percentile(values, config.limits))
    if not high > low:
        raise Rejected(
            RejectionCode.NO_CONTRAST,
            f"The percentiles {config.low:g} and {config.high:g} are both {low:g}: the image is constant there, so no "
            "range can be estimated. Use a fixed range; otherwise the series is left out.",
        )
    return SeriesRange(low, high, cut)


def _median_range(values: np.ndarray, config: MRMedian, cut: float | None) -> SeriesRange:
    median = float(np.median(values))
    if not median > 0:
        raise Rejected(
            RejectionCode.NO_CONTRAST,
            f"The median of the foreground is {median:g}, but it must be above 0 to scale the image. Use "
            "mr_percentile, or a fixed range.",
        )
    return SeriesRange(0.0, config.span * median, cut)

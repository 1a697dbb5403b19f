"""Signals on the square grid that models see: leads in rows, one after another, each resampled to one rate.

A grid of S x S holds S * S / `samples` rows of `samples` values, in reading order: row r of the signal is the values
r * samples to (r + 1) * samples of the flattened square. So a signal travels like an image through cache, training,
residual, calibration and reading list, and a method that is made for signals reads the square back as
[rows, samples] (`fold`, `unfold`). Rows without a lead, time beyond the recording, padding and flat leads are not body.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from pipeline.data.images.log_mel import log_mel
from pipeline.dicom.decode.waveform import Multiplex
from pipeline.errors import Rejected, RejectionCode

if TYPE_CHECKING:
    from pipeline.data.images.intensity import SignalRange

TINY = 1e-9
Grid = tuple[np.ndarray, np.ndarray, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class SignalGrid:
    """Placement of a recording [channels, samples] on a [size, size] grid.

    Attributes:
        native: (channels, samples) of the recording as stored.
        native_hz, rate_hz: samples per second, as recorded and on the grid.
        size: edge of the square grid.
        samples: values of a row.
        channels: place of each channel in the recording, as they lie on the grid.
        bands: rows of a channel: 1, or those of its spectrogram.
        length: values of a row that the recording fills.
    """

    native: tuple[int, int]
    native_hz: float
    rate_hz: float
    size: int
    samples: int
    channels: tuple[int, ...]
    length: int
    bands: int = 1

    def restore(self, grid: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """Bring values [size, size] to the recording's own samples linearly; float32 [channels, samples].

        Channels and times that are not on the grid are 0, whatever `fill` says, which is for images. Of a spectrogram
        it is the mean over the bands.
        """
        rows = grid.reshape(-1, self.samples)[: len(self.channels) * self.bands]
        rows = rows.reshape(len(self.channels), self.bands, self.samples).mean(axis=1)
        times = np.arange(self.native[1]) * (self.rate_hz / self.native_hz)
        native = np.zeros(self.native, np.float32)
        inside = times <= self.length - 1
        for row, channel in enumerate(self.channels):
            native[channel, inside] = np.interp(times[inside], np.arange(self.length), rows[row, : self.length])
        return native

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "native": list(self.native),
            "native_hz": self.native_hz,
            "rate_hz": self.rate_hz,
            "size": self.size,
            "samples": self.samples,
            "channels": list(self.channels),
            "length": self.length,
            "bands": self.bands,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> SignalGrid:
        """Rebuild from `to_json`; other keys are ignored."""
        numbers = (values["native_hz"], values["rate_hz"], values["size"], values["samples"])
        rows, columns = values["native"]
        return cls((rows, columns), *numbers, tuple(values["channels"]), values["length"], values["bands"])


def to_grid(pixels: np.ndarray, valid: np.ndarray | None, waveform: Multiplex | None, config: SignalRange) -> Grid:
    """Return image float32 [1, S, S] in [-1, 1], body bool [1, S, S], and the parameters of the way back.

    Args:
        pixels: physical values [channels, samples].
        valid: False where the recording is padding.
        waveform: what the channels are.
        config: of the normaliser.

    Raises:
        Rejected: NO_UNIT, MISSING_LEADS, SIGNAL_TOO_SHORT or EMPTY_FOREGROUND.
    """
    if waveform is None:
        raise _refused(RejectionCode.NO_SAMPLING_FREQUENCY, "The series is an image, and this route reads signals.")
    channels = find_channels(waveform, config)
    signal = pixels[list(channels), : waveform.samples].astype(np.float64)
    inside = np.ones(signal.shape, bool) if valid is None else valid[list(channels), : waveform.samples]
    rows = _rows(signal, inside, waveform.rate_hz, config)
    length = min(rows.shape[1], config.samples)
    if length < config.shortest * config.samples:
        raise _refused(
            RejectionCode.SIGNAL_TOO_SHORT,
            f"The recording takes {waveform.samples / waveform.rate_hz:.2f} s, and this route needs at least "
            f"{config.shortest * config.samples / config.rate_hz:.2f} s.",
        )
    grid = SignalGrid(
        (pixels.shape[0], pixels.shape[1]), waveform.rate_hz, config.rate_hz, config.image_size, config.samples,
        channels, length, len(rows) // len(channels),
    )  # fmt: skip
    image, body = _placed(rows, _covered(inside, signal, rows.shape[1]), grid, config)
    if not body.any():
        raise _refused(RejectionCode.EMPTY_FOREGROUND, "Every lead is flat or padding.")
    return image[None], body[None], {"kind": config.kind, "low": config.low, "high": config.high, **grid.to_json()}


def find_channels(waveform: Multiplex, config: SignalRange) -> tuple[int, ...]:
    """Return the place of each lead of the configuration in the recording; without leads, its first channels.

    Raises:
        Rejected: NO_UNIT, a channel has another unit or none; MISSING_LEADS, the recording lacks a lead.
    """
    names = waveform.names
    missing = [lead for lead in config.leads if lead not in names]
    if missing:
        raise _refused(
            RejectionCode.MISSING_LEADS,
            f"The recording lacks the leads {', '.join(missing)}, which this route reads.",
        )
    channels = tuple(names.index(lead) for lead in config.leads) or tuple(
        range(min(len(names), config.rows if config.features == "samples" else 1))
    )
    units = {waveform.channels[channel].unit for channel in channels}
    if units != {config.unit}:
        named = ", ".join(sorted(unit or "none" for unit in units))
        raise _refused(
            RejectionCode.NO_UNIT,
            f"The unit of the channels is {named}, and this route reads {config.unit or 'channels without a unit'}.",
        )
    return channels


def _refused(code: RejectionCode, sentence: str) -> Rejected:
    return Rejected(code, f"{sentence} The series is left out. Correct it at its source, or add a route for it.")


def _rows(signal: np.ndarray, inside: np.ndarray, rate_hz: float, config: SignalRange) -> np.ndarray:
    """Return the rows of the square at their rate: leads, or bands of the first channel."""
    if config.features == "samples":
        return resample_signal(_without_trend(signal, inside, rate_hz, config), rate_hz, config.rate_hz)
    sound = np.where(inside, signal, 0.0)[0]
    if config.level_db is not None:
        sound = sound * 10 ** (config.level_db / 20) / max(float(np.sqrt(np.mean(sound**2))), TINY)
    return log_mel(sound, rate_hz, config.rate_hz, config.rows)


def _without_trend(signal: np.ndarray, inside: np.ndarray, rate_hz: float, config: SignalRange) -> np.ndarray:
    """Return the signal without its baseline: median removed, then a high pass without delay."""
    filled = np.where(inside, signal, 0.0)
    level = np.array([np.median(row[ok]) if ok.any() else 0.0 for row, ok in zip(signal, inside, strict=True)])
    centred = np.where(inside, filled - level[:, None], 0.0)
    if not config.detrend_hz or signal.shape[1] < 32:
        return centred
    from scipy.signal import butter, sosfiltfilt

    return sosfiltfilt(butter(2, config.detrend_hz, "highpass", fs=rate_hz, output="sos"), centred, axis=1)


def resample_signal(signal: np.ndarray, native_hz: float, rate_hz: float) -> np.ndarray:
    """Return a signal [channels, samples] at another rate, band-limited where that is lower (polyphase)."""
    ratio = Fraction(rate_hz / native_hz).limit_denominator(2000)
    if ratio == 1:
        return signal
    from scipy.signal import resample_poly

    return cast(np.ndarray, resample_poly(signal, ratio.numerator, ratio.denominator, axis=1, padtype="line"))


def _covered(inside: np.ndarray, signal: np.ndarray, length: int) -> np.ndarray:
    """Return which resampled values rest on samples that are neither padding nor of a flat lead: bool [rows, N]."""
    nearest = np.minimum(np.arange(length) * signal.shape[1] // max(length, 1), signal.shape[1] - 1)
    alive = np.array([np.ptp(row[ok]) > 0 if ok.any() else False for row, ok in zip(signal, inside, strict=True)])
    return inside[:, nearest] & alive[:, None]


def _placed(
    rows: np.ndarray, covered: np.ndarray, grid: SignalGrid, config: SignalRange
) -> tuple[np.ndarray, np.ndarray]:
    image = np.zeros((config.rows, config.samples))
    body = np.zeros(image.shape, bool)
    shape = slice(len(rows)), slice(grid.length)
    image[shape] = np.clip((rows[:, : grid.length] - config.low) / (config.high - config.low) * 2 - 1, -1, 1)
    body[shape] = covered[:, : grid.length]
    empty = 0.0 if config.features == "samples" else config.low
    image[~body] = np.clip((empty - config.low) / (config.high - config.low) * 2 - 1, -1, 1)
    square = (grid.size, grid.size)
    return image.astype(np.float32).reshape(square), body.reshape(square)

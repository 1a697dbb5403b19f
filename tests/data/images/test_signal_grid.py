"""Signals on the square: rates, rows and the way back in closed form; what cannot be read is refused with its code."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.images.normalise import Normaliser, Plane, SignalRange
from pipeline.dicom.decode.waveform import Channel, Multiplex
from pipeline.errors import ConfigError, Rejected, RejectionCode

CONFIG = SignalRange(image_size=32, leads=("I", "II"), rate_hz=100.0, samples=256, low=-2.0, high=2.0, detrend_hz=0.0)


def _plane(signal: np.ndarray, rate_hz: float, names: tuple[str, ...] = ("II", "I"), unit: str = "mV") -> Plane:
    channels = tuple(Channel(name, unit, 1.0, 0.0) for name in names)
    return Plane(signal.astype(np.float32), None, (), Multiplex(rate_hz, signal.shape[1], channels))


def _waves(rate_hz: float, seconds: float = 3.0) -> np.ndarray:
    times = np.arange(round(rate_hz * seconds)) / rate_hz
    return np.stack([np.sin(2 * np.pi * 5 * times), np.cos(2 * np.pi * 3 * times)])


@pytest.mark.parametrize("rate_hz", [100.0, 250.0, 500.0, 1000.0, 360.0])
def test_a_wave_is_the_same_wave_at_any_rate(rate_hz: float) -> None:
    item = Normaliser(CONFIG).apply(_plane(_waves(rate_hz), rate_hz))
    rows = item.image.reshape(4, 256) * 2
    times = np.arange(256) / 100.0
    inner = slice(20, 236)
    assert np.abs(rows[0] - np.cos(2 * np.pi * 3 * times))[inner].max() < 0.02  # I comes second in the file
    assert np.abs(rows[1] - np.sin(2 * np.pi * 5 * times))[inner].max() < 0.02
    assert (rows[2:] == 0).all()
    assert item.body.reshape(4, 256)[:2].all()
    assert not item.body.reshape(4, 256)[2:].any()


@pytest.mark.parametrize("rate_hz", [100.0, 500.0])
def test_the_way_back_gives_millivolts_at_the_recordings_own_samples(rate_hz: float) -> None:
    normaliser, signal = Normaliser(CONFIG), _waves(rate_hz)
    item = normaliser.apply(_plane(signal, rate_hz))
    again = normaliser.invert(item.image[0], item.step)
    assert again.shape == signal.shape
    inner = slice(int(0.2 * rate_hz), int(2.3 * rate_hz))
    assert np.abs(again - signal)[:, inner].max() < 0.05
    assert (normaliser.mask_to_native(item.body[0], item.step)[:, : int(2.5 * rate_hz)]).all()
    assert not normaliser.mask_to_native(item.body[0], item.step)[:, int(2.6 * rate_hz) :].any()


def test_a_short_recording_and_padding_and_flat_leads_are_not_body() -> None:
    signal = _waves(100.0, 2.0)
    signal[0] = 0.25  # lead II is off
    body = Normaliser(CONFIG).apply(_plane(signal, 100.0)).body.reshape(4, 256)
    assert body[0].sum() == 200
    assert not body[1].any()


def test_a_wandering_baseline_is_removed_and_the_wave_is_not() -> None:
    times = np.arange(3000) / 1000.0
    wave = np.sin(2 * np.pi * 8 * times)
    config = CONFIG.model_copy(update={"detrend_hz": 0.5, "leads": ("II",)})
    item = Normaliser(config).apply(_plane((wave + 1 + 0.3 * times)[None], 1000.0, ("II",)))
    row = item.image.reshape(4, 256)[0] * 2
    assert np.abs(row - wave[::10][:256])[80:180].max() < 0.05


@pytest.mark.parametrize(
    ("plane", "code"),
    [
        (_plane(_waves(100.0), 100.0, ("II", "V1")), RejectionCode.MISSING_LEADS),
        (_plane(_waves(100.0), 100.0, unit=""), RejectionCode.NO_UNIT),
        (_plane(_waves(100.0, 1.0), 100.0), RejectionCode.SIGNAL_TOO_SHORT),
        (_plane(np.zeros((2, 300)), 100.0), RejectionCode.EMPTY_FOREGROUND),
        (_plane(np.full((2, 300), np.nan), 100.0), RejectionCode.NON_FINITE),
        (Plane(np.zeros((40, 40), np.float32)), RejectionCode.NO_SAMPLING_FREQUENCY),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_code(plane: Plane, code: RejectionCode) -> None:
    with pytest.raises(Rejected) as caught:
        Normaliser(CONFIG).apply(plane)
    assert caught.value.code is code


@pytest.mark.parametrize("samples", [100, 2048])
def test_rows_must_fill_the_square(samples: int) -> None:
    with pytest.raises(ValueError, match="rows"):
        SignalRange(image_size=32, leads=("I",), samples=samples)


def test_the_normaliser_travels_as_json() -> None:
    normaliser = Normaliser(CONFIG)
    again = Normaliser.from_json(normaliser.to_json())
    assert again.fingerprint() == normaliser.fingerprint()
    with pytest.raises(ConfigError):
        Normaliser.from_json({"version": 1, "config": {"kind": "signal", "samples": 7}})

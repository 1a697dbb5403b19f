"""Log-mel: a tone's level and band are known."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.data.images.log_mel import hertz_to_mel, log_mel, mel_bands, mel_to_hertz
from pipeline.data.images.normalise import Normaliser, Plane, SignalRange
from pipeline.dicom.decode.waveform import Channel, Multiplex


def test_a_tone_has_its_level_and_band() -> None:
    times = np.arange(16000) / 16000
    spectrum = log_mel(0.1 * np.sin(2 * np.pi * 1000 * times), 16000, 100, 40)
    assert spectrum.shape == (40, 100)
    middle = spectrum[:, 20:80]
    centres = mel_to_hertz(np.linspace(hertz_to_mel(60.0), hertz_to_mel(8000.0), 42))[1:-1]
    assert set(middle.argmax(axis=0)) == {int(np.abs(centres - 1000).argmin())}
    assert middle.max() == pytest.approx(20 * np.log10(0.1), abs=3)  # the window spreads a tone over a few bins
    quieter = log_mel(0.01 * np.sin(2 * np.pi * 1000 * times), 16000, 100, 40)[:, 20:80]
    assert np.abs(middle.max(axis=0) - quieter.max(axis=0) - 20).max() < 0.01


def test_bands_cover_every_bin_between_their_ends_once() -> None:
    bands = mel_bands(32, 512, 16000.0)
    centres = np.fft.rfftfreq(512, 1 / 16000)
    inside = (centres > 200) & (centres < 7000)
    assert np.allclose(bands.sum(axis=0)[inside], 1)


def test_a_recording_becomes_bands_at_one_level() -> None:
    config = SignalRange(
        features="log_mel", image_size=64, leads=(), unit="", rate_hz=100, samples=128, level_db=-25, low=-85, high=-20
    )
    rng = np.random.default_rng(0)
    sound = rng.normal(0, 0.1, 20480).astype(np.float32)
    waveform = Multiplex(16000.0, 20480, (Channel("", "", 1 / 2**15, 0.0),))
    loud, soft = (Normaliser(config).apply(Plane(sound[None] * level, None, (), waveform)) for level in (1.0, 0.1))
    assert np.allclose(loud.image, soft.image, atol=1e-4)
    assert loud.body.all()
    back = Normaliser(config).to_native(np.ones((64, 64)), loud.step)
    assert back.shape == (1, 20480)
    assert np.allclose(back[0, :20000], 1)

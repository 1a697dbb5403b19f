"""Log-mel spectrogram of audio: what the ear resolves, as rows of bands over time."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

WINDOW_SECONDS = 0.025
LOWEST_HZ = 60.0
FLOOR = 1e-10  # power relative to full scale: -100 dB


def log_mel(sound: np.ndarray, rate_hz: float, frames_hz: float, bands: int) -> np.ndarray:
    """Return the power of each band and frame in decibels relative to full scale: float64 [bands, frames].

    Hann windows of 25 ms, centred on the frames, which begin at time 0; the sound is continued by zeros.

    Args:
        sound: [samples].
        rate_hz: samples per second.
        frames_hz: frames per second.
        bands: triangles, equally wide on the mel scale from 60 Hz to half the rate.
    """
    width = round(WINDOW_SECONDS * rate_hz)
    size = 1 << (width - 1).bit_length()
    count = int(len(sound) * frames_hz / rate_hz)
    starts = np.rint(np.arange(count) * rate_hz / frames_hz).astype(int)
    padded = np.pad(sound, (width // 2, width))
    frames = padded[starts[:, None] + np.arange(width)] * np.hanning(width)
    power = np.abs(np.fft.rfft(frames, size)) ** 2 / (np.hanning(width).sum() / 2) ** 2
    return 10 * np.log10(np.maximum(mel_bands(bands, size, rate_hz) @ power.T, FLOOR))


@lru_cache(maxsize=8)
def mel_bands(bands: int, size: int, rate_hz: float) -> np.ndarray:
    """Return triangular filters [bands, size // 2 + 1] over the bins of a Fourier transform of `size` values."""
    edges = mel_to_hertz(np.linspace(hertz_to_mel(LOWEST_HZ), hertz_to_mel(rate_hz / 2), bands + 2))
    bins = np.fft.rfftfreq(size, 1 / rate_hz)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    return np.maximum(np.minimum(rising, falling), 0.0)


def hertz_to_mel(hertz: float | np.ndarray) -> np.ndarray:
    """Return mels (O'Shaughnessy 1987)."""
    return 2595.0 * np.log10(1.0 + np.asarray(hertz) / 700.0)


def mel_to_hertz(mels: np.ndarray) -> np.ndarray:
    """Return the frequency of mels."""
    return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)

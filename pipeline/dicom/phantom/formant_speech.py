"""Invented speech of known phonemes and speakers: a source and resonators at the formants.

Klatt 1980 (J Acoust Soc Am 67:971): glottal pulses or noise pass through resonators in cascade, whose frequencies move
from phoneme to phoneme. Formants of vowels are the means of Peterson and Barney 1952 for men; a speaker has a length of
the vocal tract, which scales all of them, an accent, which shifts each, a pitch, a breath, a level and a pace, and
speaks into a microphone in a room with noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

RATE_HZ = 16_000
FRAME = 80  # samples: the resonators change every 5 ms
SMOOTHING = 4  # frames: standard deviation of the movement from one phoneme to the next
ACCENT = 0.07  # standard deviation of the logarithm of the factors on a speaker's own formants


@dataclass(frozen=True, slots=True)
class Phoneme:
    """Formants in Hz, their bandwidths, and how strongly the voice and the noise sound."""

    name: str
    formants: tuple[float, float, float]
    bandwidths: tuple[float, float, float] = (60.0, 90.0, 150.0)
    voice: float = 1.0
    noise: float = 0.0
    noise_hz: float = 5000.0
    noise_width: float = 2000.0


VOWELS = tuple(
    Phoneme(name, formants)
    for name, formants in {
        "i": (270.0, 2290.0, 3010.0),
        "e": (530.0, 1840.0, 2480.0),
        "ae": (660.0, 1720.0, 2410.0),
        "a": (730.0, 1090.0, 2440.0),
        "o": (570.0, 840.0, 2410.0),
        "u": (300.0, 870.0, 2240.0),
    }.items()
)
CONSONANTS = (
    Phoneme("m", (250.0, 1100.0, 2200.0), (90.0, 200.0, 300.0), voice=0.5),
    Phoneme("n", (250.0, 1700.0, 2600.0), (90.0, 200.0, 300.0), voice=0.5),
    Phoneme("s", (320.0, 1700.0, 2600.0), voice=0.0, noise=0.35, noise_hz=5600.0, noise_width=1600.0),
    Phoneme("sh", (320.0, 1800.0, 2600.0), voice=0.0, noise=0.40, noise_hz=3000.0, noise_width=900.0),
    Phoneme("f", (320.0, 1200.0, 2400.0), voice=0.0, noise=0.12, noise_hz=6500.0, noise_width=5000.0),
    Phoneme("z", (320.0, 1700.0, 2600.0), voice=0.45, noise=0.18, noise_hz=5600.0, noise_width=1600.0),
)
PHONEMES = {one.name: one for one in (*VOWELS, *CONSONANTS)}


@dataclass(frozen=True, slots=True)
class Speaker:
    """An invented voice.

    Attributes:
        pitch_hz: mean frequency of the glottal pulses.
        tract: factor on all formants; 1 is a man's, 1.17 a woman's.
        breath: noise in the voice.
        pace: seconds of a phoneme.
        level: root mean square of an utterance, full scale 1.
        tilt_db: what the microphone adds per octave above 1 kHz.
        noise_db: level of the noise of the room below the speech.
        accent: factors on the formants of each phoneme.
    """

    name: str
    pitch_hz: float
    tract: float
    breath: float
    pace: float
    level: float
    tilt_db: float = 0.0
    noise_db: float = 60.0
    accent: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Utterance:
    """Speech with its truth: `sound` float64 [samples] in [-1, 1], and (phoneme, first, last) in samples."""

    speaker: Speaker
    sound: np.ndarray
    spoken: tuple[tuple[str, int, int], ...]


def make_speaker(seed: int) -> Speaker:
    """Return the voice of a seed: the even ones low, the odd ones high."""
    rng = np.random.default_rng([seed, 11])
    high = seed % 2
    return Speaker(
        name=f"S{seed:03d}",
        pitch_hz=float(rng.uniform(95, 135) + high * rng.uniform(75, 100)),
        tract=float(rng.uniform(0.92, 1.05) + high * rng.uniform(0.10, 0.20)),
        breath=float(rng.uniform(0.01, 0.06)),
        pace=float(rng.uniform(0.11, 0.15)),
        level=float(rng.uniform(0.04, 0.12)),
        tilt_db=float(rng.uniform(-5, 5)),
        noise_db=float(rng.uniform(15, 35)),
        accent={name: _triple(np.exp(rng.normal(0, ACCENT, 3))) for name in PHONEMES},
    )


def random_words(rng: np.random.Generator, count: int) -> tuple[str, ...]:
    """Return phonemes, consonants and vowels in turn, none twice in a row."""
    chosen: list[str] = []
    for place in range(count):
        group = VOWELS if place % 2 else CONSONANTS
        names = [one.name for one in group if one.name not in chosen[-2:]]
        chosen.append(names[int(rng.integers(len(names)))])
    return tuple(chosen)


def speak(speaker: Speaker, names: tuple[str, ...], seed: int) -> Utterance:
    """Return an utterance of phonemes by a speaker; equal arguments give equal samples."""
    rng = np.random.default_rng([seed, 13])
    frames = np.maximum(np.rint(speaker.pace * RATE_HZ / FRAME * np.exp(rng.normal(0, 0.12, len(names)))), 6).astype(
        int
    )
    ends = np.cumsum(frames) * FRAME
    spoken = tuple(zip(names, (int(end) for end in np.r_[0, ends[:-1]]), (int(end) for end in ends), strict=True))
    tracks = _tracks(speaker, names, frames)
    sound = _through(_voice(speaker, tracks, rng) + _friction(tracks, rng), speaker.tilt_db)
    sound *= speaker.level * float(np.exp(rng.normal(0, 0.1))) / max(float(np.sqrt(np.mean(sound**2))), 1e-9)
    sound += rng.normal(0, speaker.level * 10 ** (-speaker.noise_db / 20), len(sound))
    return Utterance(speaker, np.clip(sound, -0.999, 0.999), spoken)


def _tracks(speaker: Speaker, names: tuple[str, ...], frames: np.ndarray) -> dict[str, np.ndarray]:
    """Return every parameter per frame, smoothed: the articulators do not jump."""
    from scipy.ndimage import gaussian_filter1d

    def track(values: list[float]) -> np.ndarray:
        return gaussian_filter1d(np.repeat(np.asarray(values, dtype=np.float64), frames), SMOOTHING, mode="nearest")

    phonemes = [PHONEMES[name] for name in names]
    own = [speaker.accent.get(one.name, (1.0, 1.0, 1.0)) for one in phonemes]
    tracks = {
        f"f{n}": track([one.formants[n] * speaker.tract * k[n] for one, k in zip(phonemes, own, strict=True)])
        for n in range(3)
    }
    tracks |= {f"b{n}": track([one.bandwidths[n] for one in phonemes]) for n in range(3)}
    tracks |= {"voice": track([one.voice for one in phonemes]), "noise": track([one.noise for one in phonemes])}
    tracks["noise_hz"] = track([one.noise_hz * (1 + (speaker.tract - 1) / 2) for one in phonemes])
    tracks["noise_width"] = track([one.noise_width for one in phonemes])
    return tracks


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    one, two, three = values.tolist()
    return one, two, three


def _through(sound: np.ndarray, tilt_db: float) -> np.ndarray:
    """Return sound as a microphone hears it: so many decibels per octave above 1 kHz."""
    octaves = np.log2(np.maximum(np.fft.rfftfreq(len(sound), 1 / RATE_HZ) / 1000, 1.0))
    return np.fft.irfft(np.fft.rfft(sound) * 10 ** (tilt_db * octaves / 20), len(sound))


def resonator(frequency_hz: float, bandwidth_hz: float) -> np.ndarray:
    """Return Klatt's resonator (eq. 1, 2) as one second-order section, with a gain of 1 at 0 Hz."""
    radius = np.exp(-np.pi * bandwidth_hz / RATE_HZ)
    c, b = -(radius**2), 2 * radius * np.cos(2 * np.pi * frequency_hz / RATE_HZ)
    return np.array([1 - b - c, 0.0, 0.0, 1.0, -b, -c])


def glottal_pulses(pitch_hz: np.ndarray) -> np.ndarray:
    """Return the derivative of Rosenberg's pulse (1971, open for 0.6 of a period) for a pitch per sample."""
    phase = np.cumsum(pitch_hz / RATE_HZ) % 1.0
    rising = (phase < 0.4) * np.sin(np.pi * phase / 0.4)
    closing = ((phase >= 0.4) & (phase < 0.6)) * -np.sin(np.pi * (phase - 0.4) / 0.4) * 2
    return rising + closing


def _voice(speaker: Speaker, tracks: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    count = len(tracks["f0"]) * FRAME
    times = np.arange(count) / RATE_HZ
    contour = 1 + 0.06 * np.sin(2 * np.pi * rng.uniform(0.5, 1.5) * times + rng.uniform(0, 6)) - 0.08 * times
    pulses = glottal_pulses(speaker.pitch_hz * contour * (1 + rng.normal(0, 0.004, count)))
    source = (pulses + speaker.breath * rng.normal(0, 1, count)) * np.repeat(tracks["voice"], FRAME)
    fourth = resonator(min(3500.0 * speaker.tract, 7000.0), 250.0)
    sections = [
        np.stack([*(resonator(tracks[f"f{n}"][place], tracks[f"b{n}"][place]) for n in range(3)), fourth])
        for place in range(len(tracks["f0"]))
    ]
    return _filtered(source, sections)


def _friction(tracks: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    count = len(tracks["noise"]) * FRAME
    source = rng.normal(0, 1, count) * np.repeat(tracks["noise"], FRAME)
    sections = []
    for hertz, width in zip(tracks["noise_hz"], tracks["noise_width"], strict=True):
        section = resonator(hertz, width)
        section[:3] = (0.5, 0.0, -0.5)  # zeros at 0 Hz and at half the rate: a band, not a low pass
        sections.append(section[None])
    return _filtered(source, sections)


def _filtered(source: np.ndarray, sections: list[np.ndarray]) -> np.ndarray:
    """Filter frame by frame, each with its own sections, keeping the state."""
    from scipy.signal import sosfilt

    state, out = np.zeros((len(sections[0]), 2)), np.empty_like(source)
    for place, own in enumerate(sections):
        part = slice(place * FRAME, (place + 1) * FRAME)
        out[part], state = sosfilt(own, source[part], zi=state)
    return out

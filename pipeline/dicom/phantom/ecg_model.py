"""Invented electrocardiograms of twelve leads with known beats, rhythm and lesion.

Every wave is a Gaussian bump in time, as in the model of McSharry et al. 2003 (IEEE Trans Biomed Eng 50:289, eq. 1),
here integrated for each beat alone. The bumps move the heart's dipole (Sameni et al. 2007, three coordinates), which
Dower's matrix (1980) projects on the leads, so that a lesion has its place: an anterior one shows in V1 to V4. Beat
distances have the two spectral peaks of McSharry's eq. 2. Noise is added to the ten electrodes, never to a lead, so
that lead I + III = II holds as in a patient.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

# Rows I, II, V1 to V6; columns x (to the left), y (to the feet), z (to the back).
DOWER = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ]
)
SECONDS = 10.0
_LF, _HF, _SPREAD = 0.1, 0.25, 0.01  # Hz, McSharry eq. 2: Mayer waves and breathing
QRS = frozenset({"Q", "R", "S"})


class EcgKind(StrEnum):
    """What a recording shows; everything but SINUS is a lesion."""

    SINUS = "sinus"
    FIBRILLATION = "atrial-fibrillation"
    ST_ELEVATION = "st-elevation"
    BUNDLE_BRANCH = "bundle-branch-block"
    PREMATURE = "premature-ventricular-beats"


LESIONS = tuple(kind for kind in EcgKind if kind is not EcgKind.SINUS)


@dataclass(frozen=True, slots=True)
class Wave:
    """One Gaussian bump of a beat: seconds after the R peak, standard deviation in seconds, dipole in millivolts."""

    name: str
    at: float
    width: float
    dipole: tuple[float, float, float]


NORMAL = (
    Wave("P", -0.160, 0.022, (0.06, 0.12, -0.02)),
    Wave("Q", -0.028, 0.009, (-0.12, 0.05, -0.15)),
    Wave("R", 0.0, 0.012, (1.00, 0.70, 0.25)),
    Wave("S", 0.030, 0.011, (-0.20, -0.15, 0.45)),
    Wave("T", 0.250, 0.045, (0.30, 0.25, -0.10)),
)
PREMATURE = (Wave("R", 0.02, 0.034, (-0.9, 1.1, -0.6)), Wave("T", 0.27, 0.06, (0.45, -0.5, 0.3)))
# Where an infarct lies: the dipole of the raised segment.
INJURY = {"anterior": (0.10, 0.0, -0.22), "inferior": (-0.05, 0.25, 0.05), "lateral": (0.25, 0.02, 0.03)}


@dataclass(frozen=True, slots=True)
class Beat:
    """One beat: the time of its R peak in seconds, the distance to the next one, and whether it came too early."""

    at: float
    distance: float
    premature: bool = False


@dataclass(frozen=True, slots=True)
class Electrocardiograph:
    """An invented recorder: samples per second, microvolts per stored unit, and noise of an electrode in millivolts."""

    model: str
    rate_hz: int
    microvolts: float
    noise: float
    wander: float


RECORDERS = (
    Electrocardiograph("Halcyon E1", 500, 2.5, 0.010, 0.05),
    Electrocardiograph("Halcyon E2", 1000, 1.0, 0.014, 0.08),
    Electrocardiograph("Iris C", 250, 4.88, 0.008, 0.04),
)


@dataclass(frozen=True, slots=True)
class PhantomEcg:
    """One recording.

    Attributes:
        stored: int16 [12, samples]; times `recorder.microvolts` it is the potential.
        clean: millivolts [12, samples] before noise and rounding.
        beats: every beat whose R peak is in the recording.
        lesion: bool [samples], True where the lesion shows.
    """

    seed: int
    kind: EcgKind
    grade: int
    recorder: Electrocardiograph
    stored: np.ndarray
    clean: np.ndarray
    beats: tuple[Beat, ...]
    lesion: np.ndarray
    age: int
    sex: str


def make_ecg(seed: int, kind: EcgKind = EcgKind.SINUS, grade: int = 2, seconds: float = SECONDS) -> PhantomEcg:
    """Return the recording of one invented person; equal arguments give equal samples.

    The person, the recorder and the noise depend on the seed alone, so that a person can be recorded with and without
    a lesion.

    Args:
        seed: of the person.
        kind: rhythm or lesion.
        grade: 1 (faint) to 3.
        seconds: length.
    """
    person, noise, disease = (np.random.default_rng([seed, part]) for part in range(3))
    recorder = RECORDERS[seed % len(RECORDERS)]
    age, sex = int(person.integers(25, 86)), "FM"[int(person.integers(2))]
    waves, rest = _individual(person), float(person.uniform(0.68, 1.05))
    beats = _beats(person, disease, rest, kind, grade, seconds)
    if kind is EcgKind.BUNDLE_BRANCH:
        waves = widen(waves, 1.35 + 0.3 * grade)
    injury = INJURY[list(INJURY)[int(disease.integers(len(INJURY)))]]
    times = np.arange(round(seconds * recorder.rate_hz)) / recorder.rate_hz
    dipole = np.zeros((3, len(times)))
    for beat in beats:
        _add(dipole, times, beat, _waves_of(beat, waves, kind, grade, injury))
    if kind is EcgKind.FIBRILLATION:
        dipole += _fibrillation(disease, times, grade)
    potentials = to_electrodes(DOWER @ dipole)
    recorded = to_leads(potentials + _noise(noise, times, recorder))
    stored = np.clip(np.rint(recorded * 1000 / recorder.microvolts), -32767, 32767).astype(np.int16)
    inside = tuple(beat for beat in beats if 0 <= beat.at < seconds)
    lesion = _lesion(times, beats, kind)
    return PhantomEcg(seed, kind, grade, recorder, stored, to_leads(potentials), inside, lesion, age, sex)


def _individual(rng: np.random.Generator) -> tuple[Wave, ...]:
    """Return a person's own waves: sizes, widths, and one rotation of the heart."""
    turn, tilt = rng.normal(0, 0.22, 2)
    frontal = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    level = np.array([[np.cos(tilt), 0, -np.sin(tilt)], [0, 1, 0], [np.sin(tilt), 0, np.cos(tilt)]])
    own = []
    for wave in NORMAL:
        size, width = np.exp(rng.normal(0, (0.18, 0.08)))
        x, y, z = frontal @ level @ np.array(wave.dipole) * size
        own.append(Wave(wave.name, wave.at, wave.width * float(width), (float(x), float(y), float(z))))
    return tuple(own)


def widen(waves: tuple[Wave, ...], times: float) -> tuple[Wave, ...]:
    """Return the beat of a blocked left bundle: QRS waves so many times as wide and late, T against them."""
    changed = []
    for wave in waves:
        x, y, z = wave.dipole
        if wave.name in QRS:
            changed.append(Wave(wave.name, wave.at * times, wave.width * times, (x, y, z + 0.25 * (wave.name == "R"))))
        elif wave.name == "T":
            changed.append(Wave("T", wave.at + 0.03, wave.width, (-0.8 * x, -0.8 * y, -0.8 * z)))
        else:
            changed.append(wave)
    return tuple(changed)


def heart_rate_series(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return frequencies, amplitudes and phases of a series of unit variance with peaks at 0.1 and 0.25 Hz."""
    frequencies = np.arange(0.01, 0.5, 0.005)
    power = np.exp(-((frequencies - _LF) ** 2) / (2 * _SPREAD**2)) * 0.5
    power += np.exp(-((frequencies - _HF) ** 2) / (2 * _SPREAD**2))
    return frequencies, np.sqrt(2 * power / power.sum()), rng.uniform(0, 2 * np.pi, len(frequencies))


def _beats(
    person: np.random.Generator, disease: np.random.Generator, rest: float, kind: EcgKind, grade: int, seconds: float
) -> list[Beat]:
    frequencies, sizes, phases = heart_rate_series(person)
    beats: list[Beat] = []
    now, early = -1.0 + float(person.uniform(0, 0.6)), False
    while now < seconds + 1.0:
        distance = rest + 0.035 * float(np.sum(sizes * np.cos(2 * np.pi * frequencies * now + phases)))
        if kind is EcgKind.FIBRILLATION:
            distance = 0.8 * rest * float(np.exp(disease.normal(0, 0.08 + 0.06 * grade)))
        premature, early = early, False
        if premature:
            distance *= 1.35  # the pause that compensates
        elif kind is EcgKind.PREMATURE and len(beats) > 1 and disease.random() < 0.10 + 0.08 * grade:
            distance, early = 0.62 * distance, True
        beats.append(Beat(now, distance, premature))
        now += distance
    return _with_one(beats, seconds) if kind is EcgKind.PREMATURE else beats


def _with_one(beats: list[Beat], seconds: float) -> list[Beat]:
    """Return the beats with at least one premature beat well within the recording."""
    if any(beat.premature and 0.3 < beat.at < seconds - 0.6 for beat in beats):
        return beats
    place = next(n for n, beat in enumerate(beats) if beat.at > seconds / 2)
    before, beat = beats[place - 1], beats[place]
    early = 0.38 * before.distance
    beats[place - 1] = Beat(before.at, before.distance - early)
    beats[place] = Beat(beat.at - early, beat.distance + early, True)
    return beats


def _waves_of(
    beat: Beat, waves: tuple[Wave, ...], kind: EcgKind, grade: int, injury: tuple[float, float, float]
) -> tuple[Wave, ...]:
    if beat.premature:
        return PREMATURE
    if kind is EcgKind.FIBRILLATION:
        return tuple(wave for wave in waves if wave.name != "P")
    if kind is EcgKind.ST_ELEVATION:
        x, y, z = (0.5 * grade * value for value in injury)
        return (*waves, Wave("ST", 0.115, 0.042, (x, y, z)))
    return waves


def _add(dipole: np.ndarray, times: np.ndarray, beat: Beat, waves: tuple[Wave, ...]) -> None:
    """Add a beat; its T wave follows the root of the distance to the next beat (Bazett), its P wave precedes it."""
    for wave in waves:
        stretch = np.sqrt(beat.distance) if wave.name == "T" else 1.0
        bump = np.exp(-((times - beat.at - wave.at * stretch) ** 2) / (2 * (wave.width * stretch) ** 2))
        dipole += np.array(wave.dipole)[:, None] * bump


def _fibrillation(rng: np.random.Generator, times: np.ndarray, grade: int) -> np.ndarray:
    """Return the small waves of fibrillating atria, 4 to 9 Hz, strongest in V1: [3, samples]."""
    wave = np.zeros_like(times)
    for _ in range(6):
        wave += np.cos(2 * np.pi * rng.uniform(4, 9) * times + rng.uniform(0, 2 * np.pi)) / np.sqrt(3)
    return np.array([0.01, 0.03, -0.04])[:, None] * wave * (0.5 + 0.4 * grade)


def _lesion(times: np.ndarray, beats: list[Beat], kind: EcgKind) -> np.ndarray:
    """Return where the lesion shows: between which seconds after a beat's R peak."""
    if kind is EcgKind.SINUS:
        return np.zeros(len(times), dtype=bool)
    if kind is EcgKind.FIBRILLATION:
        return np.ones(len(times), dtype=bool)
    first, last = {EcgKind.ST_ELEVATION: (0.05, 0.2), EcgKind.BUNDLE_BRANCH: (-0.08, 0.4)}.get(kind, (-0.1, 0.42))
    shows = np.zeros(len(times), dtype=bool)
    for beat in beats:
        if beat.premature or kind is not EcgKind.PREMATURE:
            shows |= (times >= beat.at + first) & (times < beat.at + last)
    return shows


def to_electrodes(eight: np.ndarray) -> np.ndarray:
    """Return nine electrodes (RA, LA, LL, V1 to V6) from leads I, II, V1 to V6; the right arm is the reference."""
    one, two = eight[0], eight[1]
    wilson = (one + two) / 3
    return np.stack([np.zeros_like(one), one, two, *(lead + wilson for lead in eight[2:])])


def to_leads(electrodes: np.ndarray) -> np.ndarray:
    """Return the twelve leads from nine electrodes: Einthoven, Goldberger, and Wilson's central terminal."""
    right, left, foot = electrodes[:3]
    limbs = [left - right, foot - right, foot - left]
    augmented = [right - (left + foot) / 2, left - (right + foot) / 2, foot - (right + left) / 2]
    return np.stack([*limbs, *augmented, *(electrodes[3:] - (right + left + foot) / 3)])


def _noise(rng: np.random.Generator, times: np.ndarray, recorder: Electrocardiograph) -> np.ndarray:
    """Return muscle noise, breathing and mains of nine electrodes, millivolts."""
    muscle = rng.normal(0, recorder.noise, (9, len(times)))
    breath = np.sin(2 * np.pi * rng.uniform(0.15, 0.33, (9, 1)) * times + rng.uniform(0, 2 * np.pi, (9, 1)))
    mains = np.sin(2 * np.pi * 50 * times + rng.uniform(0, 2 * np.pi, (9, 1)))
    return muscle + recorder.wander * rng.uniform(0.2, 1, (9, 1)) * breath + 0.004 * rng.random((9, 1)) * mains

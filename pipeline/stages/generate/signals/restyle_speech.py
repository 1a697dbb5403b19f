"""Conversion between speakers: does an utterance in another's style sound like them, and say the same?

Two linear classifiers judge, both taught by real recordings alone: who speaks, by the frames of an utterance
without the means of their phonemes, and which phoneme a frame is. Their answers about real recordings are
the most that can be reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from pipeline.errors import EmptySelection
from pipeline.methods.vq_vae import VectorQuantisedAutoencoder
from pipeline.stages.generate.signals.signal_units import rows_of


@dataclass(frozen=True, slots=True)
class Conversion:
    """One way of conversion: shares of utterances that sound like the target, and of frames that say the same."""

    name: str
    like_target: float
    same_phoneme: float


@dataclass(frozen=True, slots=True)
class Voices:
    """Recordings of several speakers: squares [N, 1, S, S], the speaker of each, and the phoneme of each frame."""

    images: Tensor
    speakers: Sequence[str]
    units: Sequence[Sequence[str]]
    samples: int
    rows: int

    @property
    def frames(self) -> np.ndarray:
        """Frames [N, samples, rows]."""
        return rows_of(self.images, self.samples, self.rows)


def judge_conversion(method: VectorQuantisedAutoencoder, voices: Voices, seed: int) -> list[Conversion]:
    """Convert half of each speaker's utterances to another speaker, and judge them beside nothing and shifted means.

    Raises:
        EmptySelection: fewer than two speakers have two utterances.
    """
    rng, by_speaker = np.random.default_rng(seed), _by_speaker(voices.speakers)
    if len(by_speaker) < 2:
        raise EmptySelection("Conversion needs two speakers with two utterances each. Add recordings.")
    taught = [place for places in by_speaker.values() for place in places[::2]]
    tried = [place for places in by_speaker.values() for place in places[1::2]]
    models = {place: _choose(rng, by_speaker, voices.speakers[place]) for place in tried}
    frames, spoken = voices.frames, _spoken(voices)
    judges = _Judges.fit(frames[taught], [voices.speakers[n] for n in taught], [voices.units[n] for n in taught])
    sources, targets = voices.images[tried], voices.images[[models[place] for place in tried]]
    level = [_mean(frames[n], spoken[n]) - _mean(frames[models[n]], spoken[models[n]]) for n in tried]
    restyled = rows_of(method.restyle(sources, targets).cpu(), voices.samples, voices.rows)
    again = rows_of(method.restyle(sources, sources).cpu(), voices.samples, voices.rows)
    answers = {
        "nothing": frames[tried],
        "shifted means": frames[tried] - np.stack(level)[:, None],
        f"{method.config.name} with style": restyled,
    }
    expected = [voices.speakers[models[n]] for n in tried]
    units, own = [voices.units[n] for n in tried], [voices.speakers[n] for n in tried]
    inside = [spoken[n] for n in tried]
    rows = [_row(name, judges, answer, expected, units, inside) for name, answer in answers.items()]
    floor = _row(f"{method.config.name}, own style", judges, again, own, units, inside)
    return [*rows, floor, _row("real, as themselves", judges, frames[tried], own, units, inside)]


def _by_speaker(speakers: Sequence[str]) -> dict[str, list[int]]:
    places = {name: [n for n, one in enumerate(speakers) if one == name] for name in sorted(set(speakers))}
    return {name: own for name, own in places.items() if len(own) > 1}


def _choose(rng: np.random.Generator, by_speaker: Mapping[str, Sequence[int]], own: str) -> int:
    others = [name for name in by_speaker if name != own]
    places = by_speaker[others[int(rng.integers(len(others)))]]
    return int(places[int(rng.integers(len(places)))])


def _spoken(voices: Voices) -> list[np.ndarray]:
    return [np.array([bool(unit) for unit in units]) for units in voices.units]


def _mean(frames: np.ndarray, inside: np.ndarray) -> np.ndarray:
    return frames[inside].mean(axis=0)


@dataclass(frozen=True, slots=True)
class _Judges:
    """Classifiers of real frames: the speaker of a frame without the mean of its phoneme, and its phoneme."""

    speaker: Any
    phoneme: Any
    means: Mapping[str, np.ndarray]

    @classmethod
    def fit(cls, frames: np.ndarray, speakers: Sequence[str], units: Sequence[Sequence[str]]) -> _Judges:
        """Fit both (LDA) on frames [T, D] of utterances, their speakers, and the phoneme of each frame, "" for none."""
        from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

        inside = [np.array([bool(unit) for unit in row]) for row in units]
        rows = np.concatenate([row[ok] for row, ok in zip(frames, inside, strict=True)])
        names = np.array([unit for row in units for unit in row if unit])
        owners = np.repeat(speakers, [int(ok.sum()) for ok in inside])
        means = {name: rows[names == name].mean(axis=0) for name in sorted(set(names))}
        around = np.concatenate([_context(row)[ok] for row, ok in zip(frames, inside, strict=True)])
        judges = [LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto") for _ in range(2)]
        left = rows - np.stack([means[name] for name in names])
        return cls(judges[0].fit(left, owners), judges[1].fit(around, names), means)

    def name_speaker(self, frames: np.ndarray, units: Sequence[str]) -> str:
        """Return the likeliest speaker of an utterance [T, D] whose phonemes are given: all of its frames vote."""
        places = [place for place, unit in enumerate(units) if unit in self.means]
        left = np.stack([frames[place] - self.means[units[place]] for place in places])
        return str(self.speaker.classes_[self.speaker.predict_log_proba(left).mean(axis=0).argmax()])


def _context(frames: np.ndarray) -> np.ndarray:
    """Return each frame [T, D] without the recording's mean, with its neighbours at 2 frames' distance: [T, 3 D]."""
    centred = frames - frames.mean(axis=0)
    return np.concatenate([np.roll(centred, shift, axis=0) for shift in (-2, 0, 2)], axis=1)


def _row(
    name: str, judges: _Judges, frames: np.ndarray, expected: Sequence[str], units: Sequence[Sequence[str]],
    inside: Sequence[np.ndarray],
) -> Conversion:  # fmt: skip
    heard = [judges.name_speaker(row, own) for row, own in zip(frames, units, strict=True)]
    rows = np.concatenate([_context(row)[ok] for row, ok in zip(frames, inside, strict=True)])
    said = judges.phoneme.predict(rows)
    truth = np.array([unit for row in units for unit in row if unit])
    return Conversion(name, float(np.mean(np.array(heard) == np.array(expected))), float(np.mean(said == truth)))

"""Quality of discrete units: how much they cost, how many are in use, and how well they agree with phonemes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class UnitQuality:
    """Figures of one way to write recordings in units.

    Attributes:
        bits_per_second: entropy of the units times units per second (ZeroSpeech 2019, section 2.3).
        perplexity: 2 to the entropy: units in use, as if equally.
        purity: share of frames whose phoneme is the most frequent one of their unit.
        speaker_share: information of the units about the speaker, as a share of the speakers' entropy.
    """

    bits_per_second: float
    perplexity: float
    purity: float
    speaker_share: float


def measure_units(units: np.ndarray, truth: Sequence[str], speakers: Sequence[str], rate_hz: float) -> UnitQuality:
    """Measure units [frames] against the phoneme and the speaker of each frame; a frame without a phoneme has "".

    Purity flatters many units: compare at equal bits per second.
    """
    spoken = np.array([bool(name) for name in truth])
    bits = entropy_bits(units)
    table = cross_table(units[spoken], [name for name in truth if name])
    by_speaker = cross_table(units, speakers)
    whole = entropy_bits(np.unique(speakers, return_inverse=True)[1])
    return UnitQuality(
        bits * rate_hz, 2**bits, float(table.max(axis=1).sum() / max(table.sum(), 1)),
        mutual_bits(by_speaker) / whole if whole else 0.0,
    )  # fmt: skip


def entropy_bits(values: np.ndarray) -> float:
    """Return the entropy of whole numbers, bits per value."""
    share = np.unique(values, return_counts=True)[1] / max(len(values), 1)
    return float(-(share * np.log2(share)).sum())


def cross_table(units: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return how often each unit (row) goes with each name (column)."""
    rows, columns = np.unique(units, return_inverse=True)[1], np.unique(names, return_inverse=True)[1]
    if not len(rows):
        return np.zeros((1, 1))
    table = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(table, (rows, columns), 1)
    return table


def mutual_bits(table: np.ndarray) -> float:
    """Return the mutual information of a table of counts, bits."""
    joint = table / table.sum()
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    inside = joint > 0
    return float((joint[inside] * np.log2(joint[inside] / apart[inside])).sum())

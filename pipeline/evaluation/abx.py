"""ABX: does a representation of speech tell phonemes apart across speakers? The test of the ZeroSpeech challenges.

A and B are two phonemes of one speaker, X is the phoneme of A by another speaker. An error is an X that is nearer to B
(Schatz et al. 2013; half an error where both are equally near). Distances are angles between frames, averaged along the
best alignment in time (dynamic time warping), so a representation needs no labels and no training to be tested.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.errors import EmptySelection
from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.real_images import codes_of


@dataclass(frozen=True, slots=True)
class Spoken:
    """One stretch of a recording: its phoneme and its speaker."""

    unit: str
    speaker: str


@dataclass(frozen=True, slots=True)
class Triple:
    """Places of A, B and X among the stretches."""

    a: int
    b: int
    x: int


def draw_triples(spoken: Sequence[Spoken], count: int, seed: int) -> list[Triple]:
    """Return up to `count` triples, evenly over the ordered pairs of phonemes and drawn within them.

    Raises:
        EmptySelection: no speaker says two phonemes of which another speaker says one.
    """
    rng, said = np.random.default_rng(seed), defaultdict(list)
    for place, one in enumerate(spoken):
        said[one.speaker, one.unit].append(place)
    units, speakers = (sorted({getattr(one, name) for one in spoken}) for name in ("unit", "speaker"))
    triples: list[Triple] = []
    pairs = [(a, b) for a in units for b in units if a != b]
    for turn in range(count):
        a, b = pairs[turn % len(pairs)] if pairs else ("", "")
        own = [name for name in speakers if said[name, a] and said[name, b]]
        if not own:
            continue
        speaker = own[int(rng.integers(len(own)))]
        others = [name for name in speakers if name != speaker and said[name, a]]
        if others:
            other = others[int(rng.integers(len(others)))]
            triples.append(Triple(*(int(rng.choice(said[key])) for key in ((speaker, a), (speaker, b), (other, a)))))
    if not triples:
        raise EmptySelection(
            f"{len(spoken)} stretches of {len(speakers)} speakers make no ABX triple: two speakers must share a "
            "phoneme, and one of them must say another. Add recordings, or their truth."
        )
    return triples


def abx_error(frames: Sequence[np.ndarray], spoken: Sequence[Spoken], triples: Sequence[Triple]) -> Estimate:
    """Return the share of triples that a representation gets wrong, with its interval over the speakers of X.

    Args:
        frames: [time, D] of each stretch, at least one frame long.
        spoken: what it is.
        triples: of `draw_triples`.
    """
    wrong = np.array([_wrong(frames[one.a], frames[one.b], frames[one.x]) for one in triples])
    owners = codes_of([spoken[one.x].speaker for one in triples])
    sums, counts = np.bincount(owners, wrong), np.bincount(owners)
    bootstrap = PatientBootstrap.draw(np.zeros(len(counts), int), EvaluationConfig())
    sampled = bootstrap.sample(lambda weights: ((weights @ sums) / (weights @ counts))[:, None], len(counts))
    return bootstrap.estimates(sampled)[0]


def _wrong(a: np.ndarray, b: np.ndarray, x: np.ndarray) -> float:
    near, far = warped_angle(a, x), warped_angle(b, x)
    return 0.5 if abs(near - far) < 1e-9 else float(near > far)


def warped_angle(one: np.ndarray, other: np.ndarray) -> float:
    """Return the mean angle, as a share of a half turn, along the cheapest alignment of [T, D] and [U, D]."""
    lengths = [np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12) for part in (one, other)]
    cost = np.arccos(np.clip((one / lengths[0]) @ (other / lengths[1]).T, -1, 1)) / np.pi
    total, steps = np.full((len(one) + 1, len(other) + 1), np.inf), np.zeros((len(one) + 1, len(other) + 1))
    total[0, 0] = 0.0
    for i in range(1, len(one) + 1):
        for j in range(1, len(other) + 1):
            before = min((i - 1, j - 1), (i - 1, j), (i, j - 1), key=lambda place: total[place])
            total[i, j] = total[before] + cost[i - 1, j - 1]
            steps[i, j] = steps[before] + 1
    return float(total[-1, -1] / steps[-1, -1])

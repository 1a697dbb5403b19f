"""Mutual information gap: whether each factor of variation has a dimension of the code of its own.

Chen, Li, Grosse and Duvenaud, "Isolating sources of disentanglement in variational autoencoders", arXiv:1802.04942,
section 4. Deviation: codes are binned into equal parts of their range, as Locatello et al. (arXiv:1811.12359, appendix
C) do, where the paper integrates over q(z|x).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.errors import ConfigError

BINS = 20
Numbers = np.ndarray


@dataclass(frozen=True, slots=True)
class InformationGap:
    """MIG, the mean over the factors of the gap of each, all from 0 to 1; `dimension` says which one knows a factor."""

    gap: float
    of_factor: dict[str, float]
    dimension: dict[str, int]


def mutual_information_gap(codes: Numbers, factors: Mapping[str, Numbers], bins: int = BINS) -> InformationGap:
    """Return the mean over factors v of (I(z_j; v) - I(z_k; v)) / H(v), j and k the two dimensions that know most of v.

    1 if each factor is encoded in one dimension alone and completely; 0 if two dimensions know it equally well. With N
    images the binned estimate of I is about bins * levels / (2 N) nats too high, in all dimensions alike.

    Args:
        codes: [N, D] means of q(z|x), D at least 2.
        factors: the true value of each image, [N] whole numbers from 0, two or more of which occur.
        bins: equal parts of a dimension's range.

    Raises:
        ConfigError: fewer than two dimensions, or a factor that does not fit the codes or has one value only.
    """
    if codes.ndim != 2 or codes.shape[1] < 2:
        raise ConfigError(f"A gap needs codes [N, D] of at least 2 dimensions, not {list(codes.shape)}.")
    binned = np.stack([_binned(column, bins) for column in codes.T])
    gaps, dimension = {}, {}
    for name, values in factors.items():
        if len(values) != len(codes) or len(np.unique(values)) < 2:
            raise ConfigError(
                f"The factor {name} has {len(values)} values, {len(np.unique(values))} of them different, for "
                f"{len(codes)} codes. Give each image a value, and leave out factors that do not vary."
            )
        shared = np.array([_mutual_information(column, values) for column in binned])
        second, first = np.sort(shared)[-2:]
        gaps[name] = float((first - second) / _mutual_information(values, values))
        dimension[name] = int(shared.argmax())
    return InformationGap(float(np.mean(list(gaps.values()))), gaps, dimension)


def _binned(column: Numbers, bins: int) -> Numbers:
    edges = np.linspace(column.min(), column.max(), bins + 1)[1:-1]
    return np.digitize(column, edges)


def _mutual_information(a: Numbers, b: Numbers) -> float:
    """Return I(a; b) of two columns of whole numbers in nats; I(a; a) is the entropy."""
    joint = np.zeros((int(a.max()) + 1, int(b.max()) + 1))
    np.add.at(joint, (a.astype(int), b.astype(int)), 1 / len(a))
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    present = joint > 0
    return float((joint[present] * np.log(joint[present] / independent[present])).sum())

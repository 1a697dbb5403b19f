"""Attribution of a change: two-sample tests of every attribute and statistic, before against after a likely change.

Numbers: Kolmogorov-Smirnov and Cramer-von Mises (the smaller p-value, doubled); words, such as a scanner's name or a
protocol: the chi-squared statistic under permutations. Holm's correction is over all streams (Scandinavian Journal of
Statistics 1979, 6:65). The tests explain an alarm that another test has raised; they raise none themselves, since the
moment of the change was chosen with the same data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import stats

LEAST = 8  # scans on each side
PERMUTATIONS = 999


@dataclass(frozen=True, slots=True)
class Moved:
    """One stream before and after: its p-value, corrected over all streams, and what it was and is."""

    stream: str
    p_value: float
    corrected: float
    before: str
    after: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def sentence(self) -> str:
        """Return the change in words."""
        return f"{self.stream}: {self.before} before, {self.after} after (corrected p {self.corrected:.2g})."


def attribute(
    before: Mapping[str, Sequence[Any]], after: Mapping[str, Sequence[Any]], alpha: float = 0.05, seed: int = 0
) -> list[Moved]:
    """Return the streams that differ at a family-wise level, smallest p-value first.

    Args:
        before, after: values by stream, numbers or words; streams with fewer than 8 values on a side are left out.
        alpha: family-wise error rate over the streams.
        seed: of the permutations.
    """
    rng = np.random.default_rng(seed)
    tested: list[Moved] = []
    for stream in sorted(before.keys() & after.keys()):
        old, new = list(before[stream]), list(after[stream])
        if min(len(old), len(new)) < LEAST or len({*map(str, old), *map(str, new)}) < 2:
            continue
        numeric = all(isinstance(value, (int, float)) for value in (*old, *new))
        p_value = _of_numbers(old, new) if numeric else _of_words(list(map(str, old)), list(map(str, new)), rng)
        tested.append(Moved(stream, p_value, 1.0, _describe(old, numeric), _describe(new, numeric)))
    corrected = holm([one.p_value for one in tested])
    moved = [
        Moved(one.stream, one.p_value, p, one.before, one.after)
        for one, p in zip(tested, corrected, strict=True)
        if p <= alpha
    ]
    return sorted(moved, key=lambda one: (one.corrected, one.p_value, one.stream))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that are corrected for their number by Holm's step-down method, in the same order."""
    order, worst, corrected = np.argsort(p_values), 0.0, [0.0] * len(p_values)
    for rank, place in enumerate(order.tolist()):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = worst
    return corrected


def _of_numbers(old: Sequence[float], new: Sequence[float]) -> float:
    p_values = (stats.ks_2samp(old, new).pvalue, stats.cramervonmises_2samp(old, new).pvalue)
    return float(min(1.0, 2 * min(p_values)))


def _of_words(old: Sequence[str], new: Sequence[str], rng: np.random.Generator) -> float:
    """Return the p-value of the chi-squared statistic under permutations, at least 1/1000."""
    codes = np.unique([*old, *new], return_inverse=True)[1]
    draws = np.stack([codes, *(rng.permutation(codes) for _ in range(PERMUTATIONS))])
    one_hot = draws[:, : len(old), None] == np.arange(codes.max() + 1)
    counts, total = one_hot.sum(axis=1), np.bincount(codes)
    expected = total * len(old) / len(codes)
    statistic = ((counts - expected) ** 2 / (expected * (1 - len(old) / len(codes)))).sum(axis=1)
    return float((statistic >= statistic[0] - 1e-9).mean())


def _describe(values: Sequence[Any], numeric: bool) -> str:
    if numeric:
        return f"median {np.median(values):.4g}"
    word, count = Counter(map(str, values)).most_common(1)[0]
    return f"{word or 'empty'} in {count / len(values):.0%}"

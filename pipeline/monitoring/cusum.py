"""Two-sided CUSUM of standard normal values, with the run lengths that it promises.

S+ <- max(0, S+ + z - k) and S- <- max(0, S- - z - k) signal above h (Page, Biometrika 1954, 41:100). `h` follows from
the stated number of scans between false alarms (ARL0), and the expected delay of a shift is printed beside it: the
statement of the FDA's AIM-CU tool. Run lengths come from Brook and Evans' Markov chain (Biometrika 1972, 59:539).

The values are `norm.isf(p)` of sequential p-values (`pipeline.monitoring.sequential_ranks`). So they are exactly
standard normal while nothing changes, whatever the statistic's distribution, and ARL0 needs no reference period.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

CELLS = 200
LARGEST = 20.0  # h


@dataclass(frozen=True, slots=True)
class Chart:
    """A CUSUM: its constants and its promise.

    Attributes:
        k: allowance, half the shift that it is tuned for, in standard deviations.
        h: level of the signal.
        arl0: scans between two false alarms, on average.
    """

    k: float
    h: float
    arl0: float

    @classmethod
    def design(cls, arl0: float, k: float) -> Chart:
        """Return the chart with a stated number of scans between false alarms."""
        return cls(k, solve_level(arl0, k), arl0)

    def delay(self, shift: float) -> float:
        """Return the scans until a lasting shift of so many standard deviations is signalled, on average.

        It counts from a sum of 0 and against a long history; with a short one the delay is longer.
        """
        return run_length(self.k, self.h, shift)

    def signals(self, z: np.ndarray) -> list[int]:
        """Return the indices of the signals in values [N]; both sums begin again at 0 after each."""
        up = down = 0.0
        places = []
        for place, value in enumerate(z.tolist()):
            up, down = max(0.0, up + value - self.k), max(0.0, down - value - self.k)
            if up > self.h or down > self.h:
                places.append(place)
                up = down = 0.0
        return places

    def statement(self, shift: float) -> str:
        """Return what the chart promises, in one sentence."""
        return (
            f"CUSUM (k {self.k:g}, h {self.h:.2f}): one false alarm in {self.arl0:,.0f} scans on average; a shift of "
            f"{shift:g} standard deviations is signalled after {self.delay(shift):.0f} scans on average."
        )


def run_length(k: float, h: float, shift: float = 0.0) -> float:
    """Return the mean number of values up to a signal of the two-sided chart, from sums of 0.

    The two sides signal independently in the formula 1/ARL = 1/ARL+ + 1/ARL- (Kemp, Journal of the Royal Statistical
    Society B 1961, 23:149), exact for these starts.
    """
    return 1 / (1 / _one_side(k, h, shift) + 1 / _one_side(k, h, -shift))


@lru_cache(maxsize=64)
def solve_level(arl0: float, k: float) -> float:
    """Return h of the two-sided chart whose mean run length without a change is `arl0` values."""
    return float(brentq(lambda h: np.log(run_length(k, h) / arl0), 0.1, LARGEST, xtol=1e-6))


def to_normal(p_values: np.ndarray) -> np.ndarray:
    """Return standard normal values of uniform p-values in (0, 1); positive where the p-value is small."""
    return np.asarray(norm.isf(p_values), dtype=np.float64)


def _one_side(k: float, h: float, shift: float) -> float:
    """Return the mean run length of the upper sum: state 0 and cells of equal width up to h."""
    width = 2 * h / (2 * CELLS - 1)
    middle = width * np.arange(CELLS)
    edges = middle[None, :] + width / 2 - middle[:, None] + k - shift
    below = norm.cdf(edges)
    step = np.diff(below, axis=1, prepend=0.0)
    step[:, 0] = below[:, 0]
    return float(np.linalg.solve(np.eye(CELLS) - step, np.ones(CELLS))[0])

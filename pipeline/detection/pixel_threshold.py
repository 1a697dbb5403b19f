"""Pixel threshold: a quantile of in-body residuals of normals, with equal weight for every patient."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from pipeline.config import Config
from pipeline.errors import ConfigError, Rejected, RejectionCode, TooFewNormals

ALPHAS = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075,
    0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2,
)  # fmt: skip
MANTISSA_BITS = 10
RELATIVE_ERROR = 2.0**-MANTISSA_BITS  # width of a bin / its value


class PixelQuantiles(Config):
    """Thresholds for a table of alphas: on average, at most alpha of a normal patient's in-body pixels are above.

    Each is the upper edge of its histogram bin, so it is at most `RELATIVE_ERROR` (2^-10, 0.1 %) too high and
    never too low.
    """

    alphas: tuple[float, ...] = Field(description="shares of normal pixels above the threshold")
    values: tuple[float, ...] = Field(description="threshold of each alpha")
    patients: int = Field(ge=1, description="patients with equal weight")

    def threshold(self, alpha: float) -> float:
        """Return the pixel threshold for a tabled alpha; otherwise raise a ConfigError that lists the alphas."""
        if alpha not in self.alphas:
            raise ConfigError(
                f"There is no pixel threshold for alpha = {alpha}. Choose one of {', '.join(map(str, self.alphas))}."
            )
        return self.values[self.alphas.index(alpha)]


class PixelHistogram:
    """Collect in-body residuals, in any order, in bounded memory.

    Values are binned by the leading bits of their float32 representation (sign, exponent, 10 bits of the mantissa):
    no range needs to be known, and negative values are allowed. One sparse histogram per patient: about 0.1 MB.
    """

    def __init__(self) -> None:
        self._counts: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def add(self, patient_id: str, values: np.ndarray) -> None:
        """Count residuals [n] of one patient's in-body pixels.

        Raises:
            Rejected: a value is not finite.
        """
        flat = np.asarray(values, dtype=np.float32).ravel()
        if not np.isfinite(flat).all():
            raise Rejected(
                RejectionCode.NON_FINITE,
                "A residual map has NaN or infinite values, so quantiles are undefined. Score the scans again.",
            )
        keys, counts = np.unique(_bins(flat), return_counts=True)
        if patient_id in self._counts:
            old_keys, old_counts = self._counts[patient_id]
            keys, where = np.unique(np.concatenate([old_keys, keys]), return_inverse=True)
            counts = np.bincount(where, np.concatenate([old_counts, counts])).astype(np.int64)
        if len(keys):
            self._counts[patient_id] = (keys, counts)

    def quantiles(self, alphas: tuple[float, ...] = ALPHAS) -> PixelQuantiles:
        """Return the threshold of each alpha.

        Raises:
            TooFewNormals: no pixels were added.
        """
        if not self._counts:
            raise TooFewNormals(0, 1, "A pixel threshold")
        keys, weights = self._pooled()
        # at_or_above[i]: pooled share of pixels in bin i and higher ones; the threshold's bin is the lowest one whose
        # higher bins have at most alpha.
        above = np.append(np.cumsum(weights[::-1])[::-1][1:], 0.0) / len(self._counts)
        edges = _upper_edges(keys)
        values = tuple(float(edges[np.argmax(above <= alpha + 1e-12)]) for alpha in alphas)
        return PixelQuantiles(alphas=alphas, values=values, patients=len(self._counts))

    def _pooled(self) -> tuple[np.ndarray, np.ndarray]:
        # In the order of patient ids, so that rounding does not depend on the order of arrival.
        shares = [self._counts[patient] for patient in sorted(self._counts)]
        keys, where = np.unique(np.concatenate([keys for keys, _ in shares]), return_inverse=True)
        weights = np.concatenate([counts / counts.sum() for _, counts in shares])
        return keys, np.bincount(where, weights)


def _bins(values: np.ndarray) -> np.ndarray:
    """Return int32 bin numbers that ascend with the value."""
    bits = values.view(np.int32)
    ordered = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)  # sign and magnitude -> one ascending number; -0 is 0
    return ordered >> (23 - MANTISSA_BITS)


def _upper_edges(bins: np.ndarray) -> np.ndarray:
    """Return the largest float32 of each bin."""
    ordered = ((bins.astype(np.int64) + 1) << (23 - MANTISSA_BITS)) - 1
    bits = np.where(ordered < 0, -ordered | 0x80000000, ordered).astype(np.uint32)
    return bits.view(np.float32)

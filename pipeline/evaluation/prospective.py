"""Sensitivity and false-positive rate of a detector in use, from flagged scans and a random sample of others.

All flagged scans are read, unflagged ones with a known probability. With p_F the share of abnormal scans
among the flagged, p_U that among the unflagged (each scan weighted by the inverse of its probability: Horvitz and
Thompson, JASA 1952, 47:663, as a ratio: Hajek 1971), and f the share of scans that are flagged,

    sensitivity          f p_F / (f p_F + (1 - f) p_U)
    false-positive rate  f (1 - p_F) / (f (1 - p_F) + (1 - f) (1 - p_U))

Undecided scans on the list are treated as missing at random, within flagged and within sampled scans.

Intervals: missed abnormal scans are few or absent; a bootstrap then shows no variation, and a normal interval is wrong.
So p_F, p_U and f are drawn from Jeffreys posteriors, Beta(x + 1/2, n - x + 1/2), with n the effective sample size: the
variance between patients (linearised) determines it, or the weights alone if all outcomes are equal
(Korn and Graubard, Survey Methodology 1998, 24:193; Franco et al., J Surv Stat Methodol 2019, 7:334). Quantiles of the
rates of 20 000 draws are the interval, extended to 0 or 1 if nothing was observed on that side. Its coverage is
simulated in `tests/evaluation/test_prospective.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.config import Config
from pipeline.errors import EmptySelection
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.config import EvaluationConfig

DRAWS = 20_000
NO_SAMPLE = (
    "No sampled scan was decided. Nobody has read unflagged scans, so missed scans are unknown and neither sensitivity "
    "nor false-positive rate can be estimated. Read the list to its end, and keep sample_share or sample_least above 0 "
    "in settings.yaml."
)


@dataclass(frozen=True, slots=True)
class ReadScans:
    """Decided scans of one kind, flagged or sampled.

    Attributes:
        abnormal: bool [n].
        weight: inverse inclusion probabilities [n].
        patient: codes of patients [n].
    """

    abnormal: np.ndarray
    weight: np.ndarray
    patient: np.ndarray

    @property
    def share(self) -> float:
        """Return the weighted share of abnormal scans."""
        return float(self.weight @ self.abnormal / self.weight.sum())

    @property
    def effective(self) -> float:
        """Return the effective number of independent scans of equal weight, at most the actual number."""
        codes = np.unique(self.patient, return_inverse=True)[1]
        sums = np.bincount(codes, self.weight)
        kish = float(sums.sum() ** 2 / (sums**2).sum())
        share = self.share
        if not 0 < share < 1 or len(sums) < 2:
            return kish
        deviations = np.bincount(codes, self.weight * (self.abnormal - share))
        variance = len(sums) / (len(sums) - 1) * float((deviations**2).sum()) / float(self.weight.sum()) ** 2
        return min(float(len(self.abnormal)), share * (1 - share) / variance) if variance > 0 else kish

    def draws(self, rng: np.random.Generator) -> np.ndarray:
        """Return draws of the share from its posterior [DRAWS]."""
        hits = self.share * self.effective
        return rng.beta(hits + 0.5, self.effective - hits + 0.5, DRAWS)


class ProspectiveRates(Config):
    """Rates of a detector in use, from readers' decisions.

    Attributes:
        ppv: share of flagged scans that are abnormal.
        sensitivity, fpr, missed: None without a decided sample; `missed`: abnormal share of the unflagged.
        flagged, unflagged: scans of the frame, of which `flagged_read` and `sampled_read` were decided.
        confirmed, abnormal_sampled: abnormal scans among the flagged and among the sampled scans that were read.
        note: why a rate is missing.
    """

    ppv: Estimate | None
    sensitivity: Estimate | None = None
    fpr: Estimate | None = None
    missed: Estimate | None = None
    flagged: int
    unflagged: int
    flagged_read: int
    sampled_read: int
    confirmed: int
    abnormal_sampled: int
    note: str = ""


def estimate_prospective_rates(
    flagged: ReadScans, sampled: ReadScans, frame: tuple[int, int], config: EvaluationConfig
) -> ProspectiveRates:
    """Estimate the rates of a detector in use.

    Args:
        flagged, sampled: decided scans of each kind.
        frame: numbers of flagged and of unflagged scans, read or not.
        config: confidence and seed.

    Raises:
        EmptySelection: nothing has been decided.
    """
    if not len(flagged.abnormal) and not len(sampled.abnormal):
        raise EmptySelection("Nobody has decided on a scan of this model yet. Read some with nightread review")
    counts = {
        "flagged": frame[0],
        "unflagged": frame[1],
        "flagged_read": len(flagged.abnormal),
        "sampled_read": len(sampled.abnormal),
        "confirmed": int(flagged.abnormal.sum()),
        "abnormal_sampled": int(sampled.abnormal.sum()),
    }
    rng = np.random.default_rng(config.seed)
    tails = (1 - config.confidence) / 2
    ppv_draws = flagged.draws(rng) if counts["flagged_read"] else None
    ppv = None if ppv_draws is None else _estimate(flagged.share, ppv_draws, tails, flagged)
    if not counts["sampled_read"]:
        return ProspectiveRates(ppv=ppv, note=NO_SAMPLE, **counts)
    missed_draws = sampled.draws(rng)
    missed = _estimate(sampled.share, missed_draws, tails, sampled)
    if ppv_draws is None and frame[0]:
        return ProspectiveRates(ppv=None, missed=missed, note="No flagged scan was decided yet.", **counts)
    if ppv_draws is None:  # nothing was flagged, so every abnormal scan is missed
        ppv_draws, share = np.zeros(DRAWS), 0.0
    else:
        share = flagged.share
    part = frame[0] / sum(frame)
    parts = rng.beta(frame[0] + 0.5, frame[1] + 0.5, DRAWS)
    return ProspectiveRates(
        ppv=ppv,
        sensitivity=_ratio(share, sampled.share, part, (ppv_draws, missed_draws, parts), tails),
        fpr=_ratio(1 - share, 1 - sampled.share, part, (1 - ppv_draws, 1 - missed_draws, parts), tails),
        missed=missed,
        **counts,
    )


def _ratio(
    above: float, below: float, part: float, draws: tuple[np.ndarray, np.ndarray, np.ndarray], tails: float
) -> Estimate | None:
    """Return flagged / all among the scans with the property; None if there are no such scans."""
    caught, let_go = part * above, (1 - part) * below
    if caught + let_go == 0:
        return None
    drawn = draws[2] * draws[0] / (draws[2] * draws[0] + (1 - draws[2]) * draws[1])
    low, high = np.quantile(drawn, [tails, 1 - tails])
    low, high = (0.0 if caught == 0 else float(low)), (1.0 if let_go == 0 else float(high))
    return Estimate(value=caught / (caught + let_go), low=low, high=high)


def _estimate(share: float, draws: np.ndarray, tails: float, scans: ReadScans) -> Estimate:
    low, high = np.quantile(draws, [tails, 1 - tails])
    low, high = (0.0 if share == 0 else float(low)), (1.0 if share == 1 else float(high))
    return Estimate(value=share, low=low, high=high)

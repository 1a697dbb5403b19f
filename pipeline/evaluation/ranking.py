"""Threshold curves of many weightings at once, from which all ranking metrics are computed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap
from pipeline.evaluation.config import EvaluationConfig


@dataclass(frozen=True, slots=True)
class Curve:
    """Weighted counts at or above each threshold, in order of decreasing threshold; one row per resample.

    Attributes:
        tp: float64 [R, G], positives counted so far; its last column is the total.
        fp: float64 [R, G], likewise for negatives.
    """

    tp: np.ndarray
    fp: np.ndarray

    @classmethod
    def from_counts(cls, positives: np.ndarray, negatives: np.ndarray) -> Curve:
        """Build from counts [R, G] per threshold cell, highest score first."""
        return cls(np.cumsum(positives, axis=1, dtype=float), np.cumsum(negatives, axis=1, dtype=float))

    def rates(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (tpr, fpr) [R, G + 1], starting at (0, 0); NaN in rows without one of the classes."""
        with np.errstate(invalid="ignore", divide="ignore"):
            tpr, fpr = self.tp / self.tp[:, -1:], self.fp / self.fp[:, -1:]
        return np.pad(tpr, ((0, 0), (1, 0))), np.pad(fpr, ((0, 0), (1, 0)))


@dataclass(frozen=True, slots=True)
class Ranking:
    """One column of scores, sorted once in decreasing order; tied scores share one threshold.

    Attributes:
        patient: intp [N], patient code of each unit in sorted order.
        abnormal: bool [N] in sorted order.
        ends: intp [G], last index of each group of equal scores.
        thresholds: float64 [G], the score of each group.
    """

    patient: np.ndarray
    abnormal: np.ndarray
    ends: np.ndarray
    thresholds: np.ndarray

    @classmethod
    def of(cls, scores: np.ndarray, abnormal: np.ndarray, patient: np.ndarray) -> Ranking:
        """Sort `scores` [N] together with `abnormal` bool [N] and `patient` codes [N]."""
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
        return cls(patient[order], abnormal[order], ends, ranked[ends])

    def curve(self, weights: np.ndarray) -> Curve:
        """Return the curve of every row of patient weights [R, P]; weights of one give the sample itself."""
        rows = weights[:, self.patient]
        tp = np.cumsum(rows * self.abnormal, axis=1, dtype=float)
        total = np.cumsum(rows, axis=1, dtype=float)
        if len(self.ends) < len(self.patient):
            tp, total = tp[:, self.ends], total[:, self.ends]
        return Curve(tp, total - tp)


def roc_area(curve: Curve, fpr_limit: float = 1.0) -> np.ndarray:
    """Return the area under the ROC curve [R] up to `fpr_limit`, divided by `fpr_limit`; ties count half.

    With region weights in place of true positives this is PRO (Bergmann et al., IJCV 2021).
    """
    tpr, fpr = curve.rates()
    left, right = fpr[:, :-1], fpr[:, 1:]
    start, rise = tpr[:, :-1], np.diff(tpr, axis=1)
    width = np.minimum(right, fpr_limit) - np.minimum(left, fpr_limit)
    if fpr_limit < 1.0:  # cut the segment that crosses the limit, linearly
        run = right - left
        rise = rise * np.divide(width, run, out=np.ones_like(run), where=run > 0)
    return np.sum(width * (start + rise / 2), axis=1) / fpr_limit


def average_precision(curve: Curve) -> np.ndarray:
    """Return the average precision [R], the step-wise sum of scikit-learn without interpolation."""
    steps = np.diff(curve.tp, axis=1, prepend=0)
    flagged = curve.tp + curve.fp
    precision = np.divide(curve.tp, flagged, out=np.zeros_like(flagged), where=flagged > 0)
    return _over(np.sum(steps * precision, axis=1), curve)


def sensitivity_at(curve: Curve, specificity: float) -> np.ndarray:
    """Return the highest sensitivity [R] of any threshold whose specificity is at least `specificity`.

    The rule is conservative: it does not interpolate between two thresholds.
    """
    allowed = (1 - specificity) * curve.fp[:, -1:] * (1 + 1e-12)
    inside = np.sum(curve.fp <= allowed, axis=1)
    tp = np.pad(curve.tp, ((0, 0), (1, 0)))
    return _over(np.take_along_axis(tp, inside[:, None], axis=1)[:, 0], curve)


def best_dice(curve: Curve) -> np.ndarray:
    """Return the highest Dice [R] over all thresholds: an oracle, chosen on the labels on which it is measured."""
    dice = 2 * curve.tp / np.maximum(curve.tp + curve.fp + curve.tp[:, -1:], 1e-300)
    return _over(np.max(dice, axis=1) * curve.tp[:, -1], curve)


def _over(total: np.ndarray, curve: Curve) -> np.ndarray:
    """Divide by the positives; NaN if a class is missing."""
    positives, negatives = curve.tp[:, -1], curve.fp[:, -1]
    whole = (positives > 0) & (negatives > 0)
    return np.divide(total, positives, out=np.full_like(positives, np.nan), where=whole)


def estimate_auroc(scores: np.ndarray, abnormal: np.ndarray, patient: np.ndarray, config: EvaluationConfig) -> Estimate:
    """Return the AUROC of scores [N] with its interval over patients, whose codes are `patient` [N], from 0.

    Raises:
        EmptySelection: fewer than two patients.
    """
    ranking = Ranking.of(scores, abnormal, patient)
    strata = (np.bincount(patient, weights=abnormal) > 0).astype(int)
    bootstrap = PatientBootstrap.draw(strata, config)
    return bootstrap.estimates(bootstrap.sample(lambda w: roc_area(ranking.curve(w))[:, None], len(scores)))[0]

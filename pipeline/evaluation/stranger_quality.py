"""Quality of a score that tells strangers from images of the domain: AUROC, and what catching most of them costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pipeline.config import Config
from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.ranking import Curve, Ranking, roc_area
from pipeline.evaluation.real_images import codes_of

RECALL = 0.95


class StrangerRow(Config):
    """Line of a table of strangers.

    Attributes:
        strangers: their kind.
        opinion: the score that judges them.
        auroc: strangers against images of the domain.
        fpr: share of the domain's images above the score that 95 % of the strangers reach.
        refused: share of the strangers above the conformal threshold.
        count: number of strangers.
    """

    strangers: str
    opinion: str
    auroc: Estimate
    fpr: Estimate
    refused: Estimate
    count: int


def fpr_at_recall(curve: Curve, recall: float = RECALL) -> np.ndarray:
    """Return the false-positive rate [R] at the highest threshold of at least this recall; no interpolation."""
    tpr, fpr = curve.rates()
    first = np.argmax(tpr >= recall * (1 - 1e-12), axis=1)
    return np.take_along_axis(fpr, first[:, None], axis=1)[:, 0]


def judge_strangers(
    strangers: str,
    opinion: str,
    scores: np.ndarray,
    is_stranger: np.ndarray,
    patients: Sequence[str],
    config: EvaluationConfig | None = None,
) -> StrangerRow:
    """Judge one score of one kind of strangers, with intervals over patients.

    Args:
        strangers, opinion: names.
        scores: float64 [N], divided by the threshold: above 1 is refused.
        is_stranger: bool [N].
        patients: of each image; a patient may have images of both kinds.
        config: resamples, confidence and seed of the intervals.

    Raises:
        EmptySelection: fewer than two patients.
    """
    owners = codes_of(patients)
    strata = np.bincount(owners, is_stranger) > 0
    bootstrap = PatientBootstrap.draw(strata.astype(int), config or EvaluationConfig())
    ranking = Ranking.of(scores, is_stranger, owners)
    refused = np.bincount(owners, is_stranger & (scores > 1))
    counts = np.bincount(owners, is_stranger)

    def statistic(weights: np.ndarray) -> np.ndarray:
        curve = ranking.curve(weights)
        with np.errstate(invalid="ignore", divide="ignore"):
            share = (weights @ refused) / (weights @ counts)
        return np.stack([roc_area(curve), fpr_at_recall(curve), share], axis=1)

    auroc, fpr, share = bootstrap.estimates(bootstrap.sample(statistic, len(scores)))
    return StrangerRow(
        strangers=strangers, opinion=opinion, auroc=auroc, fpr=fpr, refused=share, count=int(is_stranger.sum())
    )

"""Linear probes: how well a linear classifier reads an attribute from vectors, and the direction that changes it.

Preechakul et al., arXiv:2111.15640, section 5.1 and appendix: the weights of a linear classifier of the standardised
code are the direction along which an attribute is edited. Probes are cross-fitted by patient, so that no image is
judged, or edited, by a probe that learned from its patient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.preprocessing import StandardScaler

from pipeline.errors import EmptySelection
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.cross_fit import mean_estimate
from pipeline.evaluation.ranking import estimate_auroc

STRENGTH, ROUNDS = 0.1, 500  # C of the regression (the codes are long and the images few), rounds of its solver
FOLDS = 3


@dataclass(frozen=True, slots=True)
class LinearProbe:
    """Logistic regression on standardised vectors.

    Attributes:
        centre, spread: float64 [D], mean and standard deviation of the vectors; a spread of 0 counts as 1.
        weights: float64 [D], of the standardised vectors.
        offset: the intercept.
        gap: difference of the mean log odds between the two classes, on the vectors that it learned from.
    """

    centre: np.ndarray
    spread: np.ndarray
    weights: np.ndarray
    offset: float
    gap: float

    @classmethod
    def fit(cls, vectors: np.ndarray, positive: np.ndarray) -> LinearProbe:
        """Learn to tell vectors [N, D] apart by `positive` bool [N], which has both values."""
        scaler = StandardScaler().fit(vectors)
        seen = scaler.transform(vectors)
        model = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=ROUNDS).fit(seen, positive)
        odds = model.decision_function(seen)
        gap = float(odds[positive].mean() - odds[~positive].mean())
        return cls(scaler.mean_, scaler.scale_, model.coef_[0], float(model.intercept_[0]), gap)

    def log_odds(self, vectors: np.ndarray) -> np.ndarray:
        """Return the log odds [N] that vectors [N, D] are positive."""
        return (vectors - self.centre) / self.spread @ self.weights + self.offset

    @property
    def direction(self) -> np.ndarray:
        """The shortest way, in standardised units, from the log odds of one class to those of the other: [D]."""
        return self.along(self.weights)

    def along(self, way: np.ndarray) -> np.ndarray:
        """Return a vector [D] that points along `way`, which is in standardised units, as long as `direction`."""
        length = self.gap / max(float(np.linalg.norm(self.weights)), 1e-12)
        return way / max(float(np.linalg.norm(way)), 1e-12) * length * self.spread


@dataclass(frozen=True, slots=True)
class CrossProbe:
    """Probes of one attribute, each fitted without the patients of its fold.

    Attributes:
        probes: one per fold.
        fold: int [N], of each image.
        positive: bool [N].
        patient: int [N], code of each image's patient.
    """

    probes: tuple[LinearProbe, ...]
    fold: np.ndarray
    positive: np.ndarray
    patient: np.ndarray

    @classmethod
    def fit(cls, vectors: np.ndarray, positive: np.ndarray, patients: Sequence[str], seed: int = 0) -> CrossProbe:
        """Fit one probe per fold of the patients; the folds depend on the classes, the patients and the seed alone.

        Raises:
            EmptySelection: a class has fewer patients than there are folds.
        """
        patient = np.unique(list(patients), return_inverse=True)[1]
        fewest = min(len(np.unique(patient[positive == side])) for side in (False, True))
        if fewest < FOLDS:
            raise EmptySelection(
                f"One side has {fewest} patients; {FOLDS} are needed, since every probe is tested on other patients. "
                "Add images of more patients, or choose another attribute."
            )
        cut = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
        fold, probes = np.zeros(len(positive), int), []
        for number, (learned, held) in enumerate(cut.split(vectors, positive, patient)):
            fold[held] = number
            probes.append(LinearProbe.fit(vectors[learned], positive[learned]))
        return cls(tuple(probes), fold, positive, patient)

    def log_odds(self, vectors: np.ndarray) -> np.ndarray:
        """Return the log odds [N] of vectors of the same images, each by the probe that never saw its patient."""
        all_odds = np.stack([probe.log_odds(vectors) for probe in self.probes])
        return all_odds[self.fold, np.arange(len(vectors))]

    def directions(self, ways: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """Return the direction of each image [N, D]: of its fold's probe, or as long and along one way per fold."""
        own = [
            probe.direction if ways is None else probe.along(ways[number]) for number, probe in enumerate(self.probes)
        ]
        return np.stack(own)[self.fold]

    def auroc(self, vectors: np.ndarray, config: EvaluationConfig | None = None) -> Estimate:
        """Return the mean AUROC of the folds on the images that they did not learn from, with its interval."""
        odds, chosen = self.log_odds(vectors), config or EvaluationConfig()
        return mean_estimate([self._auroc(odds, self.fold == number, chosen) for number in range(len(self.probes))])

    def _auroc(self, odds: np.ndarray, inside: np.ndarray, config: EvaluationConfig) -> Estimate:
        patient = np.unique(self.patient[inside], return_inverse=True)[1]
        return estimate_auroc(odds[inside], self.positive[inside], patient, config)

    def gap(self, odds: np.ndarray) -> float:
        """Return the difference of the mean log odds [N] between the classes."""
        return float(odds[self.positive].mean() - odds[~self.positive].mean())

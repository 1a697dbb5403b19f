"""Classes of samples according to a classifier that was trained on real images only.

Logistic regression on the frozen features. For a conditional sampler: how often a sample has the class that it was
asked to have, beside the classifier's accuracy on held-out real images, which is about the most that can be reached.
For every sampler: which classes of the real images it never makes.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.memorisation import share_of

ROUNDS = 200  # of the solver; the accuracy is that of a classifier that has nearly converged


class ClassAgreement(Config):
    """Classes of samples by a classifier trained on real images.

    Attributes:
        agreement: share of the samples with the class that they were asked to have; None without conditions. The
            interval is over samples.
        real_accuracy: accuracy of the classifier on held-out real images, each counted once.
        shares, real_shares: share of each class among the samples, by the classifier, and among the real images.
    """

    agreement: Estimate | None
    real_accuracy: Estimate
    shares: dict[str, float]
    real_shares: dict[str, float]


class AttributeClassifier:
    """Logistic regression from features to classes, trained on real images only; deterministic."""

    def __init__(self, features: np.ndarray, classes: Sequence[str]) -> None:
        if len(set(classes)) < 2:
            raise ConfigError(
                f"The training images have the classes {sorted(set(classes))}; at least 2 are needed to tell them "
                "apart. Judge without classes."
            )
        self.names = tuple(sorted(set(classes)))
        self.model: Pipeline = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=ROUNDS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.model.fit(features, np.array(classes))

    def classify(self, features: np.ndarray) -> list[str]:
        """Return the class of each row."""
        return [str(name) for name in self.model.predict(features)]


def judge_classes(
    guessed: Sequence[str],
    asked: Sequence[str] | None,
    real_guessed: Sequence[str],
    real: Sequence[str],
    confidence: float,
) -> ClassAgreement:
    """Compare the classes that the classifier gives to samples and to held-out real images with the asked and true
    ones.
    """
    right = sum(a == b for a, b in zip(real_guessed, real, strict=True))
    agreement = None
    if asked is not None:
        agreement = share_of(sum(a == b for a, b in zip(guessed, asked, strict=True)), len(guessed), confidence)
    names = sorted({*real, *guessed})
    return ClassAgreement(
        agreement=agreement,
        real_accuracy=share_of(right, len(real), confidence),
        shares=_shares(guessed, names),
        real_shares=_shares(real, names),
    )


def _shares(classes: Sequence[str], names: Sequence[str]) -> dict[str, float]:
    counts = Counter(classes)
    return {name: counts[name] / len(classes) for name in names}

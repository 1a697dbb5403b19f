"""Agreement of categories that were learned without labels with the classes of images."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.memorisation import share_of


def name_codes(codes: Sequence[int], classes: Sequence[str]) -> dict[int, str]:
    """Return the most frequent class of each code's images, the first by name among equals."""
    seen: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for code, name in zip(codes, classes, strict=True):
        seen[code][name] += 1
    return {code: min(counts, key=lambda name: (-counts[name], name)) for code, counts in seen.items()}


def judge_codes(names: dict[int, str], codes: Sequence[int], classes: Sequence[str], confidence: float) -> Estimate:
    """Return the share of images whose code has the name of their class, with its interval over images.

    Args:
        names: of codes, by other images than these (`name_codes`); a code without a name is wrong.
        codes, classes: of each image.
        confidence: of the interval.
    """
    right = sum(names.get(code) == name for code, name in zip(codes, classes, strict=True))
    return share_of(right, len(classes), confidence)


def share_information(
    codes: Sequence[int], classes: Sequence[str], patients: Sequence[str], confidence: float
) -> Estimate:
    """Return the normalised mutual information of codes and classes, 2 I(code; class) / (H(code) + H(class)).

    It is 0 for independent codes and 1 for classes under other names. More codes than classes lower it, and raise
    accuracy. The interval is a bootstrap over patients. Of few images the value is too high, since codes and classes
    agree by chance.

    Args:
        codes, classes, patients: of each image.
        confidence: of the interval.
    """
    code, name, who = (np.unique(np.asarray(values), return_inverse=True)[1] for values in (codes, classes, patients))
    counts = np.zeros((who.max() + 1, code.max() + 1, name.max() + 1))
    np.add.at(counts, (who, code, name), 1)
    config = EvaluationConfig(confidence=confidence)
    bootstrap = PatientBootstrap.draw(np.zeros(len(counts), dtype=np.int64), config)
    sampled = bootstrap.sample(lambda weights: _information(np.tensordot(weights, counts, 1))[:, None], counts[0].size)
    return bootstrap.estimates(sampled)[0]


def _information(counts: np.ndarray) -> np.ndarray:
    """Return the normalised mutual information of tables of counts [R, codes, classes]; 0 where both are constant."""
    joint = counts / counts.sum(axis=(1, 2), keepdims=True)
    code, name = _entropy(joint.sum(axis=2)), _entropy(joint.sum(axis=1))
    shared = code + name - _entropy(joint.reshape(len(joint), -1))
    return 2 * shared / np.where(code + name > 0, code + name, 1)


def _entropy(shares: np.ndarray) -> np.ndarray:
    """Return the entropy of each row in nats."""
    return -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1)

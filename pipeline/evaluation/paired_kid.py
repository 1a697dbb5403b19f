"""KID of images made from worse ones, against their own originals: whether they look like real images as a set.

The mean of all plausible answers wins PSNR and is blurred; KID tells blurred images from real ones. Answers and
originals are of the same patients, so pairs of one patient are left out of all three means and of the interval's
resamples: an answer equal to its original has exactly 0. Kernel and features are those of `distribution_distance`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap, Statistic
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.distribution_distance import kernel
from pipeline.evaluation.image_features import embed_images
from pipeline.evaluation.real_images import codes_of


def judge_likeness(
    answers: Mapping[str, Tensor], target: Tensor, patients: Sequence[str], config: EvaluationConfig | None = None
) -> dict[str, Estimate]:
    """Return the KID of each answer [N, C, H, W] against the targets [N, C, H, W], lower is better.

    Raises:
        EmptySelection: fewer than two patients.
    """
    owners, real = codes_of(patients), embed_images(target)
    bootstrap = PatientBootstrap.draw(np.zeros(int(owners.max()) + 1, int), config or EvaluationConfig())
    estimates = {}
    for name, answer in answers.items():
        statistic = paired_kid(embed_images(answer), real, owners)
        estimates[name] = bootstrap.estimates(bootstrap.sample(statistic, 2 * len(owners)))[0]
    return estimates


def paired_kid(answers: np.ndarray, real: np.ndarray, owners: np.ndarray) -> Statistic:
    """Return KID as a function of patient weights [R, P]: [R, 1].

    Args:
        answers, real: features [N, d]; row i of both is of the same image.
        owners: the patient of each row, 0 to P - 1.
    """
    across = kernel(real, answers)
    apart = owners[:, None] != owners[None]
    terms = (kernel(real, real) + kernel(answers, answers) - across - across.T) * apart
    sizes = np.bincount(owners)

    def statistic(weights: np.ndarray) -> np.ndarray:
        """Weigh the pairs of images of different patients."""
        images = weights[:, owners].astype(float)
        pairs = images.sum(axis=1) ** 2 - ((weights * sizes) ** 2).sum(axis=1)
        total = (images @ terms * images).sum(axis=1)
        return np.divide(total, pairs, out=np.full_like(total, np.nan), where=pairs > 0)[:, None]

    return statistic

"""KID of translated images beside its floor: how far they are from real images of the other domain, as a set."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from torch import Tensor

from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.distribution_distance import KernelDistance
from pipeline.evaluation.image_features import check_images, embed_images
from pipeline.stages.generate.paired import HeldOut, Solved
from pipeline.stages.generate.run_paired import Findings

FLOOR = "real against real"


def make_distance(reference: Tensor, evaluation: EvaluationConfig) -> Callable[[Solved, HeldOut], Findings]:
    """Return what finds the KID of every answer, and of the held-out originals as its floor.

    Args:
        reference: real images of the other domain [M, C, S, S], each of another patient, none of them held out.
        evaluation: resamples and confidence of the intervals.
    """
    real = embed_images(reference)

    def find(solved: Solved, held_out: HeldOut) -> Findings:
        """Compare the answers with the reference."""
        rows = dict(_distances(solved, held_out, real, evaluation))
        problem = solved.problem
        metrics = {f"kid_{problem.name.replace(' ', '_')}": rows[problem.own].value, "kid_floor": rows[FLOOR].value}
        return Findings(
            tuple({"problem": problem.name, "images": name, "KID": kid.text(4)} for name, kid in rows.items()),
            metrics,
            tuple({"problem": problem.name, "name": name, "kid": kid.model_dump()} for name, kid in rows.items()),
        )

    return find


def _distances(
    solved: Solved, held_out: HeldOut, real: np.ndarray, evaluation: EvaluationConfig
) -> Iterator[tuple[str, Estimate]]:
    patients = np.unique(held_out.patients, return_inverse=True)[1]
    strata = np.repeat([0, 1], [int(patients.max()) + 1, len(real)])
    bootstrap = PatientBootstrap.draw(strata, evaluation)
    for name, images in {FLOOR: solved.target, **solved.answers}.items():
        check_images(images, "translated images")
        distance = KernelDistance.of(embed_images(images), patients, real)
        (kid,) = bootstrap.estimates(bootstrap.sample(distance.weighted, 2 * (len(images) + len(real))))
        yield name, kid

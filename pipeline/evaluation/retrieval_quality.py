"""Quality of retrieval: the share of a query's neighbours that are relevant, with intervals over the queries' patients.

Every way to search is compared with the first one, the plainest, on the same resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pipeline.config import Config
from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap, Sampled
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.paired_quality import means_of_images
from pipeline.evaluation.real_images import codes_of


class PrecisionRow(Config):
    """Line of a table of ways to search.

    Attributes:
        name: of the way.
        precision: mean share of the neighbours that are relevant.
        over: the precision less that of each way named before it in the table's comparisons, on the same resamples.
    """

    name: str
    precision: Estimate
    over: Mapping[str, Estimate]


def compare_precision(
    measured: Mapping[str, np.ndarray],
    patients: Sequence[str],
    against: Sequence[str],
    config: EvaluationConfig | None = None,
) -> tuple[PrecisionRow, ...]:
    """Return one line per way to search.

    Args:
        measured: share of relevant neighbours of each query, float64 [Q], by the name of the way.
        patients: of each query.
        against: names of the ways that the others are compared with.
        config: resamples, confidence and seed of the intervals.

    Raises:
        EmptySelection: fewer than two patients.
    """
    owners = codes_of(patients)
    bootstrap = PatientBootstrap.draw(np.zeros(int(owners.max(initial=0)) + 1, int), config or EvaluationConfig())
    sampled = {
        name: bootstrap.sample(means_of_images(values[:, None], owners), len(owners))
        for name, values in measured.items()
    }
    return tuple(_row(bootstrap, name, sampled, against) for name in measured)


def _row(
    bootstrap: PatientBootstrap, name: str, sampled: Mapping[str, Sampled], against: Sequence[str]
) -> PrecisionRow:
    differences = {
        other: bootstrap.estimates(Sampled.join([sampled[name], sampled[other]]).difference(0, 1))[0]
        for other in against
        if other != name
    }
    return PrecisionRow(name=name, precision=bootstrap.estimates(sampled[name])[0], over=differences)


def share_relevant(relevant: Sequence[Sequence[bool]], count: int) -> np.ndarray:
    """Return the share of relevant neighbours of each query, float64 [Q]; a neighbour that is missing is not one."""
    return np.array([sum(row) / count for row in relevant])

"""Running a detector over a selection: what calibrate, score and evaluate share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.data.images.dataset import SliceDataset
from pipeline.detection.scorer import Scorer
from pipeline.detection.slices import SliceResult
from pipeline.errors import Rejected
from pipeline.types import AnomalyMap, Finding, SliceRef, SliceScore, Step

OnProgress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """One slice with its score; its map stays on the model's grid until it is asked for, since few are looked at."""

    ref: SliceRef
    score: SliceScore
    result: SliceResult
    step: Step

    def anomaly(self, detector: Scorer, reconstruction: bool = False) -> AnomalyMap | None:
        """Return the map on the native grid; None where the method has none."""
        return detector.native(self.result, self.step, reconstruction=reconstruction)


def measured(detector: Scorer, data: SliceDataset, on_progress: OnProgress | None = None) -> Iterator[Measured]:
    """Score every slice of a data set, in memory that does not grow.

    A series that turns out to be unusable half-way is listed in `data.rejected`: pass the scores through `usable`.
    """
    for done, result in enumerate(detector.score_slices(data), start=1):
        ref = data.ref(result.id)
        score = SliceScore(ref.instance_id, ref.frame, ref.series_id, ref.study_id, ref.patient_id, result.score)
        yield Measured(ref, score, result, data.step(result.id))
        if on_progress is not None:
            on_progress(done, len(data))


def usable(scores: list[SliceScore], data: SliceDataset) -> list[SliceScore]:
    """Return the scores of series that were read to their end."""
    refused = {series.series_id for series in data.rejected}
    return [score for score in scores if score.series_id not in refused]


def findings(detector: Scorer, scores: list[SliceScore]) -> tuple[list[Finding], dict[str, Rejected]]:
    """Aggregate slices by study; studies that have no score come back with their reason."""
    by_study: dict[str, list[SliceScore]] = {}
    for score in scores:
        by_study.setdefault(score.study_id, []).append(score)
    found: list[Finding] = []
    refused: dict[str, Rejected] = {}
    for study_id, slices in by_study.items():
        try:
            found.append(detector.finding(slices))
        except Rejected as error:
            refused[study_id] = error
    return found, refused

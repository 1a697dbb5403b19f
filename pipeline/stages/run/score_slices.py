"""Score a data set with a detector: shared by calibrate, score and evaluate; only usable series are returned."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.data.images.dataset import SliceDataset
from pipeline.data.sets.selection import NotScoredSeries
from pipeline.detection.scorer import Scorer
from pipeline.detection.slices import SliceResult
from pipeline.errors import Rejected
from pipeline.types import AnomalyMap, Finding, SliceRef, SliceScore, Step

OnProgress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class ScoredSlice:
    """One slice with its score; its map stays on the model's grid until needed, since few are displayed."""

    ref: SliceRef
    score: SliceScore
    result: SliceResult
    step: Step

    def anomaly(self, detector: Scorer, reconstruction: bool = False) -> AnomalyMap | None:
        """Return the map on the native grid; None if the method has no map."""
        return detector.native(self.result, self.step, reconstruction=reconstruction)


OnSlice = Callable[[ScoredSlice], None]


def score_dataset(
    detector: Scorer, data: SliceDataset, on_slice: OnSlice | None = None, on_progress: OnProgress | None = None
) -> tuple[list[SliceScore], tuple[NotScoredSeries, ...]]:
    """Score a data set; return the scores of the series that were read completely, and the others with their codes.

    Args:
        detector: detector that scores the slices.
        data: slices, grouped by series.
        on_slice: called with each slice of a usable series while its map is in memory; not called for other series.
        on_progress: called with (slices done, total slices).
    """
    scores: list[SliceScore] = []
    for item in scored_slices(detector, data, on_progress):
        scores.append(item.score)
        if on_slice is not None:
            on_slice(item)
    return scores, data.rejected


def scored_slices(detector: Scorer, data: SliceDataset, on_progress: OnProgress | None = None) -> Iterator[ScoredSlice]:
    """Yield the slices of completely read series in order; memory holds the maps of one series at a time.

    Whether a series is usable is only known after its last slice, so a series is yielded when the next begins.
    """
    waiting: list[ScoredSlice] = []
    for done, result in enumerate(detector.score_slices(data), start=1):
        ref = data.ref(result.id)
        if waiting and waiting[0].ref.series_id != ref.series_id:
            yield from _of_whole_series(waiting, data)
            waiting = []
        score = SliceScore(ref.instance_id, ref.frame, ref.series_id, ref.study_id, ref.patient_id, result.score)
        waiting.append(ScoredSlice(ref, score, result, data.step(result.id)))
        if on_progress is not None:
            on_progress(done, len(data))
    yield from _of_whole_series(waiting, data)


def _of_whole_series(slices: list[ScoredSlice], data: SliceDataset) -> list[ScoredSlice]:
    refused = {series.series_id for series in data.rejected}
    return [item for item in slices if item.ref.series_id not in refused]


def findings(detector: Scorer, scores: list[SliceScore]) -> tuple[list[Finding], dict[str, Rejected]]:
    """Aggregate slices by study; studies without a score are returned with their reason."""
    by_study: dict[str, list[SliceScore]] = {}
    for score in scores:
        by_study.setdefault(score.study_id, []).append(score)
    results: list[Finding] = []
    refused: dict[str, Rejected] = {}
    for study_id, slices in by_study.items():
        try:
            results.append(detector.finding(slices))
        except Rejected as error:
            refused[study_id] = error
    return results, refused

"""Score a data set with a detector: shared by calibrate, score and evaluate; only usable series are returned."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from pipeline.data.images.dataset import SliceDataset
from pipeline.data.sets.selection import NotScoredSeries
from pipeline.detection.scorer import Scorer
from pipeline.errors import Rejected
from pipeline.types import Finding, SliceResult, SliceScore

OnProgress = Callable[[int, int | None], None]


OnSlice = Callable[[SliceResult], None]
Stop = Callable[[], bool]


def score_dataset(
    detector: Scorer,
    data: SliceDataset,
    on_slice: OnSlice | None = None,
    on_progress: OnProgress | None = None,
    stop: Stop | None = None,
) -> tuple[list[SliceScore], tuple[NotScoredSeries, ...]]:
    """Score a data set; return the scores of the series that were read completely, and the others with their codes.

    Args:
        detector: detector that scores the slices.
        data: slices, grouped by series.
        on_slice: called with each slice of a usable series while its map is in memory; not called for other series.
        on_progress: called with (slices done, total slices).
        stop: asked after each series; once it is true, the series after it are not read (see `find_unfinished`).
    """
    scores: list[SliceScore] = []
    for item in scored_slices(detector, data, on_progress, stop):
        scores.append(data.ref(item.id).scored(item.score))
        if on_slice is not None:
            on_slice(item)
    return scores, data.rejected


def find_unfinished(data: SliceDataset, scores: Iterable[SliceScore]) -> set[str]:
    """Return the studies that a stop cut short or did not reach: a slice of a series not refused has no score."""
    done = {(score.instance_id, score.frame) for score in scores}
    usable = (ref for ref in data.slices if not data.refuses(ref.stack_id))
    return {ref.study_id for ref in usable if (ref.instance_id, ref.frame) not in done}


def scored_slices(
    detector: Scorer, data: SliceDataset, on_progress: OnProgress | None = None, stop: Stop | None = None
) -> Iterator[SliceResult]:
    """Yield the slices of completely read series in order, with the step that leads back to their native grid.

    Whether a series is usable is only known after its last slice, so a series is yielded when the next begins; memory
    holds the maps of one series at a time, on the model's grid.
    """
    waiting: list[SliceResult] = []
    stack_id = ""
    for done, result in enumerate(detector.score_slices(data), start=1):
        if data.ref(result.id).stack_id != stack_id:
            yield from () if data.refuses(stack_id) else waiting
            if stack_id and stop is not None and stop():
                return
            waiting, stack_id = [], data.ref(result.id).stack_id
        waiting.append(replace(result, history=(data.step(result.id),)))
        if on_progress is not None:
            on_progress(done, len(data))
    yield from () if data.refuses(stack_id) else waiting


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

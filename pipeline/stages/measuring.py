"""Running a detector over a selection: what calibrate, score and evaluate share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.data.dataset import SliceDataset
from pipeline.detection.detector import Detector
from pipeline.errors import Rejected
from pipeline.types import AnomalyMap, Finding, SliceRef, SliceScore

OnProgress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """One slice with its score and its map on the native grid (None where the method has none)."""

    ref: SliceRef
    score: SliceScore
    anomaly: AnomalyMap | None


def measured(detector: Detector, data: SliceDataset, on_progress: OnProgress | None = None) -> Iterator[Measured]:
    """Score every slice of a data set and bring its map to the native grid; memory does not grow."""
    for done, result in enumerate(detector.score_slices(data), start=1):
        ref = data.ref(result.id)
        score = SliceScore(ref.instance_id, ref.frame, ref.series_id, ref.study_id, ref.patient_id, result.score)
        yield Measured(ref, score, detector.native(result, data.step(result.id)))
        if on_progress is not None:
            on_progress(done, len(data))


def findings(detector: Detector, scores: list[SliceScore]) -> tuple[list[Finding], dict[str, Rejected]]:
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

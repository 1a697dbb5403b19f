"""Score scans that were not ingested, in memory or as DICOM files, by the same steps as in a night."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.config import DecodeLimits
from pipeline.data.images.conditions import about
from pipeline.data.images.normalise import Normalised, Plane, planes
from pipeline.data.store.pixel_store import content_key
from pipeline.detection.aggregate import aggregate_series, over
from pipeline.detection.scorer import Scorer
from pipeline.detection.slices import slice_results
from pipeline.detection.volumes import in_parts
from pipeline.dicom.decode.geometry import REGULAR, Allowed, require_volume
from pipeline.dicom.decode.own_objects import refuse_statement
from pipeline.dicom.decode.physical import to_physical
from pipeline.dicom.decode.read import DecodedInstance
from pipeline.dicom.decode.split_series import require_stack_volume, split_stacks
from pipeline.dicom.intake.sandbox import DecodeWorkers
from pipeline.errors import ConfigError, EmptySelection
from pipeline.types import Batch, Scan, SliceResult, Step


@dataclass(frozen=True, slots=True)
class ScanResult:
    """Result of a detector for a scan.

    Attributes:
        score: raw, higher = more anomalous.
        p_value: conformal, None without calibration; valid if the scan is as complete as the calibration scans.
        n_calibration: number of calibration units.
        guarantee: guarantee of the p-value.
        route: the detector's route; it is not checked here that the scan belongs to it.
        planes: the slices on their own grids, in geometric order, each with every step up to the model.
    """

    score: float
    p_value: float | None
    n_calibration: int
    guarantee: str
    route: str
    planes: tuple[SliceResult, ...]

    @property
    def heatmap(self) -> np.ndarray | None:
        """float32 [F, H, W] on the native grid, higher = more anomalous, 0 outside the body; None without a map."""
        return self._stack("values")

    @property
    def body(self) -> np.ndarray | None:
        """bool [F, H, W]; None without a map."""
        return self._stack("body")

    @property
    def reconstruction(self) -> np.ndarray | None:
        """float32 [F, H, W] in physical units: the normal version of the scan; None without a reconstruction."""
        return self._stack("reconstruction")

    @property
    def history(self) -> tuple[Step, ...]:
        """The steps of the first slice, from the file to the model."""
        return self.planes[0].history

    def _stack(self, name: str) -> np.ndarray | None:
        items: list[Any] = [None if plane.values is None else getattr(plane, name) for plane in self.planes]
        if any(item is None for item in items):
            return None
        if len({item.shape for item in items}) > 1:
            raise ConfigError("The slices have different sizes, so they cannot be stacked. Use `planes` one by one.")
        return np.stack(items)


@dataclass(frozen=True, slots=True)
class _Source:
    """One slice before normalisation; `seed_id` seeds its randomness, `about` holds its attributes."""

    plane: Plane
    seed_id: str
    history: tuple[Step, ...]
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Series:
    """The slices of a series in order, and their distance if they are a regular stack."""

    sources: list[_Source]
    slice_mm: float | None


def score_scan(detector: Scorer, scan: Scan) -> ScanResult:
    """Score one series in physical units.

    Randomness depends on the detector's seed and each slice's pixels. A conditional method gets modality and position.

    Raises:
        ConfigError: more than one channel.
        Rejected: the normaliser rejects it (non-finite pixels, no foreground, no contrast), or for a detector of
            volumes, it has too few slices or an unknown spacing.
    """
    if scan.pixels.ndim != 4 or scan.pixels.shape[0] != 1 or scan.pixels.shape[1] == 0:
        raise ConfigError(f"A scan of shape {scan.pixels.shape} was given, but [1, slices, rows, columns] is needed.")
    if detector.volumes is not None:
        require_volume(scan.pixels.shape[1], scan.spacing_mm, detector.volumes.least_slices)
    return _result(detector, [_Series(list(_scan_sources(scan)), scan.spacing_mm[0])])


def _scan_sources(scan: Scan) -> Iterator[_Source]:
    last = scan.pixels.shape[1] - 1
    for i, pixels in enumerate(np.asarray(scan.pixels[0], dtype=np.float32)):
        plane = Plane(pixels, None if scan.valid is None else scan.valid[i])
        attributes = about({"modality": scan.modality}, i / last if last else None)
        yield _Source(plane, content_key(pixels[None]), scan.history, attributes)


def score_file(detector: Scorer, path: str | Path, limits: DecodeLimits | None = None) -> ScanResult:
    """Score one DICOM file: score, p-value and heatmap; see `score_files`."""
    return score_files(detector, [path], limits)


def score_files(
    detector: Scorer,
    paths: Sequence[str | Path],
    limits: DecodeLimits | None = None,
    workers: DecodeWorkers | None = None,
) -> ScanResult:
    """Score the files of one study, series by series; the files are not changed.

    Files are decoded in `workers`, or in one started for this call: a malicious file may kill a decoder, but must
    not kill the caller.

    Randomness depends on the detector's seed and the stored pixels, as for a scan from the catalogue, so scores are
    equal.

    Raises:
        EmptySelection: there are no files.
        Rejected: a file is rejected, or a series is not a regular stack, or not a volume for a detector of volumes; a
            night would not score it either.
        ConfigError: the files belong to several studies.
    """
    if not paths:
        raise EmptySelection("There are no files to score. Give the DICOM files of one study.")
    with nullcontext(workers) if workers is not None else DecodeWorkers(1, limits or DecodeLimits()) as decoders:
        decoded = [decoders.read(Path(path)) for path in paths]
    for item in decoded:
        refuse_statement(item.attributes.sop_class_uid)
    if len({item.identity.study_uid for item in decoded}) > 1:
        raise ConfigError(
            f"The {len(paths)} files belong to several studies, but a score is about one study. Split them."
        )
    series: dict[str, list[DecodedInstance]] = {}
    for item in decoded:
        series.setdefault(item.identity.series_uid, []).append(item)
    return _result(detector, [stack for key in sorted(series) for stack in _in_order(series[key], detector)])


def _in_order(instances: Sequence[DecodedInstance], detector: Scorer) -> Iterator[_Series]:
    """Yield the stacks of a series in the order in which a night scores them."""
    sources = {str(i): list(_sources(item)) for i, item in enumerate(instances)}
    allowed = Allowed(volume_of=detector.volumes.least_slices) if detector.volumes else REGULAR
    frames = {str(i): item.identity.frame_of_reference_uid for i, item in enumerate(instances)}
    for stack in split_stacks([(str(i), item.attributes) for i, item in enumerate(instances)], allowed, frames):
        require_stack_volume(stack, allowed)
        geometry, ordered = stack.geometry, []
        several = len(geometry.order) > 1
        for (name, frame), position in zip(geometry.order, geometry.relative_positions, strict=True):
            attributes = instances[int(name)].attributes.to_json()
            ordered.append(replace(sources[name][frame], about=about(attributes, position if several else None)))
        yield _Series(ordered, geometry.spacing_mm[0])


def _sources(item: DecodedInstance) -> Iterator[_Source]:
    physical, key = to_physical(item.stored, item.attributes), content_key(item.stored)
    for frame, plane in enumerate(planes(physical)):
        yield _Source(plane, f"{key}/{frame}", (*item.history, *physical.history), {})


def _result(detector: Scorer, series: Sequence[_Series]) -> ScanResult:
    scored = [_scored_series(detector, one) for one in series]
    values = [[plane.score for plane in planes] for planes in scored]
    present = [scores for scores in values if any(not math.isnan(score) for score in scores)] or values
    aggregate = detector.aggregate
    score = over([aggregate_series(scores, aggregate) for scores in present], aggregate.series, aggregate.top_k)
    calibration = detector.calibration
    return ScanResult(
        score=score,
        p_value=None if calibration is None else calibration.p_value(score),
        n_calibration=0 if calibration is None else calibration.n,
        guarantee="" if calibration is None else calibration.guarantee,
        route=detector.route,
        planes=tuple(plane for planes in scored for plane in planes),
    )


def _scored_series(detector: Scorer, series: _Series) -> list[SliceResult]:
    sources = series.sources
    normalised = detector.normaliser.series([source.plane for source in sources])
    scored: list[SliceResult]
    size, scored = len(sources) if detector.whole else detector.config.batch_size, []
    for part in in_parts(size, len(sources)):
        batch = _batch(normalised[part], sources[part], series.slice_mm)
        results = slice_results(batch, detector.score_batch(batch))
        scored += _planes(detector, results, normalised[part], sources[part])
    return scored


def _batch(normalised: Sequence[Normalised], sources: Sequence[_Source], slice_mm: float | None) -> Batch:
    return Batch(
        images=torch.from_numpy(np.stack([item.image for item in normalised])),
        body=torch.from_numpy(np.stack([item.body for item in normalised])),
        ids=tuple(source.seed_id for source in sources),
        about=tuple(source.about for source in sources),
        slice_mm=slice_mm,
    )


def _planes(
    detector: Scorer, scored: Iterable[SliceResult], normalised: Sequence[Normalised], sources: Sequence[_Source]
) -> Iterator[SliceResult]:
    for result, item, source in zip(scored, normalised, sources, strict=True):
        yield replace(detector.native(result, item.step), history=(*source.history, item.step))

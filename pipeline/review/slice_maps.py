"""Heatmap and reconstruction of one slice, computed in the background and cached on disk.

One thread computes, so that a night's list cannot overload the machine; simultaneous requests for a slice share one
computation. A slice is computed alone, or with its series if the detector reads whole series, using the statistics of
its series and the same randomness as in scoring, so that the map is the one that was scored. The files are named by
hashes of model and pixels; they hold no pseudonyms and stay valid after a rotation of the key.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import durable
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow
from pipeline.data.images.conditions import about_slice
from pipeline.data.images.dataset import collate
from pipeline.data.images.intensity import SeriesRange
from pipeline.data.images.load_slice import load_plane, pixel_shape
from pipeline.data.images.normalise import Plane
from pipeline.data.store.pixel_store import PixelStore
from pipeline.detection.pixel_threshold import PixelQuantiles
from pipeline.detection.scorer import Scorer
from pipeline.detection.slices import slice_results
from pipeline.detection.stored_detector import load_detector
from pipeline.dicom.decode.geometry import require_volume
from pipeline.review.display_frames import block_means, in_16_bits, reduced
from pipeline.review.stacks import Stack
from pipeline.stages.pacs.pixel_outline import PixelOutline, pixel_outline
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import SliceRef, SliceResult

DETECTORS = 2  # held in memory
RANGES = 32  # series whose statistics are remembered
KEPT_BYTES = 8 * 2**30  # of maps on disk; the oldest are deleted when the server starts
TOP_SHARE = 99.9  # the colour scale ends at this percentile of the map or above


@dataclass(frozen=True, slots=True)
class SliceMaps:
    """Heatmap and reconstruction of one slice, as integers with linear scales: value = integer * step + first.

    Attributes:
        heat: uint16 [H, W], 0 outside the body.
        heat_step, heat_first: its scale.
        top: the 99.9th percentile inside the body.
        image: uint16 [H, W] in the units of the original, None if the method has no reconstruction.
        image_step, image_first: its scale.
        linked: whether the original's window fits the reconstruction (it does not for projections, whose physical
            values result from the file's window).
        reduced: factor by which the maps are smaller than the stored image.
    """

    heat: np.ndarray
    heat_step: float
    heat_first: float
    top: float
    image: np.ndarray | None
    image_step: float
    image_first: float
    linked: bool
    reduced: int


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A detector in memory, with the threshold of its outline and the in-body quantiles of its calibration normals."""

    detector: Scorer
    outline: PixelOutline | None
    quantiles: PixelQuantiles | None
    sha256: str


class MapMaker:
    """Compute and cache maps; safe to share between threads. Close it, or use it as a context manager."""

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        self._catalogue, self._settings, self._store = catalogue, settings, PixelStore(settings.store)
        self._folder = settings.workspace / "cache" / "review" / "maps"
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="maps")
        self._lock = threading.Lock()
        self._waiting: dict[Path, Future[SliceMaps | None]] = {}
        self._models: OrderedDict[str, OpenModel] = OrderedDict()
        self._ranges: OrderedDict[tuple[str, str], SeriesRange | None] = OrderedDict()
        self._pool.submit(prune, self._folder, KEPT_BYTES)

    def close(self) -> None:
        """Stop computing; waiting requests are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def ask(self, finding: FindingRow, stack: Stack, index: int) -> Future[SliceMaps | None]:
        """Return a future of the maps of a slice; it yields None if the method has no map.

        The future raises what loading and scoring raise: ArtefactError, CatalogueError, Rejected.
        """
        file = self._file(finding, stack, index)
        with self._lock:
            pending = self._waiting.get(file)
            if pending is not None:
                return pending
            future = self._pool.submit(self._made, file, finding, stack, index)
            self._waiting[file] = future
        future.add_done_callback(lambda _: self._forget(file))
        return future

    def kept(self, finding: FindingRow, stack: Stack, index: int) -> SliceMaps | None:
        """Return the cached maps of a slice, or None if they have not been computed."""
        return _read(self._file(finding, stack, index))

    def open_model(self, finding: FindingRow) -> OpenModel:
        """Return the detector of a finding's run; only the registered artefact is loaded (else ArtefactError)."""
        with self._lock:
            if finding.model_sha256 in self._models:
                self._models.move_to_end(finding.model_sha256)
                return self._models[finding.model_sha256]
        folder = RunFolder(self._settings.absolute(self._catalogue.run(finding.run_id).folder))
        detector = load_detector(folder.detector, sha256=finding.model_sha256)
        quantiles = detector.calibration.pixels if detector.calibration else None
        opened = OpenModel(detector, pixel_outline(detector.calibration, folder), quantiles, finding.model_sha256)
        with self._lock:
            self._models[finding.model_sha256] = opened
            while len(self._models) > DETECTORS:
                self._models.popitem(last=False)
        return opened

    def _forget(self, file: Path) -> None:
        with self._lock:
            self._waiting.pop(file, None)

    def _file(self, finding: FindingRow, stack: Stack, index: int) -> Path:
        """Return the cache file, named by the hash of the model, the pixels of the whole series, and the
        slice's index.
        """
        words = [finding.model_sha256, *(ref.content_id for ref in stack.refs), str(index)]
        name = hashlib.sha256("\n".join(words).encode()).hexdigest()
        return self._folder / name[:2] / f"{name}.npz"

    def _made(self, file: Path, finding: FindingRow, stack: Stack, index: int) -> SliceMaps | None:
        cached = _read(file)
        if cached is not None:
            return cached
        requested: SliceMaps | None = None
        for place, native in self._results(self.open_model(finding), stack, index):
            if native.values is None:
                return None
            maps = _in_integers(native.values, native.body, native.reconstruction, stack.refs[place])
            _write(self._file(finding, stack, place), maps)
            requested = maps if place == index else requested
        return requested

    def _results(self, model: OpenModel, stack: Stack, index: int) -> Iterator[tuple[int, SliceResult]]:
        """Yield the result of a slice on its own grid; all of the stack if the detector reads whole series."""
        detector, volumes = model.detector, model.detector.volumes
        if volumes is not None:
            require_volume(len(stack.refs), [stack.refs[0].slice_mm], volumes.least_slices)
        estimated = self._range(model, stack)
        places = range(len(stack.refs)) if detector.whole else [index]
        refs = [stack.refs[place] for place in places]
        planes = [load_plane(self._store, ref) for ref in refs]
        normalised = [detector.normaliser.apply(plane, estimated) for plane in planes]
        # The content id seeds the randomness, as in scoring.
        items = [
            {"image": prepared.image, "body": prepared.body, "id": ref.content_id, "about": about_slice(ref)}
            for prepared, ref in zip(normalised, refs, strict=True)
        ]
        batch = replace(collate(items), slice_mm=refs[0].slice_mm)
        results = slice_results(batch, detector.score_batch(batch))
        for place, plane, prepared, result in zip(places, planes, normalised, results, strict=True):
            yield place, _with_surroundings(detector.native(result, prepared.step), plane)

    def _range(self, model: OpenModel, stack: Stack) -> SeriesRange | None:
        key = (model.sha256, stack.stack_id)
        if not model.detector.normaliser.needs_series:
            return None
        if key not in self._ranges:
            total = sum(prod(pixel_shape(ref)) for ref in stack.refs)
            self._ranges[key] = model.detector.normaliser.estimate(self._planes(stack), total)
            while len(self._ranges) > RANGES:
                self._ranges.popitem(last=False)
        return self._ranges[key]

    def _planes(self, stack: Stack) -> Iterator[Plane]:
        return (load_plane(self._store, ref) for ref in stack.refs)


def _with_surroundings(native: SliceResult, plane: Plane) -> SliceResult:
    """Return the result with the scan itself outside the body, where the model's output is not used."""
    if native.reconstruction is None:
        return native
    return replace(native, reconstruction=np.where(native.body, native.reconstruction, plane.pixels))


def prune(folder: Path, most: int) -> None:
    """Delete the oldest maps of a folder until at most `most` bytes are left; deleted maps can be computed again."""
    with suppress(OSError):
        newest_first = sorted(
            ((file.stat(), file) for file in folder.rglob("*.npz")), key=lambda one: -one[0].st_mtime_ns
        )
        total = 0
        for about, file in newest_first:
            total += about.st_size
            if total > most:
                file.unlink(missing_ok=True)


def _in_integers(values: np.ndarray, body: np.ndarray, reconstruction: np.ndarray | None, ref: SliceRef) -> SliceMaps:
    factor = reduced(values)[1]

    def shrunk(image: np.ndarray) -> np.ndarray:
        return image if factor == 1 else block_means(image, factor)

    heat, step, first, _ = in_16_bits(shrunk(values))
    inside = values[body]
    top = float(np.percentile(inside, TOP_SHARE)) if inside.size else 0.0
    image, image_step, image_first = None, 1.0, 0.0
    if reconstruction is not None:
        image, image_step, image_first, _ = in_16_bits(shrunk(reconstruction))
    linked = not _is_projection(ref)
    return SliceMaps(heat, step, first, top, image, image_step, image_first, linked, factor)


def _is_projection(ref: SliceRef) -> bool:
    from pipeline.dicom.decode.attributes import InstanceAttributes

    return InstanceAttributes.from_json(ref.attributes).is_projection


def _write(file: Path, maps: SliceMaps) -> None:
    """Write atomically; if the disk is full, the map is only computed again for the next reader."""
    values: dict[str, Any] = {name: getattr(maps, name) for name in SliceMaps.__slots__}
    arrays: dict[str, Any] = {name: np.asarray(value) for name, value in values.items() if value is not None}
    with suppress(OSError), durable.writing(file, lasting=False) as part, part.open("wb") as stream:
        np.savez(stream, **arrays)


def _read(file: Path) -> SliceMaps | None:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            fields = {name: arrays[name] if name in arrays.files else None for name in SliceMaps.__slots__}
    except (OSError, ValueError, KeyError, EOFError):
        return None
    plain: dict[str, Any] = {
        name: value if value is None or value.ndim else value.item() for name, value in fields.items()
    }
    return SliceMaps(**plain)

"""Most similar normal cases of a scan: nearest neighbours by features of a frozen backbone.

The index holds slices of train and validate normals of the route, normalised as for the detector. Its files are named
by a hash of their inputs, hold pixel addresses but no pseudonyms, and are built once, in a thread of their own.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sqlalchemy import select

from pipeline import durable
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow, Instance, Series, Study
from pipeline.data.images.dataset import SliceDataset, iterate_batches
from pipeline.data.sets.selection import Selection
from pipeline.data.store.pixel_store import PixelStore
from pipeline.detection.scorer import Scorer
from pipeline.nn.backbone import Backbone, BackboneConfig
from pipeline.nn.backbones import LITE0_SHA256
from pipeline.stages.run.load_slices import choose
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import SliceRef

SLICES = 800  # normals in an index, chosen by hash if there are more
SHOWN = 4
BATCH = 16
PLACE_WEIGHT = 0.5  # weight of the difference in relative position against distances of unit vectors (0 to 2)
EDGE = 224  # the image size that the backbone was trained on


@dataclass(frozen=True, slots=True)
class Neighbour:
    """One normal slice: the address of its pixels, and its cosine similarity (1 = equal)."""

    pixel_key: str
    frame: int
    alike: float


@dataclass(frozen=True, slots=True)
class NormalIndex:
    """Normals: unit vectors float32 [N, D], relative positions [N], addresses `key/frame` [N], patients by number."""

    features: np.ndarray
    places: np.ndarray
    addresses: np.ndarray
    patients: np.ndarray

    def nearest(self, feature: np.ndarray, place: float, without: set[str], count: int) -> list[Neighbour]:
        """Return the most similar slices, one per patient, without the patients of the given pixel objects."""
        alike = self.features @ feature if len(self.features) else np.zeros(0)
        rank = np.argsort(1 - alike + PLACE_WEIGHT * np.abs(self.places - place), kind="stable")
        keys = [str(one).partition("/")[0] for one in self.addresses]
        taken = {int(patient) for patient, key in zip(self.patients, keys, strict=True) if key in without}
        neighbours: list[Neighbour] = []
        for row in rank:
            if int(self.patients[row]) not in taken:
                taken.add(int(self.patients[row]))
                neighbours.append(
                    Neighbour(keys[row], int(str(self.addresses[row]).partition("/")[2]), float(alike[row]))
                )
            if len(neighbours) == count:
                break
        return neighbours


class SimilarNormals:
    """Find the most similar normal slices; safe to share between threads. Close it after use."""

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        self._catalogue, self._settings = catalogue, settings
        self._folder = settings.workspace / "cache" / "review" / "normals"
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="similar")
        self._lock = threading.Lock()
        self._indices: dict[str, NormalIndex] = {}
        self._asked: dict[tuple[str, str], Future[list[Neighbour]]] = {}
        self._backbone: Backbone | None = None

    def close(self) -> None:
        """Stop; waiting requests are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def ask(
        self, finding: FindingRow, detector: Scorer, series: Sequence[SliceRef], index: int
    ) -> Future[list[Neighbour]]:
        """Return a future of the normal slices most similar to one slice of a finding.

        Args:
            finding: finding with the model and its run.
            detector: detector of that model, whose normaliser prepares the slices.
            series: all slices of the slice's series, which a normaliser may need.
            index: position of the slice in `series`.
        """
        key = (finding.model_sha256, series[index].slice_id)
        with self._lock:
            if key not in self._asked or (self._asked[key].done() and self._asked[key].exception()):
                self._asked[key] = self._pool.submit(self._nearest, finding, detector, series, index)
            return self._asked[key]

    def find_slice(self, neighbour: Neighbour) -> SliceRef | None:
        """Return the catalogue's slice at an address, None if it is gone."""
        query = (
            select(Instance, Series.study_id, Study.patient_id)
            .join(Series, Instance.series_id == Series.series_id)
            .join(Study, Series.study_id == Study.study_id)
            .where(Instance.pixel_key == neighbour.pixel_key)
            .limit(1)
        )
        with self._catalogue.reading() as session:
            match = session.execute(query).first()
        if match is None:
            return None
        row, study_id, patient_id = match
        return SliceRef(
            row.instance_id, neighbour.frame, row.series_id, study_id, patient_id, row.pixel_key, row.attributes, 0.5
        )

    def _nearest(
        self, finding: FindingRow, detector: Scorer, series: Sequence[SliceRef], index: int
    ) -> list[Neighbour]:
        ref = series[index]
        store, members = PixelStore(self._settings.store), {ref.series_id: series}
        data = SliceDataset([ref], store, detector.normaliser, "none", members=members)
        own = {member.pixel_key for member in series}
        return self._index(finding, detector).nearest(self._features(data)[0], ref.relative_position, own, SHOWN)

    def _index(self, finding: FindingRow, detector: Scorer) -> NormalIndex:
        if finding.model_sha256 not in self._indices:
            config = RunFolder(self._settings.absolute(self._catalogue.run(finding.run_id).folder)).read_config()
            chosen = choose(self._catalogue, config, self._settings, sets=("train", "validate"))
            self._indices[finding.model_sha256] = self._cached_index(thinned(chosen, SLICES), detector)
        return self._indices[finding.model_sha256]

    def _cached_index(self, chosen: Selection, detector: Scorer) -> NormalIndex:
        words = [LITE0_SHA256, str(EDGE), repr(detector.normaliser.to_json()), *map(address, chosen.slices)]
        file = self._folder / f"{hashlib.sha256(chr(10).join(words).encode()).hexdigest()}.npz"
        with suppress(OSError, ValueError, KeyError), np.load(file, allow_pickle=False) as arrays:
            return NormalIndex(*(arrays[name] for name in NormalIndex.__slots__))
        store = PixelStore(self._settings.store)
        data = SliceDataset(chosen.slices, store, detector.normaliser, "none", members=chosen.members)
        features = self._features(data)
        refs = [ref for ref in data.slices if not data.refuses(ref.series_id)]
        places = np.array([ref.relative_position for ref in refs])
        numbers = {patient: number for number, patient in enumerate(dict.fromkeys(ref.patient_id for ref in refs))}
        patients = np.array([numbers[ref.patient_id] for ref in refs], np.int64)
        index = NormalIndex(features, places, np.array([address(ref) for ref in refs]), patients)
        _write(file, index)
        return index

    def _features(self, data: SliceDataset) -> np.ndarray:
        """Return unit vectors [N, D] of the readable slices: the means of the deep and the finer feature maps."""
        if self._backbone is None:
            self._backbone = Backbone(BackboneConfig(input_size=EDGE))
        features = []
        for batch in iterate_batches(data, BATCH):
            with torch.inference_mode():
                maps = self._backbone(batch.images)
            vectors = [torch.nn.functional.normalize(one.mean(dim=(2, 3)), dim=1) for one in maps]
            features.append(torch.nn.functional.normalize(torch.cat(vectors, dim=1), dim=1).numpy())
        return np.concatenate(features) if features else np.zeros((0, 1), np.float32)


def address(ref: SliceRef) -> str:
    """Return the address of a slice's pixels, which does not change when the pseudonym key is rotated."""
    return ref.content_id


def thinned(selection: Selection, count: int) -> Selection:
    """Return at most `count` slices of a selection, chosen by hash, in their original order."""
    if len(selection.slices) <= count:
        return selection
    drawn = set(sorted(map(_draw, selection.slices))[:count])
    slices = tuple(ref for ref in selection.slices if _draw(ref) in drawn)
    return replace(selection, slices=slices)


def _draw(ref: SliceRef) -> str:
    return hashlib.sha256(address(ref).encode()).hexdigest()


def _write(file: Path, index: NormalIndex) -> None:
    with suppress(OSError), durable.writing(file, lasting=False) as part, part.open("wb") as stream:
        np.savez(stream, **{name: getattr(index, name) for name in NormalIndex.__slots__})

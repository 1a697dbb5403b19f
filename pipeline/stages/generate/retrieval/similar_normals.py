"""Most similar normal cases of a scan, by an index of a frozen network's features.

The index holds slices of train and validate normals of the route, normalised as for the detector. It is the one that
`nightread generate retrieve` keeps up to date; where that was never run, a smaller one is made in a thread of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sqlalchemy import select

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow, Instance, Series, Study
from pipeline.data.images.dataset import SliceDataset
from pipeline.data.images.normalise import Normaliser
from pipeline.data.sets.selection import Selection
from pipeline.data.store.pixel_store import PixelStore
from pipeline.detection.scorer import Scorer
from pipeline.methods.stored_model import images_of
from pipeline.retrieval.config import IndexConfig
from pipeline.retrieval.encoders import Encoder, frozen_encoder
from pipeline.retrieval.neighbours import find_neighbours
from pipeline.retrieval.stored_index import version_of
from pipeline.retrieval.vector_index import VectorIndex
from pipeline.stages.generate.retrieval.slice_index import index_folder, key_of, read_patients, synchronise
from pipeline.stages.run.load_slices import choose
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import SetName, SliceRef

SETS: tuple[SetName, ...] = ("train", "validate")
SLICES = 800  # normals of an index that is made while a reader waits, chosen by hash if there are more
SHOWN = 4
PLACE_WEIGHT = 1.0  # weight of the difference in relative position against squared distances of unit vectors (0 to 4)


@dataclass(frozen=True, slots=True)
class NormalCase:
    """One normal slice: the address of its pixels, and its cosine similarity (1 = equal)."""

    pixel_key: str
    frame: int
    alike: float


@dataclass(slots=True)
class OpenNormals:
    """The index of a route's normals, and where each slice is along its series.

    Attributes:
        folder: of the index.
        index: as it was when it was last opened.
        places: relative position by address.
        encoder: of the index.
    """

    folder: Path
    index: VectorIndex
    places: Mapping[str, float]
    encoder: Encoder

    @property
    def is_current(self) -> bool:
        """Whether no process has changed the index since it was opened."""
        return version_of(self.folder) == self.index.version

    def penalise(self, place: float) -> Callable[[int, Sequence[str]], np.ndarray]:
        """Return what is added to the distance of slices from elsewhere in the body; unknown places cost most."""

        def penalty(_query: int, addresses: Sequence[str]) -> np.ndarray:
            """Return the penalty of each address."""
            return PLACE_WEIGHT * np.array([abs(self.places.get(one, 2.0) - place) for one in addresses])

        return penalty


class SimilarNormals:
    """Find the most similar normal slices; safe to share between threads. Close it after use."""

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        self._catalogue, self._settings = catalogue, settings
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="similar")
        self._lock = threading.Lock()
        self._opened: dict[str, OpenNormals] = {}
        self._asked: dict[tuple[str, str], Future[list[NormalCase]]] = {}

    def close(self) -> None:
        """Stop; waiting requests are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def ask(
        self, finding: FindingRow, detector: Scorer, series: Sequence[SliceRef], index: int
    ) -> Future[list[NormalCase]]:
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

    def find_slice(self, case: NormalCase) -> SliceRef | None:
        """Return the catalogue's slice at an address, None if it is gone."""
        query = (
            select(Instance, Series.study_id, Study.patient_id)
            .join(Series, Instance.series_id == Series.series_id)
            .join(Study, Series.study_id == Study.study_id)
            .where(Instance.pixel_key == case.pixel_key)
            .limit(1)
        )
        with self._catalogue.reading() as session:
            match = session.execute(query).first()
        if match is None:
            return None
        row, study_id, patient_id = match
        return SliceRef(
            row.instance_id, case.frame, row.series_id, study_id, patient_id, row.pixel_key, row.attributes, 0.5
        )

    def _nearest(
        self, finding: FindingRow, detector: Scorer, series: Sequence[SliceRef], index: int
    ) -> list[NormalCase]:
        ref, normals = series[index], self._open(finding, detector)
        store, members = PixelStore(self._settings.store), {ref.stack_id: series}
        item = SliceDataset([ref], store, detector.normaliser, "none", members=members).batch([0])
        own = {patient for group in self._patients([ref.content_id]).values() for patient in group}
        near = find_neighbours(
            normals.index,
            normals.encoder.embed(item.images),
            [own | {ref.patient_id}],
            SHOWN,
            self._patients,
            normals.penalise(ref.relative_position),
        )[0]
        return [NormalCase(key_of(one.address), _frame_of(one.address), 1 - one.distance / 2) for one in near]

    def _patients(self, addresses: Collection[str]) -> Mapping[str, Collection[str]]:
        return read_patients(self._catalogue, addresses)

    def _open(self, finding: FindingRow, detector: Scorer) -> OpenNormals:
        opened = self._opened.get(finding.model_sha256)
        if opened is None or not opened.is_current:
            opened = self._opened[finding.model_sha256] = self._make(finding, detector.normaliser)
        return opened

    def _make(self, finding: FindingRow, normaliser: Normaliser) -> OpenNormals:
        config = RunFolder(self._settings.absolute(self._catalogue.run(finding.run_id).folder)).read_config()
        chosen = choose(self._catalogue, config, self._settings, sets=SETS)
        store = PixelStore(self._settings.store)

        def read(part: Selection) -> SliceDataset:
            """Return slices as the detector sees them."""
            return SliceDataset(part.slices, store, normaliser, "none", members=part.members)

        encoder = frozen_encoder(images_of(normaliser, None))
        folder = index_folder(self._settings, config.data.route, encoder, SETS, IndexConfig())
        index = synchronise(folder, encoder, IndexConfig(), chosen, read, limit=SLICES).index
        return OpenNormals(folder, index, {r.content_id: r.relative_position for r in chosen.slices}, encoder)


def _frame_of(address: str) -> int:
    return int(address.partition("/")[2])

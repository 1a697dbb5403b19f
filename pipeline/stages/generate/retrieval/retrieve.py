"""Task `retrieve`: the nearest training images of held-out ones, by a model's codes, beside frozen features and pixels.

The indices are kept in the workspace, named by encoder, and every run brings them up to date with the catalogue first:
new slices are added, and those that are gone or no longer normal are removed. So a nightly task is a nightly index.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.images.dataset import SliceDataset
from pipeline.data.sets.selection import Selection
from pipeline.errors import ConfigError, EmptySelection
from pipeline.evaluation.retrieval_quality import PrecisionRow, compare_precision, share_relevant
from pipeline.methods.stored_model import images_of
from pipeline.retrieval.config import IndexConfig
from pipeline.retrieval.encoders import (
    Encoder,
    code_encoder,
    frozen_encoder,
    pixel_encoder,
    require_code_of_image,
)
from pipeline.retrieval.neighbours import Neighbour, find_neighbours
from pipeline.retrieval.vector_index import VectorIndex, recall
from pipeline.stages.generate.retrieval.relevance import Library, Relevance
from pipeline.stages.generate.retrieval.retrieval_report import RetrievalResult, report_retrieval
from pipeline.stages.generate.retrieval.slice_index import index_folder, patients_of_refs, synchronise
from pipeline.stages.generate.task_config import RetrieveTask
from pipeline.stages.generate.task_images import choose_real, choose_some, read_real
from pipeline.stages.generate.task_report import TaskReport, recorded
from pipeline.stages.generate.trained_model import TrainedModel, train_for
from pipeline.stages.run.load_slices import dataset

TIMED = 100  # queries whose time is measured, one by one
EXACT = IndexConfig(kind="exact")

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Way:
    """One way to search: an encoder, its index, whether every vector is compared, and the queries' vectors."""

    name: str
    index: VectorIndex
    exact: bool
    vectors: np.ndarray
    seconds_per_image: float


def run_retrieve(
    config: RetrieveTask, settings: Settings, progress: bool = False, on_progress: OnProgress | None = None
) -> TaskReport:
    """Bring the indices up to date, search them with held-out images, and report how many neighbours are relevant.

    Args:
        config: the task.
        settings: the workspace.
        progress: show a progress bar while the model is trained.
        on_progress: called with (slices encoded, slices in all) for each encoder.

    Raises:
        ConfigError: the method makes no code of an image, it sees volumes, or every image is relevant to every other.
        EmptySelection: a set has no normal slices, or the queries are of one patient.
        ArtefactError: an index of another encoder or a damaged one is in the way.
    """
    trained = train_for(config, settings, require_code_of_image, progress)
    if trained.model.volumes is not None:
        raise ConfigError("A model of volumes makes no codes of single slices. Name a model of slices.")
    folder = trained.make_folder(config, settings)
    with recorded(folder, settings) as summary:
        library = read_library(config, trained, settings)
        ways = list(open_ways(config, trained, library, settings, on_progress))
        results = [search(way, library, config) for way in ways]
        rows = compare(results, library, config)
        report = report_retrieval(config, trained, folder, settings, library, results, rows)
        report.publish(config, settings)
        summary |= report.metrics
    return report


def read_library(config: RetrieveTask, trained: TrainedModel, settings: Settings) -> Library:
    """Choose what is searched, and read the queries.

    Raises:
        ConfigError, EmptySelection: see `run_retrieve`.
    """
    with Catalogue.open(settings) as catalogue:
        chosen = choose_real(trained.run, settings, catalogue, config.searched)
        asked = choose_some(choose_real(trained.run, settings, catalogue, config.of), config.count, config.seed)
    queries = read_real(asked, trained.run, settings, trained.model)
    if len({*queries.patients}) < 2:
        raise EmptySelection("The queries are of one patient, and intervals need two. Choose other sets.")
    return Library(chosen, queries, Relevance.of(config.classes, config.level, chosen.slices, queries.refs))


def open_ways(
    config: RetrieveTask,
    trained: TrainedModel,
    library: Library,
    settings: Settings,
    on_progress: OnProgress | None = None,
) -> Sequence[Way]:
    """Bring the index of each encoder up to date, and return the ways to search, the plainest first."""
    images = images_of(trained.model.normaliser, None)
    encoders = [pixel_encoder(images), frozen_encoder(images), code_encoder(trained.model)]
    kinds = [EXACT, IndexConfig(), config.index]
    ways = []
    for encoder, kind in zip(encoders, kinds, strict=True):
        index = _bring_up_to_date(config, encoder, kind, trained, library, settings, on_progress)
        start = time.process_time()
        vectors = encoder.embed(library.queries.images)
        seconds = (time.process_time() - start) / len(vectors)
        ways.append(Way(encoder.kind, index, True, vectors, seconds))
    if ways[-1].index.structure is not None:
        ways.append(replace(ways[-1], name=f"{ways[-1].name}, {config.index.kind}", exact=False))
    return ways


def _bring_up_to_date(
    config: RetrieveTask,
    encoder: Encoder,
    kind: IndexConfig,
    trained: TrainedModel,
    library: Library,
    settings: Settings,
    on_progress: OnProgress | None,
) -> VectorIndex:
    def read(part: Selection) -> SliceDataset:
        """Return slices as the model sees them."""
        return dataset(part, trained.run, settings, cache="none", whole=False)

    folder = index_folder(settings, trained.run.data.route, encoder, config.searched, kind)
    index = synchronise(folder, encoder, kind, library.chosen, read, on_progress=on_progress).index
    if not len(index):
        raise EmptySelection("None of the training images could be read, so there is nothing to search.")
    return index


def search(way: Way, library: Library, config: RetrieveTask) -> RetrievalResult:
    """Search with every query, and measure the time of single ones."""
    patients = patients_of_refs(library.chosen.slices)
    own = [{patient} for patient in library.queries.patients]
    near = find_neighbours(way.index, way.vectors, own, config.neighbours, lambda addresses: patients, exact=way.exact)
    times = []
    for query in way.vectors[:TIMED]:
        start = time.perf_counter()
        way.index.search(query[None], config.neighbours, way.exact)
        times.append(1000 * (time.perf_counter() - start))
    return RetrievalResult(
        name=way.name,
        neighbours=near,
        recall=None if way.exact else _recall(way, config.neighbours),
        vector_bytes=way.index.searched_bytes(way.exact),
        query_ms=float(np.median(times)),
        encode_seconds=way.seconds_per_image,
    )


def _recall(way: Way, count: int) -> float:
    truth = way.index.search(way.vectors, count, exact=True)[1]
    return float(recall(truth, way.index.search(way.vectors, count)[1]).mean())


def compare(results: Sequence[RetrievalResult], library: Library, config: RetrieveTask) -> tuple[PrecisionRow, ...]:
    """Return the precision of every way and of images drawn at random, which come first."""
    measured = {"drawn at random": library.relevance.by_chance()}
    for result in results:
        measured[result.name] = share_relevant(
            [_relevant(library, number, near) for number, near in enumerate(result.neighbours)], config.neighbours
        )
    against = [result.name for result in results[:2]]
    return compare_precision(measured, library.queries.patients, against)


def _relevant(library: Library, query: int, near: Sequence[Neighbour]) -> list[bool]:
    return [library.relevance.is_relevant(query, one.address) for one in near]

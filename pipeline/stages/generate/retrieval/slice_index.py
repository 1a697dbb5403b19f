"""Index of a route's slices: kept as the catalogue says, so that what is new is added and what is gone is removed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import select

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.database import chunks
from pipeline.data.catalogue.schema import Instance, Series, Study
from pipeline.data.images.dataset import SliceDataset, iterate_batches
from pipeline.data.sets.selection import Selection
from pipeline.nn.rng import row_key
from pipeline.retrieval.change_index import Batch, remove_pixels, update_index
from pipeline.retrieval.config import IndexConfig
from pipeline.retrieval.encoders import Encoder
from pipeline.retrieval.stored_index import MANIFEST, open_index
from pipeline.retrieval.vector_index import VectorIndex
from pipeline.types import SliceRef

AT_ONCE = 64
STEP = 16_384  # slices after which an index is written, so that an interrupted one continues from there

OpenSlices = Callable[[Selection], SliceDataset]


@dataclass(frozen=True, slots=True)
class Synchronised:
    """An index that agrees with the catalogue, and what that took.

    Attributes:
        index: the open index.
        added, removed: slices.
        seconds: CPU seconds of encoding those that were added.
    """

    index: VectorIndex
    added: int
    removed: int
    seconds: float


def index_folder(settings: Settings, route: str, encoder: Encoder, sets: Collection[str], config: IndexConfig) -> Path:
    """Return the folder of the index of a route's normals: one per encoder, sets and configuration."""
    return settings.indices / f"{route}-{row_key(encoder.sha256, *sorted(sets), config.fingerprint()):016x}"


def synchronise(
    folder: Path,
    encoder: Encoder,
    config: IndexConfig,
    chosen: Selection,
    open_slices: OpenSlices,
    limit: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Synchronised:
    """Add the slices of a selection that an index lacks, and remove those that are no longer in the selection.

    Args:
        folder: of the index.
        encoder: of its vectors.
        config: how it is searched.
        chosen: what it should hold; slices with the same pixels are one entry.
        open_slices: reads slices as the encoder sees them; series that it refuses are left out.
        limit: most entries that it grows to, chosen by hash; None for all.
        on_progress: called with (slices encoded, slices in all).

    Raises:
        ArtefactError: another encoder made the index, or a byte of it was changed.
    """
    refs = {ref.content_id: ref for ref in chosen.slices}
    held = {*open_index(folder, encoder.facts).list_addresses()} if (folder / MANIFEST).is_file() else set()
    gone = held - refs.keys()
    missing = [ref for address, ref in refs.items() if address not in held]
    if limit is not None:
        room = max(0, limit - len(held) + len(gone))
        missing = sorted(missing, key=lambda ref: row_key(ref.content_id))[:room]
    seconds: list[float] = []
    index = update_index(folder, encoder.facts, config, gone=gone) if gone or not held else None
    for first in range(0, len(missing), STEP):
        part = replace(chosen, slices=tuple(missing[first : first + STEP]))
        batches = _encode(open_slices(part), encoder, seconds)
        index = update_index(folder, encoder.facts, config, new=_counted(batches, first, len(missing), on_progress))
    index = open_index(folder, encoder.facts) if index is None else index
    return Synchronised(index, len(index) - len(held) + len(gone), len(gone), sum(seconds))


def _encode(data: SliceDataset, encoder: Encoder, seconds: list[float]) -> Iterator[Batch]:
    for batch in iterate_batches(data, AT_ONCE):
        start = time.process_time()
        vectors = encoder.embed(batch.images)
        seconds.append(time.process_time() - start)
        yield [data.ref(one).content_id for one in batch.ids], vectors


def _counted(
    batches: Iterator[Batch], done: int, total: int, on_progress: Callable[[int, int], None] | None
) -> Iterator[Batch]:
    for batch in batches:
        yield batch
        done += len(batch[0])
        if on_progress is not None:
            on_progress(done, total)


def read_patients(catalogue: Catalogue, addresses: Collection[str]) -> Mapping[str, Collection[str]]:
    """Return the patients of the pixels at each address; an address whose pixels are gone is absent."""
    by_key: dict[str, set[str]] = defaultdict(set)
    query = (
        select(Instance.pixel_key, Study.patient_id)
        .join(Series, Instance.series_id == Series.series_id)
        .join(Study, Series.study_id == Study.study_id)
    )
    with catalogue.reading() as session:
        for part in chunks(sorted({key_of(address) for address in addresses})):
            for key, patient in session.execute(query.where(Instance.pixel_key.in_(part))):
                by_key[key].add(patient)
    return {address: by_key[key] for address in addresses if (key := key_of(address)) in by_key}


def patients_of_refs(refs: Sequence[SliceRef]) -> dict[str, set[str]]:
    """Return the patients of the pixels at each address of some slices."""
    patients: dict[str, set[str]] = defaultdict(set)
    for ref in refs:
        patients[ref.content_id].add(ref.patient_id)
    return dict(patients)


def key_of(address: str) -> str:
    """Return the pixel key of a slice's address."""
    return address.partition("/")[0]


def forget_pixels(settings: Settings, keys: Collection[str]) -> int:
    """Remove pixels from every index of the workspace, and return the number of entries that are gone.

    For the deletion of a patient: their entries and codes are then on no disk, whatever model made them.
    """
    folders = sorted(settings.indices.glob(f"*/{MANIFEST}")) if settings.indices.is_dir() else []
    return sum(remove_pixels(file.parent, keys) for file in folders)

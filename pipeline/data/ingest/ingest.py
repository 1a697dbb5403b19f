"""Ingest files, folders and archives into the catalogue and the pixel store, each object once.

The order of writes makes a kill at any moment harmless: pixels first (content-addressed; without a row they are reused
later), then the crosswalk (so that every pseudonym in the catalogue can be resolved), then, in one transaction,
instances, rejections and the record that the file was seen. A file without that record is simply read again next time.

Decoding (worker processes), writing pixels (threads, which wait for the disk together) and entering rows (batches)
overlap. Files are entered in the order of discovery, so the same folder always gives the same catalogue.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, cast

from cachetools import LRUCache

from pipeline.config import Settings
from pipeline.data.catalogue.admission import Outcome
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.erase_rows import list_erased
from pipeline.data.catalogue.refuse_again import refuse_erased, refuse_removed
from pipeline.data.catalogue.removed_pixels import has_removals, read_removals
from pipeline.data.ingest.enter_batch import Accepted, enter, find_settled
from pipeline.data.ingest.sources import Item, Refused, Seen, Unchanged, find, seen_of
from pipeline.data.ingest.write_pixels import Decoded, group_in_batches, in_store
from pipeline.data.store.pixel_store import PixelStore
from pipeline.dicom.decode.burned_in import check_burned_in
from pipeline.dicom.decode.own_objects import refuse_statement
from pipeline.dicom.decode.read import DecodedInstance
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.pseudonyms import Pseudonyms
from pipeline.dicom.intake.sandbox import DecodeWorkers
from pipeline.errors import Rejected

_LOOKUP = 200


@dataclass(frozen=True, slots=True)
class IngestReport:
    """Counts of one ingest; `files` is the sum of all other counts, `rejected` counts by code."""

    files: int
    added: int
    same: int
    new_versions: int
    skipped: int
    rejected: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON."""
        return asdict(self)


def ingest(
    paths: Sequence[Path], settings: Settings, on_progress: Callable[[int, int], None] | None = None
) -> IngestReport:
    """Ingest files, folders and archives; repeated or concurrent ingests add nothing twice.

    Memory does not grow with the number of files. `on_progress(done, total)` is called after every batch; archives may
    hold more files than `total` says at first.

    Raises:
        CatalogueError: database or store cannot be written. Files entered before remain; ingest again afterwards.
        IdentityError: key file or crosswalk cannot be used.
    """
    started = time.monotonic()
    total = _count_files(paths) if on_progress else 0
    with _Intake(settings) as intake:
        for _ in intake.run(paths):
            if on_progress:
                on_progress(intake.files, max(total, intake.files))
        return intake.report(time.monotonic() - started)


def _count_files(paths: Sequence[Path]) -> int:
    return sum(sum(len(files) for _, _, files in os.walk(path)) if path.is_dir() else 1 for path in map(Path, paths))


class _Intake:
    """Open databases, store and workers of one ingest, and its counts."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stack = contextlib.ExitStack()
        self._counts: Counter[str] = Counter()
        self._rejected: Counter[str] = Counter()
        self._removals: LRUCache[str, datetime | None] = LRUCache(_LOOKUP)

    def __enter__(self) -> _Intake:
        with contextlib.ExitStack() as stack:
            self._catalogue = stack.enter_context(Catalogue.open(self._settings))
            self._crosswalk = stack.enter_context(Crosswalk.open(self._settings))
            self._pseudonyms = stack.enter_context(Pseudonyms.open(self._settings))
            self._workers = stack.enter_context(DecodeWorkers(self._settings.workers, self._settings.decode))
            self._store = PixelStore(self._settings.store)
            with self._catalogue.reading() as session:
                self._erased = list_erased(session)
                self._has_removals = has_removals(session)  # `admit` asks again, for those removed meanwhile
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def files(self) -> int:
        """Number of files done so far."""
        return self._counts.total() + self._rejected.total()

    def run(self, paths: Sequence[Path]) -> Iterator[None]:
        """Enter everything below `paths`, yielding after each batch; the next batch is decoded meanwhile."""
        items = find(paths, self._pseudonyms, self._settings, self._is_settled)
        records = in_store(self._store, self._decoded(self._fresh(items)))
        entering: Future[list[Outcome | Rejected]] | None = None
        with ThreadPoolExecutor(1, "catalogue") as pool:  # one thread: batches are entered in order
            for batch in group_in_batches(records):
                if entering is not None:
                    self._count(entering.result())
                    yield
                entering = pool.submit(enter, self._catalogue, self._crosswalk, self._pseudonyms, batch)
            if entering is not None:
                self._count(entering.result())
                yield

    def report(self, seconds: float) -> IngestReport:
        """Return the counts."""
        return IngestReport(
            files=self.files,
            added=self._counts[Outcome.ADDED.value],
            same=self._counts[Outcome.SAME.value],
            new_versions=self._counts[Outcome.NEW_VERSION.value],
            skipped=self._counts["skipped"],
            rejected=dict(sorted(self._rejected.items())),
            seconds=round(seconds, 3),
        )

    def _fresh(self, items: Iterable[Item]) -> Iterator[Seen | Refused]:
        """Yield the files that are new or have changed since they were last seen."""
        rest = iter(items)
        while chunk := list(islice(rest, _LOOKUP)):
            readable = [item for item in chunk if not isinstance(item, Unchanged)]
            unchanged = find_settled(self._catalogue, self._store, [seen_of(item) for item in readable])
            fresh = [item for item in readable if seen_of(item).path_id not in unchanged]
            self._counts["skipped"] += len(chunk) - len(fresh)
            yield from fresh

    def _is_settled(self, seen: Seen) -> bool:
        return bool(find_settled(self._catalogue, self._store, [seen]))

    def _decoded(self, fresh: Iterable[Seen | Refused]) -> Iterator[Decoded | Refused]:
        """Decode in the workers; items that need no decoding keep their place between the files."""
        order: deque[Seen | Refused] = deque()
        for _, result in self._workers.read_many(_paths(fresh, order)):
            while isinstance(order[0], Refused):
                yield cast(Refused, order.popleft())
            yield self._judged(cast(Seen, order.popleft()), result)
        yield from cast("Iterable[Refused]", order)  # each file is paired with its result above

    def _judged(self, seen: Seen, result: DecodedInstance | Rejected) -> Decoded | Refused:
        if isinstance(result, Rejected):
            return Refused(seen, result)
        try:
            refuse_statement(result.attributes.sop_class_uid)
            check_burned_in(result.attributes, self._settings.burned_in)
            ids = self._pseudonyms.of(result.identity, self._settings.site)
            if ids.patient_id in self._erased:  # before their pixels reach the store; `admit` asks again
                raise refuse_erased(ids.patient_id)
            if removed_at := self._find_removal(ids.series_id):
                raise refuse_removed(removed_at, ids.study_id)
        except Rejected as rejected:
            return Refused(seen, rejected)
        return Decoded(Accepted(seen, ids, result.identity, result.attributes, ""), result.stored)

    def _find_removal(self, series_id: str) -> datetime | None:
        if not self._has_removals:
            return None
        if series_id not in self._removals:
            with self._catalogue.reading() as session:
                self._removals[series_id] = read_removals(session, [series_id]).get(series_id)
        return self._removals[series_id]

    def _count(self, outcomes: Sequence[Outcome | Rejected]) -> None:
        for outcome in outcomes:
            if isinstance(outcome, Rejected):
                self._rejected[outcome.code.value] += 1
            else:
                self._counts[outcome.value] += 1


def _paths(fresh: Iterable[Seen | Refused], order: deque[Seen | Refused]) -> Iterator[Path]:
    """Yield the paths to decode, and append every item to `order`."""
    for item in fresh:
        order.append(item)
        if isinstance(item, Seen):
            yield item.path

"""Write decoded files to the store and group them into batches: in order, overlapping, with bounded memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from pipeline.data.ingest.enter_batch import Accepted, Record
from pipeline.data.ingest.sources import Refused
from pipeline.data.store.pixel_store import PixelStore
from pipeline.errors import NightreadError

# A commit and its statements cost as much as entering fifty rows, so batches are large, but not when files are slow.
_BATCH, _BATCH_SECONDS = 200, 5.0
# The threads mostly wait for fsync, and the file system flushes concurrent requests together: 8 threads write seven
# times as many small objects per second as one.
_WRITERS, _WAITING = 8, 24
# Bytes of decoded arrays that may wait for the disk; a single larger instance waits alone.
_WAITING_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True, repr=False)
class Decoded:
    """A record without its pixel key, and its pixels [F, H, W]."""

    record: Accepted
    stored: np.ndarray


@dataclass(frozen=True, slots=True, repr=False)
class _Waiting:
    """A record whose pixels are being written to the store, or a record without pixels."""

    record: Record
    key: Future[str] | None = None
    nbytes: int = 0

    def is_done(self) -> bool:
        return self.key is None or self.key.done()

    def finished(self) -> Record:
        """Wait for the pixels and return the complete record."""
        return self.record if self.key is None else replace(cast(Accepted, self.record), pixel_key=self.key.result())


def in_store(store: PixelStore, stream: Iterable[Decoded | Refused]) -> Iterator[Record]:
    """Write pixels in threads and yield the records in order, each once its pixels are safe.

    Raises:
        CatalogueError: the store cannot be written; raised in place of the file that failed.
    """
    waiting: deque[_Waiting] = deque()
    with ThreadPoolExecutor(_WRITERS, "pixels") as pool:
        for item in stream:
            waiting.append(_sent(pool, store, item))
            while waiting and (waiting[0].is_done() or _is_full(waiting)):
                yield waiting.popleft().finished()
        while waiting:
            yield waiting.popleft().finished()


def _sent(pool: ThreadPoolExecutor, store: PixelStore, item: Decoded | Refused) -> _Waiting:
    if isinstance(item, Decoded):
        return _Waiting(item.record, pool.submit(store.put, item.stored), item.stored.nbytes)
    return _Waiting(item)


def _is_full(waiting: deque[_Waiting]) -> bool:
    return len(waiting) > _WAITING or sum(item.nbytes for item in waiting) > _WAITING_BYTES


def group_in_batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Group records for one transaction each; records before an error are still yielded before it is raised."""
    batch: list[Record] = []
    started = time.monotonic()
    try:
        for record in records:
            batch.append(record)
            if len(batch) >= _BATCH or time.monotonic() - started > _BATCH_SECONDS:
                yield batch
                batch, started = [], time.monotonic()
    except NightreadError:
        if batch:
            yield batch
        raise
    if batch:
        yield batch

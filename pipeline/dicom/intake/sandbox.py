"""Decode untrusted files in processes that may crash, hang or run out of memory, and continue with the next file.

Each worker is a fresh interpreter with pydicom and the decoders loaded (half a second, once). Its address space is
limited, and the parent enforces the time limit. A worker that dies is replaced; the file that killed it is rejected.
Pixels come back through an anonymous memory file, everything else as JSON: no pickle, which could execute code.
"""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.read import DecodedInstance
from pipeline.dicom.intake.worker_process import WorkerProcess
from pipeline.errors import Rejected

LOOK_AHEAD = 3  # files that each worker may be ahead of the consumer


class _Job(NamedTuple):
    path: Path
    outcome: Future[DecodedInstance | Rejected]


_Jobs = queue.SimpleQueue[_Job | None]  # None: no more will come


class DecodeWorkers:
    """Pool of decode workers: a context manager, safe to use from several threads.

    Processes start with the first files, so that an ingest of few or only unchanged files starts few or none.

    Args:
        workers: largest number of processes.
        limits: time and memory that one file may use.
    """

    def __init__(self, workers: int, limits: DecodeLimits) -> None:
        self._count = max(1, workers)
        self._limits = limits
        self._idle: queue.LifoQueue[WorkerProcess] = queue.LifoQueue()  # last in, first out: a running one comes first
        self._all: list[WorkerProcess] = []

    def __enter__(self) -> Self:
        self._all = [WorkerProcess(self._limits) for _ in range(self._count)]
        for worker in self._all:
            self._idle.put(worker)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._all:
            worker.stop()

    def read(self, path: Path) -> DecodedInstance:
        """Decode one file in a worker.

        Raises:
            Rejected: as `read_instance`, and DECODER_CRASHED, DECODE_TIMEOUT or DECODE_MEMORY.
        """
        with self._borrowed() as worker:
            worker.give(Path(path))
            outcome = worker.take()
        if isinstance(outcome, Rejected):
            raise outcome
        return outcome

    def read_many(self, paths: Iterable[Path]) -> Iterator[tuple[Path, DecodedInstance | Rejected]]:
        """Decode files in parallel and yield them in the given order, at most a few files ahead of the consumer."""
        jobs: _Jobs = queue.SimpleQueue()
        pending: deque[_Job] = deque()
        threads = ThreadPoolExecutor(self._count, thread_name_prefix="decode")
        try:
            for _ in range(self._count):
                threads.submit(self._work, jobs)
            for path in paths:
                pending.append(_Job(path, Future()))
                jobs.put(pending[-1])
                # Decoded files are large, so the number that wait for the consumer is bounded.
                if len(pending) > LOOK_AHEAD * self._count:
                    yield _finished(pending.popleft())
            while pending:
                yield _finished(pending.popleft())
        finally:
            while _next_at_once(jobs) is not None:
                pass
            jobs.put(None)
            threads.shutdown(wait=True)

    def _work(self, jobs: _Jobs) -> None:
        """Serve jobs until no more come; a worker is borrowed only while there are some."""
        while (job := jobs.get()) is not None:
            with self._borrowed() as worker:
                _serve(worker, job, jobs)
        jobs.put(None)  # for the other threads

    @contextmanager
    def _borrowed(self) -> Iterator[WorkerProcess]:
        worker = self._idle.get()
        try:
            yield worker
        except BaseException:
            worker.stop()  # or the next borrower would get answers about these files
            raise
        finally:
            self._idle.put(worker)


def _serve(worker: WorkerProcess, job: _Job | None, jobs: _Jobs) -> None:
    """Decode a job and all that follow without a pause; each job gets its outcome, or the error that ended the work."""
    given: deque[_Job] = deque()
    while job is not None or given:
        try:
            if job is not None:
                given.append(job)
                worker.give(job.path)
            job = _next_at_once(jobs) if worker.has_room else None
            if job is None:
                outcome = worker.take()
                given.popleft().outcome.set_result(outcome)
        except Exception as error:
            worker.stop()
            for one in given:
                one.outcome.set_exception(error)
            given.clear()
            job = None


def _next_at_once(jobs: _Jobs) -> _Job | None:
    """Return the next job without waiting, or None where no job is ready."""
    try:
        job = jobs.get_nowait()
    except queue.Empty:
        return None
    if job is None:
        jobs.put(None)  # the end is for every thread
    return job


def _finished(job: _Job) -> tuple[Path, DecodedInstance | Rejected]:
    return job.path, job.outcome.result()

"""Decode untrusted files in processes that may crash, hang or run out of memory, and continue with the next file.

Each worker is a fresh interpreter with pydicom and the decoders loaded (half a second, once). Its address space is
limited, and the parent enforces the time limit. A worker that dies is replaced; the file that killed it is rejected.
Pixels come back through an anonymous memory file, everything else as JSON: no pickle, which could execute code.
"""

from __future__ import annotations

import json
import os
import queue
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

import numpy as np

import pipeline
from pipeline.config import DecodeLimits
from pipeline.dicom.decode.attributes import InstanceAttributes, RawIdentity
from pipeline.dicom.decode.read import DecodedInstance
from pipeline.dicom.intake.decode_worker import HEADER, read_array, write_message
from pipeline.errors import NightreadError, Rejected, RejectionCode
from pipeline.types import Step

START_SECONDS = 120.0  # starting Python may take long on a busy machine
KEEP_BYTES = 32 * 2**20  # pixel memory that a worker keeps between files
LOOK_AHEAD = 2  # decoded files that each worker may be ahead of the consumer


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
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()  # last in, first out: a running one comes first
        self._all: list[_Worker] = []

    def __enter__(self) -> Self:
        self._all = [_Worker(self._limits) for _ in range(self._count)]
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
        worker = self._idle.get()
        try:
            return worker.read(Path(path))
        finally:
            self._idle.put(worker)

    def read_many(self, paths: Iterable[Path]) -> Iterator[tuple[Path, DecodedInstance | Rejected]]:
        """Decode files in parallel and yield them in the given order, at most a few files ahead of the consumer."""
        pending: deque[tuple[Path, Future[DecodedInstance | Rejected]]] = deque()
        threads = ThreadPoolExecutor(self._count, thread_name_prefix="decode")
        try:
            for path in paths:
                pending.append((path, threads.submit(self._read_or_reject, path)))
                # Decoded files are large, so the number that wait for the consumer is bounded.
                if len(pending) > LOOK_AHEAD * self._count:
                    first, future = pending.popleft()
                    yield first, future.result()
            while pending:
                first, future = pending.popleft()
                yield first, future.result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)

    def _read_or_reject(self, path: Path) -> DecodedInstance | Rejected:
        try:
            return self.read(path)
        except Rejected as error:
            return error


class _Worker:
    """One process and its channels, used by one thread at a time. It is restarted after it has died."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None

    def _start(self) -> None:
        self._pixels = _memory_file()
        self._replies, child_replies = os.pipe()
        arguments = [self._limits.model_dump_json(), str(child_replies), str(self._pixels)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.dicom.intake.decode_worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # C decoders print to it, and what they print may quote header values
            pass_fds=(child_replies, self._pixels),
            env=_environment(),
            # The parent keeps no copy of the child's end, or reading would never see the end of the pipe.
        )
        os.close(child_replies)
        self._ready = False

    def stop(self) -> None:
        """Kill the process and close its channels; does nothing if it is stopped already."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        cast(IO[bytes], self._process.stdin).close()
        os.close(self._replies)
        os.close(self._pixels)
        self._process = None

    def read(self, path: Path) -> DecodedInstance:
        """Decode one file, in a new process for the first file, or if the last one died or was stopped.

        Raises:
            Rejected: as `read_instance`, and DECODER_CRASHED, DECODE_TIMEOUT or DECODE_MEMORY.
        """
        if self._process is not None and self._process.poll() is not None:
            self.stop()  # it died between two files, so no file is blamed for it
        if self._process is None:
            self._start()
        if not self._ready:
            self._await_start()
        try:
            write_message(cast(Any, self._process).stdin.fileno(), {"path": os.fsencode(path).hex()})
            reply = self._receive(time.monotonic() + self._limits.seconds)
        except TimeoutError:
            self.stop()
            sentence = f"Decoding took longer than `decode.seconds` = {self._limits.seconds:g}. If the file is genuine,"
            sentence += " raise that value in settings.yaml and ingest it again."
            raise Rejected(RejectionCode.DECODE_TIMEOUT, sentence) from None
        except (EOFError, BrokenPipeError):
            raise self._post_mortem() from None
        return self._unpack(reply)

    def _await_start(self) -> None:
        try:
            self._receive(time.monotonic() + START_SECONDS)
        except (TimeoutError, EOFError):
            self.stop()
            raise NightreadError("A decode worker did not start. Run `nightread doctor` to find out why.") from None
        self._ready = True

    def _post_mortem(self) -> Rejected:
        status = cast(Any, self._process).wait()
        self.stop()
        if status == -signal.SIGKILL:
            sentence = "The system killed the decoder, most likely because memory ran out. Lower `workers` in"
            sentence += " settings.yaml and ingest the file again."
            return Rejected(RejectionCode.DECODE_MEMORY, sentence)
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        sentence = f"The decoder crashed ({how}). The file is damaged or hostile. Send it again from its source."
        return Rejected(RejectionCode.DECODER_CRASHED, sentence)

    def _unpack(self, reply: dict[str, Any]) -> DecodedInstance:
        if "rejected" in reply:
            code, sentence = reply["rejected"]
            if code == RejectionCode.DECODE_MEMORY:
                self.stop()  # its memory is fragmented now, so the next file might fail too
            raise Rejected(RejectionCode(code), sentence)
        stored = read_array(self._pixels, np.dtype(reply["dtype"]), tuple(reply["shape"]))
        if stored.nbytes > KEEP_BYTES:
            # Give the memory of a large image back to the system at once.
            os.ftruncate(self._pixels, 0)
        return DecodedInstance(
            identity=RawIdentity(**reply["identity"]),
            attributes=InstanceAttributes.from_json(reply["attributes"]),
            stored=stored,
            history=tuple(Step(step["name"], step["params"]) for step in reply["history"]),
        )

    def _receive(self, deadline: float) -> dict[str, Any]:
        length = HEADER.unpack(self._receive_bytes(HEADER.size, deadline))[0]
        return json.loads(self._receive_bytes(length, deadline))

    def _receive_bytes(self, count: int, deadline: float) -> bytes:
        poller = select.poll()
        poller.register(self._replies, select.POLLIN)
        data = bytearray()
        while len(data) < count:
            if not poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            chunk = os.read(self._replies, count - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return bytes(data)


def _memory_file() -> int:
    """Return the descriptor of an anonymous file in memory, or on disk where the system has no memfd."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("decoded")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _environment() -> dict[str, str]:
    """Make the worker import the same `pipeline`, whatever its working directory contains, and use a single thread."""
    # PYTHONSAFEPATH keeps the working directory off sys.path: it may be a folder of untrusted files.
    root = str(Path(pipeline.__file__).parents[1])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}

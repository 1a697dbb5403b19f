"""Decode files from outside in processes that may crash, hang or blow up, and go on with the next file.

Each worker is a fresh interpreter with pydicom and the decoders loaded (half a second, once). Its address space is
capped, its time is watched here. A worker that dies is replaced; the file that killed it is rejected. Pixels come back
through an anonymous memory file, the rest as JSON: no pickle.
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
from typing import Any, Self

import numpy as np

import pipeline
from pipeline.config import DecodeLimits
from pipeline.dicom.decode.attributes import InstanceAttributes, RawIdentity
from pipeline.dicom.decode.read import DecodedInstance
from pipeline.dicom.intake.decode_worker import HEADER, read_array, write_message
from pipeline.errors import NightreadError, Rejected, RejectionCode
from pipeline.types import Step

START_SECONDS = 120.0  # a loaded machine may take long to start Python
KEEP_BYTES = 32 * 2**20  # pixel memory that a worker keeps between files
LOOK_AHEAD = 2  # decoded files a worker may be ahead of the consumer


class DecodeWorkers:
    """A pool of decode workers; a context manager, safe to use from several threads.

    Args:
        workers: how many processes.
        limits: what one file may cost.
    """

    def __init__(self, workers: int, limits: DecodeLimits) -> None:
        self._count = max(1, workers)
        self._limits = limits
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
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
        """Decode files in parallel; yields in the order given, at most a few decoded files ahead of the consumer."""
        pending: deque[tuple[Path, Future[DecodedInstance | Rejected]]] = deque()
        threads = ThreadPoolExecutor(self._count, thread_name_prefix="decode")
        try:
            for path in paths:
                pending.append((path, threads.submit(self._read_or_reject, path)))
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
    """One process and its channels, used by one thread at a time; it starts again after it died."""

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._start()

    def _start(self) -> None:
        self._pixels = _memory_file()
        self._replies, child_replies = os.pipe()
        arguments = [self._limits.model_dump_json(), str(child_replies), str(self._pixels)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.dicom.intake.decode_worker", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # C decoders write there what they please
            pass_fds=(child_replies, self._pixels),
            env=_environment(),
        )
        os.close(child_replies)
        self._ready = False

    def stop(self) -> None:
        """End the process and close its channels; nothing happens when it is stopped already."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        os.close(self._replies)
        os.close(self._pixels)
        self._process = None

    def read(self, path: Path) -> DecodedInstance:
        if self._process is not None and self._process.poll() is not None:
            self.stop()  # it died between two files: neither is to blame
        if self._process is None:
            self._start()
        if not self._ready:
            self._await_start()
        try:
            write_message(self._process.stdin.fileno(), {"path": os.fsencode(path).hex()})
            reply = self._receive(time.monotonic() + self._limits.seconds)
        except TimeoutError:
            self.stop()
            sentence = f"Decoding took longer than `seconds` = {self._limits.seconds:g}. Raise it, or exclude it."
            raise Rejected(RejectionCode.DECODE_TIMEOUT, sentence) from None
        except (EOFError, BrokenPipeError):
            raise self._post_mortem() from None
        return self._unpack(reply)

    def _await_start(self) -> None:
        try:
            self._receive(time.monotonic() + START_SECONDS)
        except (TimeoutError, EOFError):
            self.stop()
            raise NightreadError("A decode worker did not start. Run `nightread doctor`.") from None
        self._ready = True

    def _post_mortem(self) -> Rejected:
        status = self._process.wait()
        self.stop()
        if status == -signal.SIGKILL:
            sentence = "The system killed the decoder, most likely for want of memory. Lower `workers`, or exclude it."
            return Rejected(RejectionCode.DECODE_MEMORY, sentence)
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        sentence = f"The decoder crashed ({how}). The file is damaged or hostile; send it again or exclude it."
        return Rejected(RejectionCode.DECODER_CRASHED, sentence)

    def _unpack(self, reply: dict[str, Any]) -> DecodedInstance:
        if "rejected" in reply:
            code, sentence = reply["rejected"]
            if code == RejectionCode.DECODE_MEMORY:
                self.stop()  # what is left of its memory is in pieces
            raise Rejected(RejectionCode(code), sentence)
        stored = read_array(self._pixels, np.dtype(reply["dtype"]), tuple(reply["shape"]))
        if stored.nbytes > KEEP_BYTES:
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
    """Return the descriptor of an anonymous file in memory (on disk where the system has none)."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("decoded")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _environment() -> dict[str, str]:
    """Let the worker find this very `pipeline`, whatever its working folder holds, and keep it to one thread."""
    root = str(Path(pipeline.__file__).parents[1])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}

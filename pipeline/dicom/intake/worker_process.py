"""One decode worker process as its parent sees it: it is given the next file early, and replaced when it dies."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, Any, cast

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
READ_BYTES = 2**16
# pydicom tries to import `requests`, for files that nobody asks for here, and that takes longer than numpy.
PROGRAM = "import sys; sys.modules['requests'] = None; from pipeline.dicom.intake.decode_worker import main; main()"
SLOTS = 2  # files that it has at a time, each with pixel memory of its own: it decodes one while we copy the other


class WorkerProcess:
    """One process and its channels, used by one thread at a time. It starts with the first file.

    Files are answered in the order in which they were given. When the process dies, the file that it was busy with is
    rejected, and a new process gets the files after it.
    """

    def __init__(self, limits: DecodeLimits) -> None:
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._ending = threading.Lock()
        self._given: deque[Path] = deque()
        self._answered = 0  # by this process; file n has its pixels in slot n modulo SLOTS
        self._busy_since = 0.0

    @property
    def has_room(self) -> bool:
        """Whether it can be given another file now."""
        return len(self._given) < SLOTS

    def give(self, path: Path) -> None:
        """Give it one more file.

        Raises:
            NightreadError: the process did not start.
        """
        if not self._given:
            self._await_ready()
            self._busy_since = time.monotonic()
        self._given.append(path)
        self._send(len(self._given) - 1)

    def take(self) -> DecodedInstance | Rejected:
        """Wait for the answer about the first of the files given: as `read_instance`, or how the process ended.

        Raises:
            NightreadError: the process died, and another did not start.
        """
        try:
            reply = self._receive(self._busy_since + self._limits.seconds)
        except TimeoutError:
            sentence = f"Decoding took longer than `decode.seconds` = {self._limits.seconds:g}. If the file is genuine,"
            sentence += " raise that value in settings.yaml and ingest it again."
            return self._replaced(Rejected(RejectionCode.DECODE_TIMEOUT, sentence))
        except EOFError:
            return self._replaced(self._post_mortem())
        if "rejected" not in reply:
            return self._unpack(reply)
        code, sentence = reply["rejected"]
        if code == RejectionCode.DECODE_MEMORY:
            # Its memory is fragmented now, so the next file might fail too.
            return self._replaced(Rejected(RejectionCode(code), sentence))
        self._go_on()
        return Rejected(RejectionCode(code), sentence)

    def stop(self) -> None:
        """Kill the process, close its channels and forget the files given; does nothing where it is stopped already."""
        self._given.clear()
        self._end()

    def _end(self) -> None:
        # An ingest that fails stops its workers while a thread may be replacing this process. A second close of a
        # descriptor would close somebody else's file with the same number.
        with self._ending:
            process, self._process = self._process, None
            descriptors = () if process is None else (self._replies, *self._slots)
        if process is None:
            return
        process.kill()
        process.wait()
        cast(IO[bytes], process.stdin).close()
        for descriptor in descriptors:
            os.close(descriptor)

    def _start(self) -> None:
        self._slots = [_memory_file() for _ in range(SLOTS)]
        self._replies, child_replies = os.pipe()
        arguments = [self._limits.model_dump_json(), str(child_replies), *map(str, self._slots)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,  # C decoders print to it, and what they print may quote header values
            pass_fds=(child_replies, *self._slots),
            env=_environment(),
            # The parent keeps no copy of the child's end, or reading would never see the end of the pipe.
        )
        os.close(child_replies)
        self._poller = select.poll()
        self._poller.register(self._replies, select.POLLIN)
        self._answered, self._is_ready, self._received = 0, False, bytearray()

    def _await_ready(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            self._end()  # it died between two files, so no file is blamed for it
        if self._process is None:
            self._start()
        if self._is_ready:
            return
        try:
            self._receive(time.monotonic() + START_SECONDS)
        except (TimeoutError, EOFError):
            self.stop()
            raise NightreadError("A decode worker did not start. Run `nightread doctor` to find out why.") from None
        self._is_ready = True

    def _send(self, place: int) -> None:
        request = {"path": os.fsencode(self._given[place]).hex(), "slot": (self._answered + place) % SLOTS}
        with contextlib.suppress(BrokenPipeError):  # then there is no answer, and `take` learns why
            write_message(cast(Any, self._process).stdin.fileno(), request)

    def _go_on(self) -> None:
        """Count the first file as answered; the process is busy with the next since now."""
        self._given.popleft()
        self._answered += 1
        self._busy_since = time.monotonic()

    def _replaced(self, outcome: Rejected) -> Rejected:
        """End the process, give the files after the first one to a new process, and return the outcome of the first."""
        self._end()
        self._go_on()
        if self._given:
            self._await_ready()
            self._busy_since = time.monotonic()
            for place in range(len(self._given)):
                self._send(place)
        return outcome

    def _post_mortem(self) -> Rejected:
        status = cast(Any, self._process).wait()
        if status == -signal.SIGKILL:
            sentence = "The system killed the decoder, most likely because memory ran out. Lower `workers` in"
            sentence += " settings.yaml and ingest the file again."
            return Rejected(RejectionCode.DECODE_MEMORY, sentence)
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        sentence = f"The decoder crashed ({how}). The file is damaged or hostile. Export it uncompressed."
        return Rejected(RejectionCode.DECODER_CRASHED, sentence)

    def _unpack(self, reply: dict[str, Any]) -> DecodedInstance:
        slot = self._slots[self._answered % SLOTS]
        stored = read_array(slot, np.dtype(reply["dtype"]), tuple(reply["shape"]))
        if stored.nbytes > KEEP_BYTES:
            # Give the memory of a large image back to the system at once.
            os.ftruncate(slot, 0)
        self._go_on()
        return DecodedInstance(
            identity=RawIdentity(**reply["identity"]),
            attributes=InstanceAttributes.from_json(reply["attributes"]),
            stored=stored,
            history=tuple(Step(step["name"], step["params"]) for step in reply["history"]),
        )

    def _receive(self, deadline: float) -> dict[str, Any]:
        end = self._receive_until(HEADER.size, deadline)
        end += HEADER.unpack(self._received[:end])[0]
        self._receive_until(end, deadline)
        message = json.loads(self._received[HEADER.size : end])
        del self._received[:end]
        return message

    def _receive_until(self, count: int, deadline: float) -> int:
        """Read until `count` bytes are there; few and large reads, as each of them waits for other threads of ours."""
        while len(self._received) < count:
            if not self._poller.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise TimeoutError
            chunk = os.read(self._replies, READ_BYTES)
            if not chunk:
                raise EOFError
            self._received += chunk
        return count


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

"""Decode worker process: reads paths from standard input, answers on a pipe, leaves pixels in shared memory.

Started by `pipeline.dicom.intake.worker_process` in a fresh interpreter that inherits nothing from its parent (threads,
torch, main module). It may die at any moment; its parent then replaces it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import struct
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np

from pipeline.dicom.decode.read import DecodedInstance, read_instance
from pipeline.errors import Rejected

if TYPE_CHECKING:
    from pipeline.config import DecodeLimits

HEADER = struct.Struct(">Q")
GRACE_SECONDS = 5.0  # the parent kills at `seconds`; the alarm only ends a worker whose parent has died


def main() -> None:
    """Serve until the input ends. Arguments: the limits as JSON, the reply descriptor, the descriptors of the slots."""
    # The parent has validated them, and the models of `pipeline.config` take as long to be imported as numpy.
    limits = cast("DecodeLimits", SimpleNamespace(**json.loads(sys.argv[1])))
    replies, *slots = map(int, sys.argv[2:])
    # Ctrl-C reaches the whole process group, but only the parent decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _confine(limits)
    write_message(replies, {"ready": True})
    while (request := read_message(sys.stdin.buffer)) is not None:
        signal.setitimer(signal.ITIMER_REAL, limits.seconds + GRACE_SECONDS)
        path = Path(os.fsdecode(bytes.fromhex(request["path"])))
        write_message(replies, _answer(path, limits, slots[request["slot"]]))
        signal.setitimer(signal.ITIMER_REAL, 0)


def _confine(limits: DecodeLimits) -> None:
    """Limit the address space to what is in use now plus `memory_bytes`; disable core dumps, which would hold PHI."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statm = Path("/proc/self/statm")
    if statm.exists():
        now = int(statm.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + limits.memory_bytes, now + limits.memory_bytes))


def _answer(path: Path, limits: DecodeLimits, pixels: int) -> dict[str, Any]:
    try:
        instance = read_instance(path, limits)
        write_array(pixels, instance.stored)
    except Rejected as error:
        return {"rejected": [error.code.value, error.sentence]}
    return _describe(instance)


def _describe(instance: DecodedInstance) -> dict[str, Any]:
    return {
        "identity": {field.name: getattr(instance.identity, field.name) for field in fields(instance.identity)},
        "attributes": instance.attributes.to_json(),
        "history": [step.to_json() for step in instance.history],
        "dtype": instance.stored.dtype.str,
        "shape": instance.stored.shape,
    }


def read_message(stream: BinaryIO) -> dict[str, Any] | None:
    """Return the next message, or None at the end of the stream."""
    head = stream.read(HEADER.size)
    return json.loads(stream.read(HEADER.unpack(head)[0])) if len(head) == HEADER.size else None


def write_message(descriptor: int, message: dict[str, Any]) -> None:
    """Write one message: its length, then JSON."""
    body = json.dumps(message).encode("ascii")
    data = memoryview(HEADER.pack(len(body)) + body)
    # os.write on a pipe may write only a part of the data.
    while data:
        data = data[os.write(descriptor, data) :]


def write_array(descriptor: int, array: np.ndarray) -> None:
    """Write the bytes of `array` to the start of a file; one call moves at most 2 GiB, so there may be several."""
    data, at = memoryview(cast(Any, np.ascontiguousarray(array))).cast("B") if array.size else memoryview(b""), 0
    while at < len(data):
        at += os.pwrite(descriptor, data[at:], at)


def read_array(descriptor: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """Return a new array with the bytes that `write_array` wrote."""
    array: Any = np.empty(shape, dtype=dtype)  # numpy declares itself a buffer from Python 3.12 only
    data, at = memoryview(array).cast("B"), 0
    while at < len(data):
        count = os.preadv(descriptor, [data[at:]], at)
        if count == 0:
            raise EOFError("the shared pixel memory is shorter than the array")
        at += count
    return array

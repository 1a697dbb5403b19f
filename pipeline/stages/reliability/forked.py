"""Work in forked children of a parent that has imported everything: a child begins at once and can be killed."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

from pipeline.errors import UnforeseenError, to_own_error

Work = Callable[[Callable[[str], None]], Any]
Strike = Callable[[int], object]


def kill(child: int) -> None:
    """End a process at once (SIGKILL)."""
    os.kill(child, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended.

    Attributes:
        status: exit code, or minus the signal that ended it.
        marks: names that it passed, with seconds since it began.
        result: what its work returned, as JSON; None if it did not return.
        seconds: until its end.
        error: its traceback, "" without one.
        failure: class, exit code and sentence of the error as a user is shown it, () without one.
    """

    status: int
    marks: tuple[tuple[str, float], ...]
    result: Any
    seconds: float
    error: str
    failure: tuple[str, int, str] | tuple[()] = ()

    @property
    def phase(self) -> str:
        """The last name that it passed; "" before the first."""
        return self.marks[-1][0] if self.marks else ""


def run_forked(work: Work, after: float | None = None, strike: Strike = kill) -> Ended:
    """Run `work(mark)` in a forked child, and strike it after some seconds, by default with SIGKILL.

    The parent must not have threads, and must not have computed with torch: both do not survive a fork.

    Args:
        work: gets a function that records a name; returns plain values.
        after: seconds after which `strike` is called; None never, and not if the child has ended by then.
        strike: gets the child's process id.
    """
    with tempfile.TemporaryDirectory(prefix="nightread-") as place:
        folder = Path(place)
        sys.stdout.flush()
        sys.stderr.flush()
        began = time.monotonic()
        child = os.fork()
        if not child:
            _be_child(work, folder)
        status = _await_end(child, began, after, strike)
        lines = _lines(folder / "marks")
        marks = tuple((name, float(at) - began) for at, _, name in (line.partition(" ") for line in lines))
        result = json.loads((folder / "result").read_text()) if (folder / "result").exists() else None
        error, *failure = json.loads((folder / "error").read_text()) if (folder / "error").exists() else ("",)
        seconds = time.monotonic() - began
        return Ended(os.waitstatus_to_exitcode(status), marks, result, seconds, error, cast(Any, tuple(failure)))


def _be_child(work: Work, folder: Path) -> None:
    """Do the work, leave its result as a file, and end without returning."""
    code = 1
    try:
        with (folder / "marks").open("a", buffering=1, encoding="utf-8") as marks:
            result = work(lambda name: print(time.monotonic(), name, file=marks) and None)
        (folder / "result").write_text(json.dumps(result))
        code = 0
    except BaseException as error:
        own = to_own_error(error)
        with contextlib.suppress(OSError):
            lines = [traceback.format_exc(), type(own).__name__, own.exit_code, str(own)]
            (folder / "error").write_text(json.dumps(lines))
    finally:
        os._exit(code)


def _await_end(child: int, began: float, after: float | None, strike: Strike) -> int:
    if after is not None:
        while time.monotonic() - began < after:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
            time.sleep(min(0.002, max(0.0, after - (time.monotonic() - began))))
        strike(child)
    return os.waitpid(child, 0)[1]


@contextlib.contextmanager
def beside(work: Callable[[Callable[[], None]], None]) -> Iterator[int]:
    """Run `work(ready)` in a forked child beside the block, from when it calls `ready`; yield its process id.

    The child is killed at the end of the block, if it has not ended.

    Raises:
        UnforeseenError: it ended before it was ready.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        try:
            work(partial(_say, writer))
        finally:
            os._exit(1)
    os.close(writer)
    try:
        if not os.read(reader, 1):
            raise UnforeseenError("A process beside a night ended before it was ready.")
        yield child
    finally:
        os.close(reader)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(child, 0)


def _say(writer: int) -> None:
    os.write(writer, b"1")


def _lines(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


def import_like(work: Work) -> Ended:
    """Run `work` in a child, and import here whatever it imported, so that the next children need not."""

    def observed(mark: Callable[[str], None]) -> dict[str, Any]:
        result = work(mark)
        return {"result": result, "modules": sorted(sys.modules)}

    ended = run_forked(observed)
    if ended.result is not None:
        _import_all(ended.result["modules"])
    return ended


def _import_all(names: Sequence[str]) -> None:
    for name in names:
        if name not in sys.modules and not name.startswith("__"):
            with contextlib.suppress(Exception):
                importlib.import_module(name)

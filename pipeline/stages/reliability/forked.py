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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Work = Callable[[Callable[[str], None]], Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended.

    Attributes:
        status: exit code, or minus the signal that ended it.
        marks: names that it passed, with seconds since it began.
        result: what its work returned, as JSON; None if it did not return.
        seconds: until its end.
        error: its traceback, "" without one.
    """

    status: int
    marks: tuple[tuple[str, float], ...]
    result: Any
    seconds: float
    error: str

    @property
    def phase(self) -> str:
        """The last name that it passed; "" before the first."""
        return self.marks[-1][0] if self.marks else ""


def run_forked(work: Work, kill_after: float | None = None) -> Ended:
    """Run `work(mark)` in a forked child, and kill it (SIGKILL) after some seconds.

    The parent must not have threads, and must not have computed with torch: both do not survive a fork.

    Args:
        work: gets a function that records a name; returns plain values.
        kill_after: seconds after which the child is killed; None never.
    """
    with tempfile.TemporaryDirectory(prefix="nightread-") as place:
        folder = Path(place)
        sys.stdout.flush()
        sys.stderr.flush()
        began = time.monotonic()
        child = os.fork()
        if not child:
            _be_child(work, folder)
        status = _await_end(child, began, kill_after)
        lines = _lines(folder / "marks")
        marks = tuple((name, float(at) - began) for at, _, name in (line.partition(" ") for line in lines))
        result = json.loads((folder / "result").read_text()) if (folder / "result").exists() else None
        error = (folder / "error").read_text() if (folder / "error").exists() else ""
        return Ended(os.waitstatus_to_exitcode(status), marks, result, time.monotonic() - began, error)


def _be_child(work: Work, folder: Path) -> None:
    """Do the work, leave its result as a file, and end without returning."""
    code = 1
    try:
        with (folder / "marks").open("a", buffering=1, encoding="utf-8") as marks:
            result = work(lambda name: print(time.monotonic(), name, file=marks) and None)
        (folder / "result").write_text(json.dumps(result))
        code = 0
    except BaseException:
        with contextlib.suppress(OSError):
            (folder / "error").write_text(traceback.format_exc())
    finally:
        os._exit(code)


def _await_end(child: int, began: float, kill_after: float | None) -> int:
    if kill_after is not None:
        while time.monotonic() - began < kill_after:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
            time.sleep(min(0.002, max(0.0, kill_after - (time.monotonic() - began))))
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]


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

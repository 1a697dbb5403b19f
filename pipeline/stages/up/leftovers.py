"""Processes that a component left behind: found by the mark in their environment, and ended by their ids."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil

from pipeline.stages.up.parts import MARK

PATIENCE_SECONDS = 10.0


def list_marked(mark: str) -> list[psutil.Process]:
    """Return the processes whose mark begins with `mark`, without this process and its ancestors."""
    return list(_marked(mark))


def _marked(mark: str) -> Iterator[psutil.Process]:
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        try:
            if process.pid not in own and process.environ().get(MARK, "").startswith(mark):
                yield process
        except (psutil.Error, OSError):  # it ended, or belongs to somebody else
            continue


def end_marked(mark: str) -> int:
    """End the marked processes, at first kindly; return how many there were."""
    processes = list_marked(mark)
    for process in processes:
        _send(process, kill=False)
    _, alive = psutil.wait_procs(processes, timeout=PATIENCE_SECONDS)
    for process in alive:
        _send(process, kill=True)
    psutil.wait_procs(alive, timeout=PATIENCE_SECONDS)
    return len(processes)


def _send(process: psutil.Process, kill: bool) -> None:
    try:
        process.kill() if kill else process.terminate()
    except psutil.Error:
        return

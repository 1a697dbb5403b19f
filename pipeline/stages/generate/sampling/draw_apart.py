"""Several samplers of a comparison at once, each trained and drawn in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool

from pipeline.config import Settings
from pipeline.errors import to_own_error
from pipeline.stages.generate.sampling.sample import draw_all, open_task
from pipeline.stages.generate.task_config import SampleTask

ENDED = "its process was ended from outside, perhaps for lack of memory. Repeat with fewer workers; it continues"


def draw_apart(
    tasks: Sequence[tuple[str, SampleTask]], settings: Settings, workers: int, say: Callable[[str], None]
) -> dict[str, str]:
    """Train and draw tasks, `workers` at a time, so that whoever opens them next finds their images.

    The first one runs alone, since it assigns the sets that the others read. Returns why a task failed, by its name.

    Args:
        tasks: name and configuration of each.
        settings: the workspace.
        workers: number of processes, at least 1.
        say: called with one sentence per drawn task.
    """
    failures: dict[str, str] = {}
    with ThreadPoolExecutor(workers) as threads:
        for some in (tasks[:1], tasks[1:]):
            waiting = {threads.submit(_draw_in_process, task, settings): name for name, task in some}
            for future in as_completed(waiting):
                name, why = waiting[future], future.result()
                failures |= {name: why} if why else {}
                say(f"{name} failed: {why}" if why else f"{name} is drawn")
    return failures


def _draw_in_process(task: SampleTask, settings: Settings) -> str:
    """Draw a task in a process of its own pool, since a process that is killed takes all others of its pool with it."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_draw, task, settings).result()
        except BrokenProcessPool:
            return ENDED


def _draw(task: SampleTask, settings: Settings) -> str:
    """Draw a task, and return why that failed; "" if it is drawn."""
    try:
        draw_all(open_task(task, settings))
    except Exception as error:
        return describe_failure(error, settings)
    return ""


def describe_failure(error: Exception, settings: Settings) -> str:
    """Return the kind of an error and its sentence; of one that nobody foresaw its place only, as it may quote PHI."""
    own = to_own_error(error, settings.workspace)
    return f"{type(own).__name__}: {own}"

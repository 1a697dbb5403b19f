"""Several samplers of a comparison at once, each trained and drawn in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from pipeline.config import Settings
from pipeline.errors import NightreadError
from pipeline.stages.generate.sampling.sample import draw_all, open_task
from pipeline.stages.generate.task_config import SampleTask


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
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, max_tasks_per_child=1) as pool:
        for some in (tasks[:1], tasks[1:]):
            waiting = {pool.submit(_draw, task, settings): name for name, task in some}
            for future in as_completed(waiting):
                name, why = waiting[future], future.result()
                failures |= {name: why} if why else {}
                say(f"{name} failed: {why}" if why else f"{name} is drawn")
    return failures


def _draw(task: SampleTask, settings: Settings) -> str:
    """Draw a task, and return why that failed; "" if it is drawn."""
    try:
        draw_all(open_task(task, settings))
    except NightreadError as error:
        return describe_failure(error)
    return ""


def describe_failure(error: NightreadError) -> str:
    """Return the kind of an error and its sentence."""
    return f"{type(error).__name__}: {error}"

"""Several samplers of a comparison at once, each trained and drawn in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from pipeline.config import Settings
from pipeline.errors import NightreadError
from pipeline.stages.generate.sample import draw_all, open_task
from pipeline.stages.generate.task_config import SampleTask


def draw_apart(
    tasks: Sequence[tuple[str, SampleTask]], settings: Settings, workers: int, say: Callable[[str], None]
) -> None:
    """Train and draw tasks, `workers` at a time, so that whoever opens them next finds their images.

    The first one runs alone, since it assigns the sets that the others read. One that fails is left: opening it again
    says why.

    Args:
        tasks: name and configuration of each.
        settings: the workspace.
        workers: number of processes, at least 1.
        say: called with one sentence per drawn task.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, max_tasks_per_child=1) as pool:
        for some in (tasks[:1], tasks[1:]):
            waiting = {pool.submit(_draw, task, settings): name for name, task in some}
            for future in as_completed(waiting):
                if future.result():
                    say(f"{waiting[future]} is drawn")


def _draw(task: SampleTask, settings: Settings) -> bool:
    """Return whether the task is drawn."""
    try:
        draw_all(open_task(task, settings))
    except NightreadError:
        return False
    return True

"""How every task behaves when the disk, the database or the network stumbles: retries, time limits, caching."""

from __future__ import annotations

from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task, exponential_backoff

from pipeline.errors import CatalogueError

HOUR = 3600.0


async def is_passing(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Return True for faults that may pass (input/output, database); a wrong configuration is not tried again."""
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, (OSError, CatalogueError))


STEADY: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=5),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_passing,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}

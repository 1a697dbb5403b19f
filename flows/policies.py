"""How every task behaves when the disk, the database or the network stumbles: retries, time limits, caching, silence.

**Caching by input hash.** Only an evaluation is cached by Prefect: it alone is a pure answer, keyed by the hash of
detector, configuration, develop set and code (`pipeline.stages.detect.evaluation_key`), and kept as JSON. Every other
task changes the catalogue, the pixel store or the registry, and a cached answer would not know that they changed since,
or that a run folder was deleted. Those stages are themselves keyed by the hash of their inputs, and look before they
work: ingest by each file's identity and content, training by configuration and data (`runs/<route>-<method>-<hash>`),
calibration by the trained detector, scoring by (detector, study). Repeated, they cost a look-up.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.task_engine import TaskRunTimeoutError
from prefect.tasks import Task, exponential_backoff

from pipeline.errors import DEBUG, CatalogueError, NightreadError, UnforeseenError

# Here and not in `flows`, which many import that never start a flow. Prefect itself makes the last level only.
Path(os.environ["PREFECT_HOME"]).mkdir(parents=True, exist_ok=True)

HOUR = 3600.0  # a time limit takes effect between two instructions of Python; decoding has its own (`DecodeLimits`)


class _Brief(logging.Filter):
    """Errors that say it all in a sentence are logged as that sentence; tracebacks are for the unforeseen."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, (NightreadError, OSError)) and not isinstance(error, UnforeseenError):
            record.exc_info, record.exc_text = None, None
        return True


for _logger in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_logger).addFilter(_Brief())


async def is_passing(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Return True for faults that may pass (input/output, database); a wrong configuration is not tried again.

    A task that ran out of time is not tried again either: it would only run out of time once more.
    """
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, (OSError, CatalogueError)) and not isinstance(error, TaskRunTimeoutError)


STEADY: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=5),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_passing,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}

# Of a flow: its result goes to the caller only; what Prefect must keep (an error of a flow within a flow) is JSON.
QUIET: dict[str, Any] = {"persist_result": False, "result_serializer": "json"}
CACHED: dict[str, Any] = {
    "cache_expiration": timedelta(days=30),
    "persist_result": True,
    "result_serializer": "json",  # law 6: no pickles
}


@contextlib.contextmanager
def discreet() -> Iterator[None]:
    """Let no error carry a path or a value into Prefect, which stores an error's text and shows it to everybody.

    Raises:
        NightreadError: as it was raised; our own sentences hold pseudonyms only.
        OSError: with its number and reason, without the path.
        UnforeseenError: instead of anything else, with its kind and the line of ours that it came from.
    """
    try:
        yield
    except NightreadError:
        raise
    except OSError as error:
        raise OSError(error.errno, error.strerror or type(error).__name__) from None
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        raise UnforeseenError.of(error) from None

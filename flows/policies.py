"""Policies of all tasks for faults of disk, database and network: retries, time limits, caching and discretion.

**Caching by input hash.** Prefect caches only evaluations, because they alone are pure functions of their inputs. The
key is the hash of detector, configuration, develop set and code (`pipeline.stages.detect.evaluation_key`), and the
result is kept as JSON. Every other task changes the catalogue, the pixel store or the registry; a cached result would
ignore later changes to them, or a deleted run folder. Those stages are themselves keyed by the hash of their inputs and
look before they work: ingest by each file's identity and content, training by configuration and data
(`runs/<route>-<method>-<hash>`), calibration by the trained detector, scoring by (detector, study). Repeating them
costs a look-up.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.task_engine import TaskRunTimeoutError
from prefect.tasks import Task, exponential_backoff

from flows.home import make_home
from pipeline.errors import DEBUG, CatalogueError, IdentityError, NightreadError, UnforeseenError

# Here and not in `flows`, which is often imported without starting a flow. Prefect itself creates the last level only.
make_home()

HOUR = 3600.0  # a time limit acts only between two Python instructions; decoding has its own (`DecodeLimits`)


class _Brief(logging.Filter):
    """Filter that logs our own errors as their one sentence; only unforeseen errors get a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        if isinstance(error, (NightreadError, OSError)) and not isinstance(error, UnforeseenError):
            record.exc_info, record.exc_text = None, None
        return True


for _logger in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_logger).addFilter(_Brief())


async def is_passing(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Return True for faults that may be temporary (input/output, database); a wrong configuration is not retried.

    A task that timed out is not retried either, since it would only time out again.
    """
    error = await state.aresult(raise_on_failure=False)
    passing = isinstance(error, (OSError, CatalogueError)) or (isinstance(error, IdentityError) and error.passing)
    return passing and not isinstance(error, TaskRunTimeoutError)


STEADY: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(backoff_factor=5),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": is_passing,
    "cache_policy": NO_CACHE,
    "persist_result": False,
}

# For flows: the result goes to the caller only; anything Prefect must keep (an error in a subflow) is JSON.
QUIET: dict[str, Any] = {"persist_result": False, "result_serializer": "json"}
CACHED: dict[str, Any] = {
    "cache_expiration": timedelta(days=30),
    "persist_result": True,
    "result_serializer": "json",  # law 6: no pickles
}


@contextlib.contextmanager
def keep_discreet() -> Iterator[None]:
    """Keep paths and values in errors out of Prefect, which stores an error's text and shows it to everybody.

    Raises:
        NightreadError: unchanged, since our own messages hold pseudonyms only.
        OSError: with its number and reason, but without the path.
        UnforeseenError: in place of any other error, with its type and the line of our code that raised it.
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

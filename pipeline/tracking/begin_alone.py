"""One process of a workspace at a time finds or begins a run in MLflow, which would allow two of a name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from pipeline.config import Settings
from pipeline.errors import ConfigError

LOCK, LOCK_SECONDS = "mlflow.lock", 600.0  # longer than MLflow tries to reach a lost server


@contextmanager
def begin_alone(settings: Settings) -> Iterator[None]:
    """Let no other process of this workspace look for a run or an experiment and begin it meanwhile.

    Raises:
        ConfigError: another process holds this place for so long that its store must hang; or the workspace cannot be
            written.
    """
    lock = FileLock(settings.workspace / LOCK)
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise ConfigError(
            f"Another process of this workspace has been beginning a run in MLflow for more than {LOCK_SECONDS:g} "
            "seconds. End it, or wait for its end, and repeat this step: what was not logged is logged then."
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{LOCK} cannot be written into the workspace ({error.strerror}). Make the workspace writable and free "
            "some space on its disk, and repeat this step: what was not logged is logged then."
        ) from None
    try:
        yield
    finally:
        lock.release()

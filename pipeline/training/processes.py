"""Processes that train together, as `accelerate launch --num_processes N` starts them: who leads, and taking turns.

All of them read the same images and share the steps of the training; only the leader writes to the workspace.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

from pipeline.errors import ConfigError
from pipeline.training.config import TrainingConfig
from pipeline.training.state import get_accelerator

Value = TypeVar("Value")


def count_processes() -> int:
    """Return how many processes train together, as their launcher says."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def refuse_several(what: str) -> None:
    """Refuse to do by several processes what only `nightread train` of a configuration shares.

    Raises:
        ConfigError: several processes were launched.
    """
    if (count := count_processes()) > 1:
        raise ConfigError(
            f"{what} cannot be shared by the {count} processes that were launched, as each would choose by its own "
            "timings. Run it in one process, then train the configuration that it prints with accelerate launch."
        )


def leads() -> bool:
    """Return whether this process writes to the workspace and reports."""
    return count_processes() == 1 or int(os.environ.get("RANK", "0")) == 0


@contextmanager
def leader_first(config: TrainingConfig) -> Iterator[None]:
    """Go through a block once the leader has, so that the others meet what it wrote and do not write it again."""
    if count_processes() == 1:
        yield
        return
    with get_accelerator(config.device == "cpu").main_process_first():
        yield


def agree(value: Value, config: TrainingConfig) -> Value:
    """Return the leader's value in every process, so that all take the same branch."""
    if count_processes() == 1:
        return value
    from accelerate.utils import broadcast_object_list

    get_accelerator(config.device == "cpu")
    return cast(list[Value], broadcast_object_list([value]))[0]


def wait_for_all(config: TrainingConfig) -> None:
    """Wait until every process has come this far."""
    if count_processes() > 1:
        get_accelerator(config.device == "cpu").wait_for_everyone()

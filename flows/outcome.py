"""Outcome of a flow in which a part failed: the rest is still done, and the failures are reported."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, cast

from prefect.client.schemas.objects import State
from prefect.states import Failed
from prefect.tasks import Task

from pipeline.config import Settings
from pipeline.stages.detect.score import find_detectors_to_run


def settled(states: Iterable[State[Any]]) -> tuple[list[Any], list[str]]:
    """Return the results of the completed steps, and one sentence for each step that failed."""
    done, failures = [], []
    for state in states:
        value = state.result(raise_on_failure=False)
        if isinstance(value, BaseException):
            failures.append(f"{type(value).__name__}: {value}")
        else:
            done.append(value)
    return done, failures


def of_every_champion(step: Task[..., Any], workspace: str, **more: Any) -> tuple[list[Any], list[str]]:
    """Run a step (detector, workspace) for each route's champion in turn; return the same as `settled`."""
    champions = find_detectors_to_run(Settings.load(workspace))
    return settled([cast(Any, step)(asdict(champion), workspace, **more, return_state=True) for champion in champions])


def ended(value: dict[str, Any]) -> dict[str, Any] | State[Any]:
    """Return the flow's value; wrapped in a failed state if `value["failures"]` is not empty."""
    if not value["failures"]:
        return value
    return Failed(message=" ".join(value["failures"])[:1000], data=value)

"""`nightread generate`: the list, and errors before anything is trained."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pipeline.stages.generate.run_task import RUNNERS
from pipeline.stages.generate.task_config import TASKS


def test_the_shipped_tasks_are_listed(nightread: Any) -> None:
    rows = json.loads(nightread("generate", "list", "--json").output)
    assert {row["task"] for row in rows} == {*TASKS, "compare"}, "every task is shipped with a configuration"
    assert all(row["where"].startswith("configs/tasks/") and row["method"] for row in rows)


@pytest.mark.parametrize("kind", TASKS)
def test_every_kind_of_task_has_one_runner(kind: str) -> None:
    assert sum(one in RUNNERS for one in TASKS[kind].__mro__) == 1


def test_a_mistyped_task_is_reported_at_once(nightread: Any) -> None:
    answer = nightread("generate", "sample", "configs/tasks/nothing.yaml")
    assert (answer.exit_code, "nothing.yaml" in answer.output) == (2, True)

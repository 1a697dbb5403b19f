"""`nightread generate`: the list, and errors before anything is trained."""

from __future__ import annotations

import json
from typing import Any

from pipeline.stages.generate.task_config import TASKS


def test_the_shipped_tasks_are_listed(nightread: Any) -> None:
    rows = json.loads(nightread("generate", "list", "--json").output)
    assert {row["task"] for row in rows} == {*TASKS, "compare"}, "every task is shipped with a configuration"
    assert all(row["where"].startswith("configs/tasks/") and row["method"] for row in rows)


def test_a_mistyped_task_is_reported_at_once(nightread: Any) -> None:
    answer = nightread("generate", "sample", "configs/tasks/nothing.yaml")
    assert (answer.exit_code, "nothing.yaml" in answer.output) == (2, True)

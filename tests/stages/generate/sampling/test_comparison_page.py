"""Page of a comparison: the floor first, no column that is empty throughout, and only rows that belong together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.stages.generate.sampling.comparison_page import (
    ROWS,
    PageRow,
    comparison_page,
    comparison_table,
    join_rows,
)

TASKS = {"gan": "1", "flow": "2", "vae": "3"}


def row(name: str, length: str = "", **floor: str) -> PageRow:
    cells = {"sampler": name, "parameters": "1.23 M", "KID": "0.2", "FID": "", "path length": length}
    return PageRow(name, TASKS[name], "9 images.", {"KID": "0.1", "FID": ""} | floor, cells, 0.5, 0.2, 0.1)


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "---" not in line]


def test_the_floor_comes_first_and_empty_columns_are_left_out() -> None:
    head, floor, first, second = cells(comparison_table([row("gan", "0.5"), row("flow")]))
    assert head == ["sampler", "parameters", "KID", "path length"]
    assert floor == ["real against real", "", "0.1", ""]
    assert first == ["gan", "1.23 M", "0.2", "0.5"] and second[-1] == ""
    assert "path length" not in comparison_table([row("flow")])


def test_rows_of_earlier_runs_keep_their_place(tmp_path: Path) -> None:
    join_rows(tmp_path, TASKS, [row("vae"), row("gan")])
    rows = join_rows(tmp_path, TASKS, [row("flow")])
    assert [one.sampler for one in rows] == ["gan", "flow", "vae"]
    assert "earlier runs on the same images: gan, vae." in comparison_page("c", "x", rows, {}, ["flow"])
    assert "earlier" not in comparison_page("c", "x", rows, {}, list(TASKS))
    assert join_rows(tmp_path, TASKS, []) == rows, "a run in which everything failed loses nothing else"


@pytest.mark.parametrize(
    "tasks, new, failed",
    [
        (TASKS, [row("flow", KID="0.3")], ()),
        (TASKS, [replace(row("flow"), images="8 images.")], ()),
        (TASKS | {"gan": "other"}, [row("flow")], ()),
        ({"flow": "2"}, [row("flow")], ()),
        (TASKS, [row("flow")], ["gan"]),
    ],
    ids=["other images", "other number", "changed configuration", "no longer compared", "failed now"],
)
def test_rows_that_do_not_belong_there_are_left_out(
    tmp_path: Path, tasks: dict[str, str], new: list[PageRow], failed: list[str]
) -> None:
    join_rows(tmp_path, TASKS, [row("gan")])
    assert join_rows(tmp_path, tasks, new, failed) == new


def test_a_damaged_file_of_rows_is_begun_again(tmp_path: Path) -> None:
    for text in ("{", '[{"sampler": "gan"}]', '{"a": 1}'):
        (tmp_path / ROWS).write_text(text)
        assert join_rows(tmp_path, TASKS, [row("flow")]) == [row("flow")]

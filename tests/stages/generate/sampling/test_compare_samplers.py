"""Table of a comparison: the floor first, options in the name, and no column that is empty throughout."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from pipeline.stages.generate.sampling.compare_samplers import SamplerRow, comparison_table


def row(name: str, path_length: float | None, **options: float) -> SamplerRow:
    quality = SimpleNamespace(row=lambda: {"KID": "0.2", "FID": ""}, floor_row=lambda: {"KID": "0.1", "FID": ""})
    judged: Any = SimpleNamespace(quality=quality, drawing=SimpleNamespace(options=options))
    return SamplerRow(name, 1_234_567, 61.4, cast(Any, judged), path_length)


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if "---" not in line]


def test_rows_have_what_they_cost_and_how_even_their_codes_are() -> None:
    head, floor, first, second = cells(comparison_table([row("gan", 0.5, truncation=0.7), row("flow", None)]))
    assert head == ["sampler", "parameters", "training, CPU s", "KID", "path length"]
    assert floor == ["real against real", "", "", "0.1", ""]
    assert first == ["gan, truncation 0.7", "1.23 M", "61", "0.2", "0.5"]
    assert second[-1] == ""
    assert "path length" not in comparison_table([row("flow", None)])

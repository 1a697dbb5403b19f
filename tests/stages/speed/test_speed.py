"""`nightread benchmark speed`: everything is measured, and reported in the documented form."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pipeline.cli import group
from pipeline.errors import ConfigError
from pipeline.stages.speed import memory
from pipeline.stages.speed.memory import measure_memory

COLUMNS = ["comparison", "ours", "bare", "ratio", "unit"]


def test_memory_is_that_of_a_process_that_took_everything_in() -> None:
    (row,) = measure_memory(3, 23)
    assert list(row) == COLUMNS
    assert row["comparison"] == "peak memory of ingesting 23 instances / 3"
    assert 30 < row["bare"] < 1000  # MiB: Python and numpy at least
    assert row["ratio"] == pytest.approx(row["bare"] / row["ours"], abs=0.006)
    assert row["ratio"] > 0.8


def test_memory_needs_a_system_that_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "STATUS", Path("/nowhere/status"))
    with pytest.raises(ConfigError, match="Linux"):
        measure_memory(1, 2)


def test_the_command_tells_all_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(name: str) -> list[dict[str, Any]]:
        return [{"comparison": name, "ours": 2.0, "bare": 1.0, "ratio": 2.0, "unit": "x/s"}]

    asked: dict[str, Any] = {}
    monkeypatch.setattr(
        "pipeline.stages.speed.ingest_train_score.speed", lambda *a: asked.update(speed=a) or rows("scoring")
    )
    monkeypatch.setattr("flows.overhead.measure_overhead", lambda n: asked.update(scans=n) or rows("flow"))
    monkeypatch.setattr("pipeline.stages.speed.memory.measure_memory", lambda: rows("memory"))
    done = CliRunner().invoke(group, ["benchmark", "speed", "--files", "5", "--images", "7", "--memory", "--json"])
    assert done.exit_code == 0, done.output
    assert [row["comparison"] for row in json.loads(done.stdout)] == ["scoring", "flow", "memory"]
    assert asked == {"speed": (5, 7), "scans": 100}
    done = CliRunner().invoke(group, ["benchmark", "speed", "--scans", "0"])
    assert "memory" not in done.stdout and "flow" not in done.stdout


def in_one_round(measure: Callable[..., Any], once: dict[str, int]) -> Callable[..., Any]:
    """A measurement whose numbers of rounds are replaced."""
    return lambda *values, **named: measure(*values, **(named | once))


@pytest.mark.slow
def test_everything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of comparison, with one round, one network of each list and one precision."""
    from flows.overhead import measure_overhead
    from pipeline.stages.speed import ingest_train_score, peak_share
    from pipeline.stages.speed.ingest_train_score import speed

    monkeypatch.setattr(ingest_train_score, "ROUNDS", 1)
    for measure, once in (("training", {"rounds": 1, "steps": 1}), ("scoring", {"repeats": 1})):
        whole = getattr(ingest_train_score, f"measure_{measure}_ratio")
        monkeypatch.setattr(ingest_train_score, f"measure_{measure}_ratio", in_one_round(whole, once))
    monkeypatch.setattr(peak_share, "EDGE", 64)
    monkeypatch.setattr(peak_share, "CONVOLUTION", (2, 8, 16))
    for listed in ("HEADS", "EXPORTED", "LARGE", "PRECISIONS"):
        monkeypatch.setattr(ingest_train_score, listed, getattr(ingest_train_score, listed)[:1])
    rows = [*speed(8, 16), *measure_overhead(4, rounds=1)]
    for row in rows:
        assert list(row) == COLUMNS
        assert min(row["ours"], row["bare"], row["ratio"]) > 0 and math.isfinite(row["ratio"])
    names = " ".join(row["comparison"] for row in rows)
    for part in (
        "ingest / bare pydicom loop, one decode worker",
        "ingest / bare pydicom loop, two decode workers",
        "train ae",
        "score dae",
        "score flow, 4 scans",
        "first flow of a process",
        "128 px, heatmap and p-value / forward pass",
        "128 px, fp32, batch 16 / largest product",
    ):
        assert part in names

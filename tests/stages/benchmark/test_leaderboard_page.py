"""The leaderboard's page: every figure states its spread over seeds, and none is the best seed's."""

from __future__ import annotations

from typing import Any

from pipeline.stages.benchmark.leaderboard import Leaderboard, LeaderRow
from pipeline.stages.benchmark.page import (
    leaderboard_figure,
    leaderboard_page,
    leaderboard_table,
    matched_table,
    seeds_table,
)

COUNTS = {"units": 20, "patients": 20}


def row(name: str, seeds: dict[int, dict[str, float]], **more: Any) -> LeaderRow:
    first = next(iter(seeds.values()))
    figures = {k: {"value": v, "low": v - 0.1, "high": v + 0.1} for k, v in first.items()}
    return LeaderRow.model_validate({"name": name, "figures": figures, "seeds": seeds, "units": 20, **more})


def board(*rows: LeaderRow) -> Leaderboard:
    facts = {"title": "t", "set_name": "develop", "criterion": "auroc", "part": "all units", "command": "nightread"}
    return Leaderboard(counts=COUNTS, rows=rows, **facts)


def test_mean_and_spread_over_seeds_by_hand() -> None:
    # 0.6, 0.7, 0.8: mean 0.7, standard deviation 0.1 (n - 1). A figure that one seed has has no spread.
    lucky = row("lucky", {0: {"auroc": 0.8, "dice": 0.5}, 1: {"auroc": 0.6}, 2: {"auroc": 0.7}})
    text = seeds_table(board(lucky, row("alone", {0: {"auroc": 0.9}})))
    (line,) = [line for line in text.splitlines() if line.startswith("| lucky")]
    assert [cell.strip() for cell in line.split("|")[1:-1]] == ["lucky", "3", "0.700 ± 0.100", ""]
    assert "alone" not in text
    assert text in leaderboard_page(board(lucky))


def test_one_seed_says_nothing_of_seeds() -> None:
    alone = board(row("alone", {0: {"auroc": 0.9}}))
    assert seeds_table(alone) == "" and "seed" not in leaderboard_page(alone)


def test_the_figure_shows_every_seed() -> None:
    figure = leaderboard_figure(board(row("three", {0: {"auroc": 0.8}, 1: {"auroc": 0.6}, 2: {"auroc": 0.7}})), "auroc")
    points = [
        (line.get_fillstyle(), list(line.get_xdata())) for line in figure.axes[0].lines if line.get_marker() == "o"
    ]
    assert points == [("full", [0.8]), ("none", [0.6, 0.7])]


def test_stages_of_a_training_are_distinguished() -> None:
    staged = row("two", {0: {"auroc": 0.8}}, training_seconds=25.0, stage_seconds=(10.0, 15.0))
    plain = row("one", {0: {"auroc": 0.7}}, training_seconds=25.0, stage_seconds=(25.0,))
    page = leaderboard_page(board(staged, plain))
    assert page.count("25 (10 + 15)") == 1 and "| 25  " in page


def test_a_training_that_its_cap_ended_is_marked_in_the_table_and_named_below() -> None:
    cut = row("one", {0: {"auroc": 0.8}}, training_seconds=25.0, cut_short="Cut short: 24 000 of 36 000 images.")
    page = leaderboard_page(board(cut, row("two", {0: {"auroc": 0.7}}, training_seconds=24.0)))
    assert page.count("25 (cut short)") == 1 and "one: Cut short: 24 000 of 36 000 images." in page
    assert "24 (cut" not in page


def test_figures_between_units_alike_in_a_control_have_a_table_of_their_own_with_the_controls() -> None:
    own = row("dae", {0: {"auroc": 0.8, "AUROC given noise": 0.6}})
    noise = row("noise", {0: {"auroc": 0.9, "AUROC given noise": 0.5}}, control=True)
    lines = [line for line in matched_table(board(own, noise)).splitlines() if line.startswith("| ")]
    assert [[cell.split(" (")[0].strip() for cell in line.split("|")[2:-1]] for line in lines[-2:]] == [
        ["0.800", "0.600"],
        ["0.900", "0.500"],
    ]
    assert "control: noise" in lines[-1] and "given noise" not in leaderboard_table(board(own, noise))
    assert matched_table(board(row("dae", {0: {"auroc": 0.8}}))) == ""

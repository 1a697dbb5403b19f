"""Categories named by hand, and images whose category has the wrong name or no name."""

from __future__ import annotations

import pytest

from pipeline.evaluation.category_agreement import judge_codes, name_codes


def test_a_code_is_called_by_the_majority_of_its_images_and_two_codes_may_share_a_name() -> None:
    codes, classes = [0, 0, 0, 1, 1, 2], ["hand", "hand", "chest", "hand", "chest", "chest"]
    assert name_codes(codes, classes) == {0: "hand", 1: "chest", 2: "chest"}  # code 1 is a tie: the first by name


def test_held_out_images_are_right_only_under_the_name_of_their_code() -> None:
    share = judge_codes({0: "hand", 1: "chest"}, [0, 0, 1, 7], ["hand", "chest", "chest", "chest"], 0.95)
    assert share.value == 0.5
    # Clopper-Pearson for 2 of 4.
    assert (share.low, share.high) == pytest.approx((0.0676, 0.9324), abs=1e-4)

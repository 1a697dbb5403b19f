"""Categories named by hand, and images whose category has the wrong name or no name."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import normalized_mutual_info_score

from pipeline.evaluation.category_agreement import judge_codes, name_codes, share_information


def test_a_code_is_called_by_the_majority_of_its_images_and_two_codes_may_share_a_name() -> None:
    codes, classes = [0, 0, 0, 1, 1, 2], ["hand", "hand", "chest", "hand", "chest", "chest"]
    assert name_codes(codes, classes) == {0: "hand", 1: "chest", 2: "chest"}  # code 1 is a tie: the first by name


def test_held_out_images_are_right_only_under_the_name_of_their_code() -> None:
    share = judge_codes({0: "hand", 1: "chest"}, [0, 0, 1, 7], ["hand", "chest", "chest", "chest"], 0.95)
    assert share.value == 0.5
    # Clopper-Pearson for 2 of 4.
    assert (share.low, share.high) == pytest.approx((0.0676, 0.9324), abs=1e-4)


def test_shared_information_is_that_of_scikit_learn_and_its_interval_is_wider_over_fewer_patients() -> None:
    rng = np.random.default_rng(0)
    names = rng.choice(["hand", "chest", "head"], 300)
    codes = [{"hand": 0, "chest": 1, "head": 1}[name] if rng.random() < 0.8 else 2 for name in names]
    apart, together = (
        share_information(codes, list(names), [str(i // size) for i in range(300)], 0.95) for size in (1, 30)
    )
    assert apart.value == pytest.approx(normalized_mutual_info_score(names, codes))
    assert together.value == apart.value and apart.low < apart.value < apart.high
    # Patients with ten images each repeat what one image says if all of them are alike.
    alike = share_information(
        np.repeat(codes[:30], 10), np.repeat(names[:30], 10), [str(i // 10) for i in range(300)], 0.95
    )
    assert alike.high - alike.low > 2 * (apart.high - apart.low)


def test_classes_under_other_names_share_everything_and_one_code_shares_nothing() -> None:
    names = ["hand", "chest", "head"] * 5
    patients = [str(i) for i in range(15)]
    assert share_information([0, 1, 2] * 5, names, patients, 0.95).value == pytest.approx(1)
    assert share_information([0] * 15, names, patients, 0.95).value == pytest.approx(0)

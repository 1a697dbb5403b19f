"""Flagging a night: thresholds, false-discovery rate and capacity, on p-values worked out by hand."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from pipeline.detection.flag import discovery_cut, flag_by_capacity, flag_by_fdr, flag_by_fpr, plan_fdr, review_order
from pipeline.errors import ConfigError, TooFewNormals
from pipeline.types import Finding


def night(*p_values: float | None, n: int = 99, scores: list[float] | None = None) -> list[Finding]:
    values = scores or [-(p or 0) for p in p_values]
    return [
        Finding(f"s{i}", f"p{i}", "brain", values[i], p, n, "conformal") for i, p in enumerate(p_values)
    ]  # fmt: skip


def flags(flagged: object) -> list[bool | None]:
    return [finding.flagged for finding in flagged.findings]


def test_fpr_flags_up_to_k_of_n_plus_one() -> None:
    result = flag_by_fpr(night(0.04, 0.05, 0.06, 0.01), 0.05)
    assert flags(result) == [True, True, False, True]
    assert result.rule == "fpr 0.05"
    assert "3 of 4 flagged" in result.statement
    assert "conformal" in result.statement


def test_fpr_refuses_a_route_with_too_few_normals() -> None:
    with pytest.raises(TooFewNormals, match="at least 99"):
        flag_by_fpr(night(0.02, n=50), 0.01)


def test_bh_by_hand() -> None:
    # m = 5, q = 0.1: steps 0.02 0.04 0.06 0.08 0.10. Sorted p: 0.01 0.05 0.055 0.085 0.3: the third is the last below.
    p = np.array([0.3, 0.05, 0.01, 0.055, 0.085])
    assert discovery_cut(p, 0.1) == 0.055
    # Benjamini-Yekutieli divides q by 1 + 1/2 + ... + 1/5 = 137/60: steps 0.00876 ...: nothing
    assert discovery_cut(p, 0.1, "by") == -np.inf
    assert discovery_cut(np.array([0.008, 0.5, 0.5, 0.5, 0.5]), 0.1, "by") == 0.008


def test_fdr_on_a_night() -> None:
    result = flag_by_fdr(night(0.3, 0.05, 0.01, 0.055, 0.085), 0.1, capacity=1)
    assert flags(result) == [False, True, True, True, False]
    assert result.rule == "fdr 0.1 (bh)"
    assert "3 of 5 patients" in result.statement


def test_a_p_value_right_at_its_step_is_a_discovery() -> None:
    # n + 1 = 60, m = 6, q = 0.1: the first step is 1/60, just what the most extreme score gets
    result = flag_by_fdr(night(1 / 60, 1.0, 1.0, 1.0, 1.0, 1.0, n=59), 0.1, capacity=0)
    assert flags(result) == [True, False, False, False, False, False]


def test_series_of_a_patient_are_merged_by_bonferroni() -> None:
    two = night(0.03, 0.9)
    same = [two[0], replace(two[1], patient_id="p0")]
    # One patient, two findings: min(2 x 0.03, 2 x 0.9) = 0.06 > 0.05, though 0.03 alone would have been flagged
    assert flags(flag_by_fdr(same, 0.05, capacity=0)) == [False, False]
    assert flags(flag_by_fdr(same, 0.06, capacity=0)) == [True, False]
    assert flags(flag_by_fdr(two[:1], 0.05, capacity=0)) == [True]


def test_the_plan_is_known_beforehand() -> None:
    many = night(*[0.5] * 20, n=99)  # n + 1 = 100, m = 20
    assert plan_fdr(many, 0.2).smallest == 1  # 0.01 <= 0.2 / 20
    assert plan_fdr(many, 0.1).smallest == 2  # 0.01 <= 2 x 0.1 / 20
    assert plan_fdr(many, 0.01).smallest == 20
    assert plan_fdr(many, 0.005).smallest is None
    assert plan_fdr(many, 0.2, "by").smallest == 4  # H_20 = 3.598: 0.01 <= r x 0.0556 / 20 from r = 3.6
    assert plan_fdr([], 0.1).smallest is None


@pytest.mark.parametrize(("q", "words"), [(0.1, "only 2 or more together"), (0.004, "or all together")])
def test_an_impossible_fdr_falls_back_to_capacity_and_says_so(q: float, words: str) -> None:
    many = night(*[0.5] * 18, 0.02, 0.01, n=99)
    result = flag_by_fdr(many, q, capacity=3)
    assert sum(flags(result)) == 3
    assert result.findings[19].flagged
    assert result.rule == f"capacity 3 (fdr {q:g} impossible)"
    assert "cannot support a single discovery among 20 patients" in result.statement
    assert words in result.statement
    assert len(result.rule) <= 64


def test_the_reported_need_is_right() -> None:
    statement = flag_by_fdr(night(*[0.5] * 20, n=99), 0.1, capacity=0).statement
    assert "199 normals could" in statement
    assert plan_fdr(night(*[0.5] * 20, n=199), 0.1).smallest == 1
    assert plan_fdr(night(*[0.5] * 20, n=198), 0.1).smallest == 2


def test_capacity_breaks_ties_by_score_then_hash_and_never_by_order() -> None:
    tied = night(*[0.01] * 6, scores=[1.0, 5.0, 3.0, 3.0, 0.0, 2.0])
    assert review_order(tied)[0] == 1
    first = {f.study_id for f in flag_by_capacity(tied, 3).findings if f.flagged}
    assert first == {"s1", "s2", "s3"}
    for seed in range(5):
        shuffled = random.Random(seed).sample(tied, len(tied))
        assert {f.study_id for f in flag_by_capacity(shuffled, 2).findings if f.flagged} == {
            tied[i].study_id for i in review_order(tied)[:2]
        }


def test_routes_take_turns_where_p_values_tie() -> None:
    brain = night(*[0.01] * 3, scores=[9.0, 8.0, 7.0])
    chest = [replace(f, route="chest", study_id=f"c{i}", score=f.score / 1e6) for i, f in enumerate(brain)]
    chosen = [f.route for f in flag_by_capacity([*brain, *chest], 4).findings if f.flagged]
    assert sorted(chosen) == ["brain", "brain", "chest", "chest"]


def test_capacity_edges() -> None:
    assert flags(flag_by_capacity(night(0.1, None, 0.2), 2)) == [True, False, True]
    assert flags(flag_by_capacity(night(0.1), 10)) == [True]
    assert flag_by_capacity([], 3).findings == ()
    with pytest.raises(ConfigError, match="0 or more"):
        flag_by_capacity([], -1)


def test_empty_nights_and_uncalibrated_findings() -> None:
    assert flag_by_fdr([], 0.1, capacity=2).findings == flag_by_fpr([], 0.1).findings == ()
    for rule in (lambda f: flag_by_fpr(f, 0.1), lambda f: flag_by_fdr(f, 0.1, capacity=1)):
        with pytest.raises(ConfigError, match=r"\b1 of 2\b.*p-value"):
            rule(night(0.1, None))
    with pytest.raises(ConfigError, match="strictly"):
        flag_by_fdr(night(0.1), 1.5, capacity=1)

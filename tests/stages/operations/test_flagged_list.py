"""The flagged list in words."""

from __future__ import annotations

import pytest

from pipeline.stages.operations.flagged_list import describe_rule


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("fpr 0.05", "a false-positive rate of 0.05"),
        ("fdr 0.1 (bh)", "a false-discovery rate of 0.1 (bh)"),
        ("capacity 20", "a review capacity of 20"),
        ("capacity 20 (fdr 0.1 impossible)", "a review capacity of 20 (a false-discovery rate of 0.1 impossible)"),
        ("", ""),
        ("two readers", "two readers"),
    ],
)
def test_a_rule_is_described_in_words(rule: str, words: str) -> None:
    assert describe_rule(rule) == words

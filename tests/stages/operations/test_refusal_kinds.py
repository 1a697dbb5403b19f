"""Every rejection code has one kind."""

from __future__ import annotations

from collections import Counter

from pipeline.errors import RejectionCode
from pipeline.stages.operations.refusal_kinds import KINDS, OTHER, kind_of


def test_every_code_has_exactly_one_kind() -> None:
    assert Counter(code for codes in KINDS.values() for code in codes) == Counter(RejectionCode)
    assert kind_of("no-route") == OTHER and OTHER not in KINDS

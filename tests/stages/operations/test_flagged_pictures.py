"""Pictures of flagged studies: the first is the most unusual, whatever the order of the store or of the routes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pipeline.stages.operations import flagged_pictures
from pipeline.stages.operations.flagged_pictures import draw_flagged_pictures


@pytest.mark.parametrize("order", [list, lambda items: list(items)[::-1]], ids=["stored", "reversed"])
def test_pictures_follow_the_list(order: Callable, scored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    slices = flagged_pictures.scored_slices
    monkeypatch.setattr(flagged_pictures, "scored_slices", lambda *each: order(slices(*each)))
    rows, pictures = draw_flagged_pictures(scored.settings, [scored.run_id])
    assert len(pictures) == 2
    assert [picture.study_id[:12] for picture in pictures] == [row["study"] for row in rows]
    assert rows[0]["score"] > rows[1]["score"]


def test_p_values_compare_routes_and_scores_break_ties() -> None:
    finished = {"rare": (0.01, 3.0), "rarer": (0.001, 0.2), "tied": (0.01, 5.0), "not calibrated": (None, 99.0)}
    names = sorted(finished, key=lambda name: flagged_pictures._unusual_first(*finished[name]))
    assert names == ["rarer", "tied", "rare", "not calibrated"]

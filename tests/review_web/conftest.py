"""A scored workspace to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from pipeline.config import Settings


@dataclass(frozen=True, slots=True)
class ScoredNight:
    """A workspace with a scoring run that flagged two studies; `planted` stands in every real identifier."""

    settings: Settings
    run_id: str
    planted: str


@pytest.fixture(scope="session")
def scored(trained: Any, phantom_night: Any) -> ScoredNight:
    """Score the inbox of the shared workspace."""
    from pipeline.stages.score import detectors_to_run, score

    run = detectors_to_run(trained.settings, "phantom-mr")[0]
    report = score(run, trained.settings, again=True)
    assert report.flagged == 2
    return ScoredNight(trained.settings, report.run_id, phantom_night.planted)

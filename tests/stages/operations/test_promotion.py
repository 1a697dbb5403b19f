"""A promotion says what it replaced; an unknown run is refused."""

from __future__ import annotations

import pytest

from pipeline.config import Settings
from pipeline.errors import ArtefactError
from pipeline.stages.operations.promotion import Promotion, promote_run


@pytest.mark.parametrize(("replaced", "said"), [(None, False), ("2", False), ("1", True)])
def test_only_another_version_is_replaced(replaced: str | None, said: bool) -> None:
    promotion = Promotion("brain", "run-1", "2", replaced)
    assert ("in place of version 1" in promotion.sentence()) == said
    assert promotion.to_json() == {"route": "brain", "run": "run-1", "version": "2", "replaced": replaced}


def test_an_unknown_run_is_not_promoted(settings: Settings) -> None:
    with pytest.raises(ArtefactError):
        promote_run(settings, "no-such-run")

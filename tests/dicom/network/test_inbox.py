"""The inbox after a restart: studies that were waiting are handed over, whatever the clock said when they arrived."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from pipeline.dicom.network.inbox import Inbox, Kept


@pytest.mark.parametrize("seconds", [-3600.0, 3e8])
def test_a_waiting_study_is_handed_over_after_its_quiet_period(seconds: float, tmp_path: Path) -> None:
    with Inbox.open(tmp_path / "inbox") as inbox, inbox.draft([b"one object"]) as draft:
        assert inbox.keep(draft, "1.2", "1.2.3") == Kept.STORED
    (study,) = (tmp_path / "inbox" / "open").iterdir()
    os.utime(study, (time.time() + seconds,) * 2)
    with Inbox.open(tmp_path / "inbox") as inbox:
        assert (inbox.waiting(), len(inbox.hand_over(1800.0))) == (1, int(seconds < 0))
        assert sum(len(inbox.hand_over(0.0)) for _ in range(2)) == int(seconds > 0)
        assert inbox.waiting() == 0

"""Progress without a terminal: silence at first, then lines with counts, speed and the time left."""

from __future__ import annotations

import pytest

from pipeline import progress


def test_lines_come_after_ten_seconds_and_then_every_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.show_progress("training ae", "images") as advance:
        for second in range(0, 200, 5):
            now = 100.0 + second
            advance(1000 + 10 * second, 3000)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training ae: 1100 of 3000 images, 10 per second, 3 min 10 s left"
    assert [line.split()[2] for line in lines] == ["1100", "1700", "2300", "2900", "2950"]
    assert lines[-1].endswith("after 3 min 15 s")


def test_short_work_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.show_progress("Scoring") as advance:
        advance(1, None)
    assert capsys.readouterr() == ("", "")


def test_a_log_receives_the_lines_and_the_last_one_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now, lines = 0.0, list[str]()
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.progress_into(lines.append), progress.show_progress("Evaluating", "slices") as advance:
        for done in range(1, 21):
            now = float(done)
            advance(done, 20)
        assert lines == [
            "Evaluating: 10 of 20 slices, 1 per second, 10 s left",
            "Evaluating: 20 of 20 slices, after 20 s",
        ]
    assert len(lines) == 2 and capsys.readouterr().err == ""
    with progress.show_progress("Scoring") as advance:
        now = 31.0
        advance(1, 2)
    assert len(lines) == 2 and "Scoring" in capsys.readouterr().err

"""The pages about the work: the night's counts, a model's card, and drift that is the p-values' own."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.stages.operations.drift import read_drift, read_night
from pipeline.stages.operations.model_card import LIMITS, list_scored_models, read_model_card
from pipeline.stages.operations.trends import read_trends


def test_the_night_counts_what_the_catalogue_counts(room: Any, scored: Any) -> None:
    counts = read_night(room.catalogue, room.catalogue.run(scored.run_id).started_at.date())
    assert (counts["files"], counts["new"], counts["rejected"]) == (54, 54, 0)
    # Other tests may have scored the shared workspace before.
    runs = [run for run in room.catalogue.list_runs("score") if run.state == "done"]
    assert counts["scored"] == sum(run.summary["studies"] for run in runs)
    assert counts["flagged"] == sum(run.summary["flagged"] for run in runs) >= 2


def test_drift_is_of_the_runs_own_p_values(room: Any, scored: Any) -> None:
    one = next(run for runs in read_drift(room.catalogue).values() for run in runs if run.run_id == scored.run_id)
    rows = room.catalogue.list_findings(scored.run_id)
    p_values = [row.p_value for row in rows]
    assert one.studies == len(rows) == 6
    assert one.tail == np.mean(np.array(p_values) <= 0.1)
    assert one.p[2] == np.median(p_values)
    (boxes,) = read_trends(room.catalogue, one.at.date()).p_values
    pooled = [
        row.p_value for run in read_drift(room.catalogue)[one.route] for row in room.catalogue.list_findings(run.run_id)
    ]
    assert boxes.boxes[-1].day == boxes.days[-1] == one.at.date() and boxes.boxes[-1].studies == len(pooled)
    assert boxes.boxes[-1].quantiles == tuple(np.percentile(pooled, (5, 25, 50, 75, 95)))


def test_a_card_says_data_limits_and_that_nothing_was_measured(room: Any, scored: Any, browser: Any) -> None:
    sha256 = room.catalogue.run(scored.run_id).sha256
    assert sha256 in [one["sha256"] for one in list_scored_models(room.catalogue)]
    card = read_model_card(room.catalogue, room.settings, sha256[:16])
    assert card["limits"] == LIMITS
    assert {row["set"] for row in card["data"]} == {"train", "validate"}
    assert card["calibration"]["n"] > 0
    page = browser("ann").get(f"/model/{sha256[:16]}").text
    assert "not for diagnosis" in page
    assert str(card["calibration"]["n"]) in page
    assert re.search("has not been evaluated|Evaluated on", page)
    assert read_model_card(room.catalogue, room.settings, "%") is None  # not the pattern, and too short
    assert read_model_card(room.catalogue, room.settings, "%%%%%%%%") is None


def test_any_night_can_be_chosen_and_one_without_events_says_so(room: Any, scored: Any, browser: Any) -> None:
    day = room.catalogue.run(scored.run_id).started_at.date()
    ann = browser("ann")
    assert "Nothing was read" not in ann.get(f"/night?day={day}").text
    for other in ("2001-02-03", "9999-12-31", "0001-01-01"):
        page = ann.get(f"/night?day={other}")
        assert page.status_code == 200 and "Nothing was read, refused or scored on" in page.text
        assert f'value="{other}"' in page.text and f'href="/night?day={day}"' in page.text
    assert ann.get("/night?day=").status_code == 200
    for wrong in ("2026-02-30", "yesterday", "20260101", "2026-W48-7", "2026-1-002", "٢٠٢٦-01-01", "' OR 1=1"):
        page = ann.get(f"/night?day={quote(wrong)}")
        assert page.status_code == 422 and "YYYY-MM-DD" in page.text and wrong not in page.text


@pytest.mark.parametrize("name", ["ann", "aud"])
def test_the_report_of_a_night_is_one_file_and_tells_nobody_what_is_read_blind(
    room: Any, scored: Any, browser: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    day, one = room.catalogue.run(scored.run_id).started_at.date(), browser(name)
    assert f"/night/report.pdf?day={day}" in one.get(f"/night?day={day}").text
    answer = one.get(f"/night/report.html?day={day}")
    assert answer.headers["content-disposition"] == f'attachment; filename="nightread-night-{day}.html"'
    hidden = bool(room.review.worklist.list_blind_runs())
    assert ("<b>?</b> flagged, held back" in answer.text) == hidden and "6</b> studies scored" in answer.text
    monkeypatch.setattr("pipeline.review.web.overview.write_pdf", lambda page: page[:8].encode())
    answer = one.get(f"/night/report.pdf?day={day}")
    assert (answer.headers["content-type"], answer.content) == ("application/pdf", b"<!doctyp")
    assert one.get("/night/report.pdf?day=9999-12-31").status_code == 409
    assert one.get("/night/report.exe").status_code in (404, 422)


def test_a_report_without_pango_says_what_to_install(browser: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(page: str) -> bytes:
        raise ConfigError("A PDF needs the library Pango. Install it")

    monkeypatch.setattr("pipeline.review.web.overview.write_pdf", refuse)
    answer = browser("ann").get("/night/report.pdf")
    assert answer.status_code == 409 and "the library Pango. Install it" in answer.text

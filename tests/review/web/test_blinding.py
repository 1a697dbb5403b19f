"""Nothing around a scan tells whether it was flagged while its reader may still decide blind."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.data.catalogue.reading_list import draw_reading_lists
from pipeline.data.catalogue.schema import FindingRow, RunRow, now
from pipeline.errors import RejectionCode
from pipeline.review.night_charts import draw_trends
from pipeline.stages.operations.trends import read_trends
from pipeline.types import Finding, SliceScore

Open = Callable[..., Any]


def score_one(room: Any, night: Any, study: str, flagged: bool) -> str:
    """Enter a scoring run of one study that is listed already under another model's name; return the run."""
    scored = room.catalogue.run(night.run_id)
    run_id = room.catalogue.start_run("score", scored.route, scored.folder)
    row = next(row for row in room.catalogue.list_findings() if row.study_id == study)
    names = ("instance_id", "frame", "series_id")
    evidence = (SliceScore(*(row.evidence[0][name] for name in names), study, row.patient_id, 1.0),)
    p_value = 0.001 if flagged else 0.8
    finding = Finding(study, row.patient_id, row.route, 1.0, p_value, 99, "conformal", flagged, "fpr", evidence)
    room.catalogue.add_findings(run_id, [finding], ("f" if flagged else "e") * 64)
    statement = f"{int(flagged)} of 1 flagged at a target false-positive rate of 0.05."
    room.catalogue.finish_run(run_id, summary={"studies": 1, "flagged": int(flagged), "statement": statement})
    draw_reading_lists(room.catalogue, night.settings.review)
    return run_id


@pytest.mark.parametrize("flagged", [True, False])
def test_the_night_tells_no_result_of_a_run_that_is_read_blind(
    browser: Open, room: Any, night: Any, listed: list[int], flagged: bool
) -> None:
    study = room.read_finding(listed[0]).study_id
    run_id = score_one(room, night, study, flagged)
    ann, auditor = browser("ann"), browser("aud")
    page = ann.get("/night").text
    assert "of 1 flagged at" not in page
    assert "hidden until decided" in page
    assert f"{int(flagged)} of 1 flagged at" in auditor.get("/night").text, "an auditor does not read scans"
    assert run_id in room.review.worklist.list_blind_runs()
    number = next(row.id for row in room.catalogue.list_findings(run_id))
    ann.decide(number, "dismissed")
    assert "of 1 flagged at" not in ann.get("/night").text, "the study is still read blind in its other row"
    ann.decide(listed[0], "dismissed")
    assert f"{int(flagged)} of 1 flagged at" in ann.get("/night").text
    assert run_id not in room.review.worklist.list_blind_runs()


def test_objects_of_ours_that_came_back_are_not_counted_for_readers(browser: Open, room: Any) -> None:
    code = RejectionCode.MADE_HERE.value
    with room.catalogue.session() as session:
        room.catalogue.add_rejection(session, "f" * 32, "file", RejectionCode.MADE_HERE, "Nightread made it.")
    assert code not in browser("ann").get("/night").text
    assert code in browser("aud").get("/night").text


def unflag(room: Any, run_id: str) -> None:
    """Turn the flagged scan of a run into one that is not, as if it had always been so."""
    with room.catalogue.session() as session:
        session.get(RunRow, run_id).summary = {"studies": 1, "flagged": 0, "statement": ""}
        for row in session.query(FindingRow).filter(FindingRow.run_id == run_id):
            row.flagged, row.p_value = False, 0.8


def test_the_charts_are_the_same_whether_a_blind_scan_was_flagged(room: Any, night: Any, listed: list[int]) -> None:
    study = room.read_finding(listed[0]).study_id
    run_id = score_one(room, night, study, flagged=True)
    hidden = room.review.worklist.list_blind_runs()
    assert run_id in hidden
    pictures = []
    for change in (lambda: None, lambda: unflag(room, run_id)):
        change()
        pictures.append([draw_trends(read_trends(room.catalogue, now().date(), one)) for one in (hidden, ())])
    (blind, open_), (blind_unflagged, open_unflagged) = pictures
    assert blind == blind_unflagged
    assert open_ != open_unflagged, "the charts do show it to whoever does not read"
    assert 'class="c-held-back"' in str(blind) and 'class="c-held-back"' not in str(open_)


def test_the_page_shows_a_reader_the_charts_without_hidden_runs(
    browser: Open, room: Any, night: Any, listed: list[int]
) -> None:
    score_one(room, night, room.read_finding(listed[0]).study_id, flagged=True)
    assert "c-held-back" in browser("ann").get("/night").text
    assert "c-held-back" not in browser("aud").get("/night").text


def test_trends_do_not_count_objects_of_ours_for_readers(room: Any) -> None:
    with room.catalogue.session() as session:
        room.catalogue.add_rejection(session, "e" * 32, "file", RejectionCode.MADE_HERE, "Nightread made it.")
    every, without = (
        read_trends(room.catalogue, now().date(), (), codes) for codes in ((), (RejectionCode.MADE_HERE.value,))
    )
    assert every.counts[2].values[-1] == without.counts[2].values[-1] + 1
    assert set(every.refusals) - set(without.refusals) == {"Images that do not belong here"}


def test_a_study_of_two_models_shows_nothing_before_both_rows_are_decided(
    browser: Open, room: Any, night: Any, listed: list[int]
) -> None:
    """Pages, pictures and the list hide in one row what the other would show; one first look ends both."""
    run_id = score_one(room, night, room.read_finding(listed[0]).study_id, flagged=True)
    rows = [listed[0], next(row.id for row in room.catalogue.list_findings(run_id))]
    ann, ben = browser("ann"), browser("ben")
    ann.decide(rows[0], "confirmed")
    page = ann.get(f"/scan/{rows[0]}").text
    assert "more unusual than" not in page + ann.get("/?state=all").text + ann.get("/?state=confirmed").text
    assert "hidden until this study is decided in all its rows" in page
    assert f'href="/scan/{rows[1]}"' in page.split('id="other-rows"')[1].split("</p>")[0]
    heats = [f"/scan/{number}/heat/0/0" for number in rows]
    assert [ann.get(path).status_code for path in heats] == [403, 403]
    ann.end_first_look(rows[1])
    assert '"heatmap": true' in ann.get(f"/scan/{rows[0]}").text, "what one row shows is shown in both"
    about = json.loads(ann.get(heats[0]).headers["x-image"])
    assert (about["threshold"], about["slope"]) == (None, 1 / 255), "no outline, and no fine steps"
    assert ben.get(heats[0]).status_code == 403
    ann.decide(rows[1], "dismissed")
    assert ann.get("/?state=all").text.count("more unusual than") >= 2


def test_objects_without_an_image_are_not_counted_for_readers_while_a_scan_is_read_blind(
    browser: Open, room: Any, night: Any, listed: list[int]
) -> None:
    """A gateway may take our marks off a segmentation or report of ours that comes back: it is of a flagged scan."""
    code = RejectionCode.NOT_AN_IMAGE.value
    score_one(room, night, room.read_finding(listed[0]).study_id, flagged=True)
    before = browser("ann").get("/night").text
    with room.catalogue.session() as session:
        room.catalogue.add_rejection(session, "d" * 32, "file", RejectionCode.NOT_AN_IMAGE, "The object is a map.")
    assert room.review.worklist.list_blind_runs()
    page = browser("ann").get("/night").text
    assert page_of(page) == page_of(before) == page_of(browser("ann").get("/night").text)
    assert code in browser("aud").get("/night").text


def page_of(text: str) -> str:
    """Return a page without what every answer makes afresh, such as the token of its forms."""
    return re.sub(r'(name="csrf" value|data-csrf)="[^"]*"', r'\1=""', text)


def test_a_second_opinion_is_requested_without_the_first_one_in_sight(
    browser: Open, room: Any, night: Any, listed: list[int]
) -> None:
    run_id = score_one(room, night, room.read_finding(listed[0]).study_id, flagged=True)
    rows = [listed[0], next(row.id for row in room.catalogue.list_findings(run_id))]
    ann, ben = browser("ann"), browser("ben")
    ann.decide(rows[0], "unsure", comment="the first opinion")
    ann.decide(rows[1], "second-opinion")
    link = f'href="/scan/{rows[0]}'
    assert link not in ben.get("/?state=unsure").text and link in ann.get("/?state=unsure").text
    assert link in ben.get("/?state=second-opinion").text
    page = ben.get(f"/scan/{rows[0]}").text
    header = page.split('id="decision-title"')[1].split("</h2>")[0]
    assert "ann" not in header and "nsure" not in header and "the first opinion" not in page

"""The page of promotions: who sees what, the three decisions, and that nothing typed is lost or recorded twice."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pipeline.data.catalogue.promotion_records import list_promotions
from pipeline.review.web.app_state import Room
from pipeline.review.web.config import WebConfig
from pipeline.review.web.promotions_page import HIDDEN
from pipeline.stages.operations.gate_report import REPORT
from pipeline.stages.run.run_folder import RunFolder

PASSWORD = "a long enough passphrase"
FIELDS = ("csrf", "token", "last", "champion", "basis")


@pytest.fixture
def ward(judged: Any, setup: Any) -> Iterator[Room]:
    """The judged workspace, opened, with an admin, a reader and a lead."""
    with Room.open(judged.settings, WebConfig()) as opened:
        for name, role in (("ada", "admin"), ("ann", "reader"), ("lea", "lead"), ("aud", "auditor")):
            opened.review.users.add(name, role, PASSWORD, setup)
        yield opened


@pytest.fixture
def enter(ward: Room, visit: Callable[[Room], Any]) -> Callable[[str], Any]:
    """Return a function that logs somebody in."""

    def log_in(name: str) -> Any:
        one = visit(ward)
        assert one.log_in(name).status_code == 303
        return one

    return log_in


def fill(page: str, of: str, hidden: Callable[[str, str], str], **fields: str) -> dict[str, str]:
    """Return the fields of the form that decides on a run or a route."""
    form = page.split(f'data-decides="{of}"')[1].split("</form>")[0]
    return {name: hidden(form, name) for name in FIELDS} | fields


def test_everybody_sees_the_gates_and_only_admins_the_buttons(enter: Any, judged: Any) -> None:
    for name in ("ada", "ann", "lea", "aud"):
        page = enter(name).get("/promotions").text
        assert "not inferior by a margin of 0.03" in page and "25 normal" in page and judged.challenger in page
        assert ("Promote as" in page) is (name == "ada")
        assert "flags 6.7%" in page, "no scan is read blind here"


def test_a_reader_is_not_told_flags_of_nights_that_are_read_blind(
    enter: Any, ward: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(ward.review.worklist), "list_blind_runs", lambda self: frozenset({"score-1"}))
    for name in ("ann", "lea", "ada", "aud"):
        page = enter(name).get("/promotions").text
        assert (HIDDEN in page) is (name in ("ann", "lea"))
        assert ("flags 6.7%" in page) is (name in ("ada", "aud"))


def test_a_promotion_a_rollback_and_what_the_page_says_then(enter: Any, ward: Room, judged: Any, hidden: Any) -> None:
    ada = enter("ada")
    form = fill(ada.get("/promotions").text, judged.challenger, hidden, run=judged.challenger, action="promote")
    words = "more normals\r\nof the new <b>scanner</b>"
    for _ in range(2):  # a double click
        answer = ada.post("/promotions", {**form, "why": words})
        assert (answer.status_code, answer.headers["location"]) == (303, "/promotions")
    (record,) = list_promotions(ward.catalogue)
    assert (record.who, record.why) == ("ada", "more normals of the new <b>scanner</b>")
    page = ada.get("/promotions").text
    assert "<b>scanner</b>" not in page and "&lt;b&gt;scanner" in page and "No challenger is waiting" in page
    back = fill(page, "phantom-mr", hidden, route="phantom-mr", action="rollback", why="too many flags")
    assert ada.post("/promotions", back, **{"hx-request": "true"}).status_code == 200
    assert [one.action for one in list_promotions(ward.catalogue)] == ["rollback", "promote"]
    entries = ward.review.audit.list_entries(limit=10)
    assert {(one.action, one.subject) for one in entries} >= {("promote", "promotion:1"), ("rollback", "promotion:2")}


def test_a_refusal_leaves_the_champion(enter: Any, ward: Room, judged: Any, hidden: Any) -> None:
    ada = enter("ada")
    form = fill(ada.get("/promotions").text, judged.challenger, hidden, run=judged.challenger, action="refuse")
    assert ada.post("/promotions", {**form, "why": "trained before the new coil"}).status_code == 303
    page = ada.get("/promotions").text
    assert "No challenger is waiting" in page and "trained before the new coil" in page and "Roll back" not in page


@pytest.mark.parametrize("change", [
    {"why": " "}, {"token": "x"}, {"basis": "0" * 64}, {"last": "99"}, {"last": "-1"}, {"champion": "7"},
    {"action": "sell"}, {"why": "w" * 1001}, {"run": "no-such-run"}, {"why": "a\x00b"},
])  # fmt: skip
def test_a_form_that_cannot_be_obeyed_comes_back_as_it_was_typed(
    enter: Any, ward: Room, judged: Any, hidden: Any, change: dict[str, str]
) -> None:
    ada = enter("ada")
    typed = {"run": judged.challenger, "action": "promote", "why": "a reason of some length"}
    form = fill(ada.get("/promotions").text, judged.challenger, hidden, **typed) | change
    answer = ada.post("/promotions", form)
    assert answer.status_code == 409 and "NOT RECORDED" in answer.text
    if "run" not in change and "\x00" not in form["why"]:
        assert form["why"] in html.unescape(answer.text)
    by_script = ada.post("/promotions", form, **{"hx-request": "true"})
    assert by_script.status_code == 409 and 'role="alert"' in by_script.text
    assert list_promotions(ward.catalogue) == []


def test_a_failed_gate_has_no_button_and_is_refused_all_the_same(
    enter: Any, ward: Room, judged: Any, hidden: Any
) -> None:
    folder = RunFolder(judged.settings.runs / judged.challenger)
    report = folder.read(REPORT)
    report["lines"][0] |= {"passed": False, "sentence": "It is worse."}
    folder.write(REPORT, report)
    ada = enter("ada")
    page = ada.get("/promotions").text
    assert "Promote as" not in page and "does not pass every gate (AUROC)" in page and 'value="refuse"' in page
    form = fill(page, judged.challenger, hidden, run=judged.challenger, action="promote", why="all the same")
    answer = ada.post("/promotions", form)
    assert answer.status_code == 409 and "does not pass every gate" in answer.text
    assert list_promotions(ward.catalogue) == []


def test_others_and_foreign_forms_are_refused(enter: Any, ward: Room, judged: Any, hidden: Any) -> None:
    form = fill(
        enter("ada").get("/promotions").text,
        judged.challenger,
        hidden,
        run=judged.challenger,
        action="promote",
        why="x",
    )
    for name in ("ann", "lea", "aud"):
        other = enter(name)
        assert other.post("/promotions", {**form, "csrf": other.csrf()}).status_code == 403
    assert enter("ada").post("/promotions", form).status_code == 403, "the token of another session"
    assert enter("ada").post("/promotions", form, **{"sec-fetch-site": "cross-site"}).status_code == 403
    assert list_promotions(ward.catalogue) == []


@pytest.mark.slow
def test_a_reason_that_is_typed_stays_with_its_person(
    chromium: Any, ward: Room, serving: Any, judged: Any, setup: Any
) -> None:
    ward.review.users.add("abe", "admin", PASSWORD, setup)
    with serving(ward) as address:
        window = chromium.new_context(base_url=address)
        page, complaints = window.new_page(), []
        page.on("pageerror", lambda error: complaints.append(str(error)))

        def come_in(name: str) -> Any:
            page.goto("/login")
            page.fill("#name", name)
            page.fill("#password", PASSWORD)
            page.keyboard.press("Enter")
            page.wait_for_selector(".who")
            page.goto("/promotions")
            return page.locator(f"[data-decides='{judged.challenger}'] [name=why]")

        why = come_in("ada")
        why.fill("flags fewer healthy scans")
        window.set_offline(True)
        page.click("text=Promote as ada")
        page.wait_for_selector("[data-problem]:not([hidden])")
        window.set_offline(False)
        page.reload()
        assert why.input_value() == "flags fewer healthy scans"
        page.click("form[action='/logout'] button")
        assert come_in("abe").input_value() == ""
        window.close()
    assert complaints == []

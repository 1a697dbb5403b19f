"""Drafts of decisions: all that a reader typed is kept until it is signed, across refusals, log-ins and restarts."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest

Open = Callable[..., Any]
REGION = json.dumps({"stack": 0, "index": 0, "layout": "", "points": [[3, 4], [10, 4], [10, 12.5]]})
TYPED = {"outcome": "dismissed", "text": "a <b>cyst</b>", "comment": "two\nlines", "region": REGION}


def form_of(page: str) -> str:
    """Return the decision's form, as text."""
    return unescape(page.split('id="decide"')[1].split("</form>")[0])


def assert_filled(page: str) -> None:
    """Check that a page's form holds all that was typed."""
    form = form_of(page)
    assert all(value in form for value in ("a <b>cyst</b>", "\ntwo\nlines</textarea>", REGION))
    assert 'value="dismissed" required data-key="d" checked' in form


def test_a_draft_comes_back_on_the_page_and_on_the_list(browser: Open, listed: list[int], room: Any) -> None:
    one = browser("ann")
    assert one.post(f"/scan/{listed[0]}/draft", {**TYPED, "csrf": one.csrf()}).status_code == 204
    assert_filled(one.get(f"/scan/{listed[0]}").text)
    again = browser("ann")
    assert_filled(again.get(f"/scan/{listed[0]}").text)
    assert f'href="/scan/{listed[0]}">' in again.get("/").text.split("Begun and not signed")[1].split("</p>")[0]
    assert room.review.worklist.read_row(listed[0]).decision_id == 0


def test_a_draft_is_its_readers_own(browser: Open, listed: list[int]) -> None:
    ann, ben = browser("ann"), browser("ben")
    ann.post(f"/scan/{listed[0]}/draft", {**TYPED, "csrf": ann.csrf()})
    page = ben.get(f"/scan/{listed[0]}").text
    assert "cyst" not in page
    assert "Begun and not signed" not in ben.get("/").text


def test_a_signature_ends_the_draft_and_a_late_one_is_ignored(browser: Open, listed: list[int], room: Any) -> None:
    one, token = browser("ann"), "a-token-of-this-form"
    csrf = one.csrf()
    one.post(f"/scan/{listed[0]}/draft", {**TYPED, "csrf": csrf})
    one.decide(listed[0], "confirmed", token=token)
    one.post(f"/scan/{listed[0]}/draft", {**TYPED, "csrf": csrf, "token": token})
    assert "cyst" not in one.get(f"/scan/{listed[0]}").text
    assert "Begun and not signed" not in one.get("/").text


def test_an_emptied_draft_is_gone(browser: Open, listed: list[int]) -> None:
    one = browser("ann")
    csrf = one.csrf()
    for fields in (TYPED, dict.fromkeys(TYPED, "")):
        one.post(f"/scan/{listed[0]}/draft", {**fields, "csrf": csrf})
    assert "Begun and not signed" not in one.get("/").text


@pytest.mark.parametrize("wrong", [{"seen": "7"}, {"code": "no such code"}, {"comment": "x" * 50_000}])
def test_a_refused_form_comes_back_with_all_that_was_typed(browser: Open, listed: list[int], wrong: Any) -> None:
    one = browser("ann")
    answer = one.decide(listed[0], **{**TYPED, **wrong})
    assert "NOT SIGNED" in answer.text
    form = form_of(answer.text)
    assert "a <b>cyst</b>" in form
    assert wrong.get("comment", "two\nlines") in form
    assert "a <b>cyst</b>" in form_of(one.get(f"/scan/{listed[0]}").text), "it is kept as a draft, too"


def test_a_form_that_another_readers_lease_refuses_shows_what_was_typed(
    browser: Open, listed: list[int], room: Any, hidden: Any
) -> None:
    ann, ben = browser("ann"), browser("ben")
    page = ben.get(f"/scan/{listed[0]}").text.split('id="decide"')[1]
    fields = {name: hidden(page, name) for name in ("csrf", "seen", "token")}
    ben.post(f"/scan/{listed[0]}/release", {"csrf": fields["csrf"]})
    ann.get(f"/scan/{listed[0]}")
    answer = ben.post(f"/scan/{listed[0]}/decision", {**TYPED, **fields}, **{"hx-request": "true"}).text
    assert "NOT SIGNED" in answer
    assert 'id="decide"' not in answer
    assert "a <b>cyst</b>" in unescape(answer)


def test_a_draft_that_no_database_can_store_is_refused_in_words(browser: Open, listed: list[int]) -> None:
    one = browser("ann")
    answer = one.post(f"/scan/{listed[0]}/draft", {"comment": "a \0 b", "csrf": one.csrf()}, accept="*/*")
    assert (answer.status_code, "NUL" in answer.json()["detail"]) == (409, True)

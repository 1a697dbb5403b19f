"""Drafts of decisions: all that a reader typed is kept until it is signed, across refusals, log-ins and restarts."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import unescape
from typing import Any

import numpy as np
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
    assert one.post(f"/scan/{listed[0]}/draft", {**TYPED, "csrf": one.csrf()}).status_code == 200
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
    assert '<strong class="not-done">NOT SIGNED</strong>' in answer.text
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


def save(one: Any, number: int, window: str, base: int = 0, **fields: str) -> dict[str, Any]:
    """Save a draft as a window's script does, and return the answer."""
    sent = {**fields, "window": window, "base": str(base), "csrf": one.csrf()}
    return one.post(f"/scan/{number}/draft", sent, accept="*/*").json()


def texts(answer: dict[str, Any]) -> list[str]:
    return [one["comment"] for one in answer["drafts"]]


def test_two_windows_keep_a_text_each(browser: Open, listed: list[int]) -> None:
    one, number = browser("ann"), listed[0]
    first = save(one, number, "w1", comment="left lung")
    save(one, number, "w2", comment="right lung")
    late = save(one, number, "w1", first["version"], comment="left lung, upper lobe")
    assert texts(late) == ["left lung, upper lobe", "right lung"], "nobody overwrote the other"
    page = unescape(one.get(f"/scan/{number}").text)
    assert "left lung, upper lobe</textarea>" in page
    assert "right lung" in page.split('id="other-drafts"')[1].split("</div>")[0]
    begun = one.get("/").text.split("Begun and not signed")[1].split("</p>")[0]
    assert begun.count(f'href="/scan/{number}">') == 1


def test_a_text_that_a_window_was_opened_with_is_a_copy(browser: Open, listed: list[int], hidden: Any) -> None:
    """The first window may be open still: what it holds stays, whatever becomes of the copy, until it is discarded."""
    one, number = browser("ann"), listed[0]
    save(one, number, "w1", comment="LEFT nodule")
    form = one.get(f"/scan/{number}").text.split('id="decide"')[1]
    window, base = hidden(form, "window"), int(hidden(form, "base"))
    assert texts(save(one, number, window, base, comment="LEFT nodule")) == ["LEFT nodule"] * 2
    assert texts(save(one, number, window, base, comment="right clear")) == ["right clear", "LEFT nodule"]
    one.decide(number, "dismissed", comment="right clear", window=window, base=base)
    assert texts(one.client.get(f"/scan/{number}/draft", headers={"accept": "*/*"}).json()) == ["LEFT nodule"]
    assert "LEFT nodule</textarea>" in one.get(f"/scan/{number}").text


def test_an_equal_text_of_another_window_is_offered_once_it_differs(browser: Open, listed: list[int]) -> None:
    one, number = browser("ann"), listed[0]
    for window, words in (("w1", "normal"), ("w2", "normal")):
        save(one, number, window, comment=words)
    assert 'id="other-drafts" role="status" hidden' in one.get(f"/scan/{number}").text
    assert texts(save(one, number, "w2", comment="normal except apex")) == ["normal except apex", "normal"]


def test_a_signature_ends_every_draft_of_its_very_words(browser: Open, listed: list[int]) -> None:
    one, number = browser("ann"), listed[0]
    for window in ("w1", "w2"):
        save(one, number, window, outcome="unsure", comment="normal")
    one.decide(number, "unsure", comment="normal", window="w2")
    assert one.client.get(f"/scan/{number}/draft", headers={"accept": "*/*"}).json() == {"drafts": []}


@pytest.mark.parametrize(("former", "left"), [("w1 w2", ["another's"]), ("", ["sent", "another's"])])
def test_a_signature_ends_the_drafts_of_the_windows_former_names(
    browser: Open, listed: list[int], former: str, left: list[str]
) -> None:
    """It was sent under them without an answer; what was typed in it before is not another text."""
    one, number = browser("ann"), listed[0]
    save(one, number, "w9", comment="another's")
    save(one, number, "w2", comment="sent")
    one.decide(number, "unsure", comment="sent and signed", window="w3", former=former)
    assert texts(one.client.get(f"/scan/{number}/draft", headers={"accept": "*/*"}).json()) == left


OTHER_REGION = json.dumps({"stack": 0, "index": 0, "layout": "", "points": [[5, 4], [12, 4], [12, 12.5]]})


OTHER_IMAGE = json.dumps({**json.loads(REGION), "index": 1})
UNREADABLE = json.dumps({**json.loads(REGION), "layout": "images were added"})


@pytest.mark.parametrize(
    ("signed", "drawn", "left"),
    [
        (REGION, OTHER_REGION, 1),
        (REGION, "", 1),
        (REGION, REGION, 0),
        (REGION, OTHER_IMAGE, 1),
        (REGION, UNREADABLE, 1),
        ("", UNREADABLE, 1),
    ],
)
def test_a_region_that_was_drawn_again_is_a_draft(
    browser: Open, enter: Open, signed: str, drawn: str, left: int
) -> None:
    one, number = browser("ann"), enter("two images", [np.ones((2, 64, 64), np.uint16)], modality="MR")
    one.decide(number, "confirmed", comment="", region=signed)
    held = save(one, number, "w9", outcome="confirmed", region=drawn)["drafts"]
    assert [draft["region"] for draft in held] == [drawn] * left


def test_a_form_that_is_sent_again_with_another_region_is_not_a_double_click(
    browser: Open, enter: Open, room: Any
) -> None:
    one, number = browser("ann"), enter("two images", [np.ones((2, 64, 64), np.uint16)], modality="MR")
    token = "a-token-of-this-form"
    one.decide(number, "confirmed", comment="", region=REGION, token=token)
    for region, again in ((REGION, "1"), ("", None), (OTHER_IMAGE, None), (OTHER_REGION, None)):
        answer = one.decide(number, "confirmed", comment="", region=region, token=token, seen=_last(one, number))
        assert answer.headers.get("x-decided") == again
        assert ("kept as a draft" in answer.text) is (again is None)
    left = one.client.get(f"/scan/{number}/draft", headers={"accept": "*/*"}).json()["drafts"]
    assert [draft["region"] for draft in left] == [OTHER_REGION]
    assert len(room.review.decisions.read_history(number, _ann())) == 1


def test_a_change_that_is_taken_back_leaves_no_draft(browser: Open, listed: list[int]) -> None:
    one, number = browser("ann"), listed[0]
    one.decide(number, "dismissed", comment="X")
    save(one, number, "w9", outcome="dismissed", comment="X and Y")
    assert save(one, number, "w9", outcome="dismissed", comment="X") == {"version": 0, "drafts": []}


def test_a_draft_of_three_bytes_a_character_is_as_long_as_any(browser: Open, listed: list[int]) -> None:
    assert texts(save(browser("ann"), listed[0], "w1", comment="漢" * 200_000)) == ["漢" * 200_000]


def test_signing_in_one_window_keeps_what_another_has_typed(browser: Open, listed: list[int], room: Any) -> None:
    one, number = browser("ann"), listed[0]
    version = save(one, number, "w2", comment="signed words")["version"]
    save(one, number, "w1", comment="newer words")
    one.decide(number, "confirmed", comment="signed words", window="w2", base=version)
    assert room.review.worklist.read_row(number).state == "confirmed"
    assert texts(one.client.get(f"/scan/{number}/draft", headers={"accept": "*/*"}).json()) == ["newer words"]
    assert "Begun and not signed" in one.get("/").text
    assert "newer words" in one.get(f"/scan/{number}").text


def test_a_draft_that_says_what_was_signed_is_not_one(browser: Open, listed: list[int]) -> None:
    """Its save was on its way when the form was signed; after a withdrawal the same words are a draft again."""
    one, number = browser("ann"), listed[0]
    one.decide(number, "dismissed", comment="nothing")
    words = {"outcome": "dismissed", "comment": "nothing"}
    assert save(one, number, "w9", **words) == {"version": 0, "drafts": []}
    csrf = one.csrf()
    one.post(f"/scan/{number}/undo", {"csrf": csrf, "seen": _last(one, number), "token": "t" * 12})
    assert texts(save(one, number, "w9", **words)) == ["nothing"]


def _last(one: Any, number: int) -> str:
    page = one.get(f"/scan/{number}").text
    return page.split('name="seen" value="')[1].split('"')[0]


def test_a_draft_is_discarded_by_its_version(browser: Open, listed: list[int]) -> None:
    one, number = browser("ann"), listed[0]
    version = save(one, number, "w1", comment="old")["version"]
    newer = save(one, number, "w1", version, comment="newer")["version"]
    gone = {"csrf": one.csrf(), "version": str(version)}
    assert one.post(f"/scan/{number}/draft/discard", gone, accept="*/*").status_code == 409
    assert browser("ben").post(f"/scan/{number}/draft/discard", {"csrf": "x"}, accept="*/*").status_code == 403
    done = one.post(f"/scan/{number}/draft/discard", {**gone, "version": str(newer)}, accept="*/*")
    assert done.json() == {"drafts": []}


def test_a_form_that_is_sent_again_with_other_words_is_not_a_double_click(
    browser: Open, listed: list[int], room: Any
) -> None:
    """A page that the browser brought back after signing has a token that was used."""
    one, number = browser("ann"), listed[0]
    one.decide(number, "dismissed", comment="first", token="a-token-of-this-form")
    seen = _last(one, number)
    again = one.decide(number, "dismissed", comment="first and second", token="a-token-of-this-form", seen=seen)
    assert "NOT SIGNED" in again.text
    assert "with other words" in again.text
    assert "first and second" in form_of(again.text)
    assert "first and second" in form_of(one.get(f"/scan/{number}").text)
    same = one.decide(number, "dismissed", comment="first", token="a-token-of-this-form", seen=seen)
    assert same.headers["x-decided"] == "1"


@pytest.mark.parametrize("name", ["text", "comment"])
def test_no_text_is_cut(browser: Open, listed: list[int], room: Any, name: str) -> None:
    """The limit counts characters, not bytes or line ends; a longer text is kept, and refused with count and limit."""
    one, longest = browser("ann"), room.review.policy.comment_characters
    page = one.get(f"/scan/{listed[0]}").text
    assert "maxlength" not in form_of(page)
    long = "ж" * (longest - 2) + "\r\nд"
    too_long = long + "ы" * 5
    answer = one.decide(listed[0], "unsure", **{name: too_long}).text
    for words in ("NOT SIGNED", str(longest + 5), f"at most {longest}", "kept as a draft"):
        assert words in answer
    assert "Nothing was saved" not in answer
    stored = one.client.get(f"/scan/{listed[0]}/draft", headers={"accept": "*/*"}).json()["drafts"][0]
    assert stored[name] == too_long.replace("\r\n", "\n")
    one.decide(listed[0], "unsure", **{name: long})
    (entry,) = room.review.decisions.read_history(listed[0], _ann())
    assert getattr(entry, name) == long.replace("\r\n", "\n")


def _ann() -> Any:
    from pipeline.review.permissions import Actor

    return Actor("ann", "reader")


def test_words_that_no_draft_holds_are_said_to_be_on_the_page_only(browser: Open, listed: list[int]) -> None:
    one = browser("ann")
    answer = one.decide(listed[0], "unsure", comment="x" * 200_001).text
    assert "on this page only" in answer
    assert "kept as a draft" not in answer
    assert "x" * 200_001 in answer


def test_a_draft_that_no_database_can_store_is_refused_in_words(browser: Open, listed: list[int]) -> None:
    one = browser("ann")
    answer = one.post(f"/scan/{listed[0]}/draft", {"comment": "a \0 b", "csrf": one.csrf()}, accept="*/*")
    assert (answer.status_code, "NUL" in answer.json()["detail"]) == (409, True)


def test_a_save_that_a_newer_one_overtook_changes_nothing(browser: Open, listed: list[int]) -> None:
    one, number = browser("ann"), listed[0]
    first = save(one, number, "w1", comment="n")["version"]
    last = save(one, number, "w1", comment="nodule, upper")  # as the page is left: nothing may stop it
    late = save(one, number, "w1", comment="nodule", after=str(first))
    assert (late["overtaken"], late["version"]) == (True, last["version"]) and texts(late) == ["nodule, upper"]
    again = save(one, number, "w1", comment="nodule", after=str(late["version"]))
    assert texts(again) == ["nodule"] and "overtaken" not in again
    other = save(one, number, "w2", comment="of another window", after="0")
    assert texts(other) == ["of another window", "nodule"]

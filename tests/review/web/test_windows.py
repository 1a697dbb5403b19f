"""Texts typed in a real Chromium, in two windows, across outages and while a signature is under way."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.review.permissions import Actor
from pipeline.review.web.app_state import Room

SIZE = {"width": 1440, "height": 900}
READY_MS = 120_000
pytestmark = pytest.mark.slow


@pytest.fixture
def ann(chromium: Any, site: str) -> Iterator[Any]:
    """A browser in which ann is logged in: each call of `new_page` opens a window of hers."""
    context = chromium.new_context(viewport=SIZE, base_url=site)
    page = context.new_page()
    page.goto("/login")
    page.fill("#name", "ann")
    page.fill("#password", "a long enough passphrase")
    page.keyboard.press("Enter")
    page.wait_for_selector(".who")
    yield context
    context.close()


def opened(context: Any, number: int) -> Any:
    """Open a scan in a window of its own, and wait until the scripts are there."""
    page = context.new_page()
    page.goto(f"/scan/{number}")
    page.wait_for_selector("#viewer[data-ready]", timeout=READY_MS)
    return page


def typed(page: Any, words: str) -> Any:
    """Type a comment and wait until the server has it."""
    with page.expect_response(lambda answer: answer.url.endswith("/draft") and answer.request.method == "POST"):
        page.fill("#comment", words)
    return page


def look_at(page: Any, name: str) -> None:
    """Keep a picture of the window, where a folder for them is given."""
    if folder := os.environ.get("NIGHTREAD_TEST_PICTURES"):
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def held(room: Any, number: int) -> list[str]:
    return [one.typed.comment for one in room.review.drafts.list_kept(number, Actor("ann", "reader"))]


def test_two_windows_show_each_others_text(ann: Any, listed: list[int], room: Any) -> None:
    first, second = opened(ann, listed[0]), opened(ann, listed[0])
    typed(first, "left upper lobe")
    typed(second, "right lower lobe")
    second.wait_for_selector("#other-drafts:visible")
    look_at(second, "two-windows")
    assert "left upper lobe" in second.inner_text("#other-drafts")
    assert second.input_value("#comment") == "right lower lobe"
    assert sorted(held(room, listed[0])) == ["left upper lobe", "right lower lobe"]
    with second.expect_response(lambda answer: answer.url.endswith("/draft") and answer.request.method == "POST"):
        second.click("#other-drafts button:has-text('Put this into the form')")
    second.wait_for_function("() => document.querySelector('#comment').value === 'left upper lobe'")
    second.wait_for_selector("#other-drafts:has-text('right lower lobe')")
    assert set(held(room, listed[0])) == {"left upper lobe", "right lower lobe"}
    typed(first, "left upper lobe, 8 mm")
    first.reload()
    assert first.input_value("#comment") == "left upper lobe, 8 mm"
    assert "right lower lobe" in first.inner_text("#other-drafts")
    first.click("#other-drafts blockquote:has-text('right lower lobe') button:has-text('Discard')")
    first.wait_for_function("() => !document.querySelector('#other-drafts').textContent.includes('right lower lobe')")
    assert "right lower lobe" not in held(room, listed[0])


def test_signing_in_one_window_leaves_the_other_its_text(ann: Any, listed: list[int], room: Any) -> None:
    first, second = opened(ann, listed[0]), opened(ann, listed[0])
    typed(second, "signed here")
    typed(first, "newer words")
    second.check("[name=outcome][value=unsure]", force=True)
    second.click("#decide button[type=submit]")
    second.wait_for_url(lambda url: f"/scan/{listed[0]}" not in url)
    assert room.review.worklist.read_row(listed[0]).state == "unsure"
    assert held(room, listed[0]) == ["newer words"]
    first.reload()
    assert first.input_value("#comment") == "newer words"


def holder(room: Any, number: int) -> str:
    claim = room.review.locks.find_holder(number)
    return claim.holder if claim else ""


def test_a_scan_stays_with_its_reader_until_the_last_window_is_left(
    ann: Any, listed: list[int], room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    left, note_left = [], Room.note_left  # a page says that it was left after the next one was opened: also at a reload
    monkeypatch.setattr(Room, "note_left", lambda *page: left.append(note_left(*page)) or left[-1])
    first, number = opened(ann, listed[0]), listed[0]
    first.reload()
    _until(ann, lambda: left == [False])
    second = opened(ann, number)
    second.goto("/models")
    _until(ann, lambda: left == [False, False])
    assert holder(room, number) == "ann", "the first window shows it still"
    room.review.locks.release(number, Actor("ann", "reader"))
    first.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    _until(ann, lambda: holder(room, number) == "ann")
    first.goto("/models")
    _until(ann, lambda: left == [False, False, True] and holder(room, number) == "")


@pytest.mark.parametrize("answers", [True, False])
def test_a_page_whose_text_the_server_lacks_asks_before_it_is_closed(
    ann: Any, listed: list[int], room: Any, answers: bool
) -> None:
    page, asked = opened(ann, listed[0]), []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    if not answers:
        page.route("**/draft", lambda route: route.abort())
    page.click("#comment")
    with page.expect_event("response" if answers else "requestfailed", lambda one: one.url.endswith("/draft")):
        page.keyboard.type("a nodule")
    page.wait_for_timeout(100)
    page.close(run_before_unload=True)
    if answers:
        _until(ann, page.is_closed)
        assert asked == []
        return
    _until(ann, lambda: asked == ["beforeunload"])
    page.unroute("**/draft")
    _until(ann, lambda: held(room, listed[0]) == ["a nodule"])  # it is tried again by itself
    page.close(run_before_unload=True)
    _until(ann, page.is_closed)
    assert asked == ["beforeunload"], "nothing is missing any more"


def test_a_key_that_is_held_down_does_not_sign_over_another_decision(ann: Any, listed: list[int], room: Any) -> None:
    first, second = opened(ann, listed[0]), opened(ann, listed[0])
    for page, outcome in ((first, "unsure"), (second, "dismissed")):
        page.uncheck("#go-on")
        page.click(f"label.{outcome}")
        page.locator("#pane-main").focus()
    first.keyboard.press("Enter")
    first.wait_for_selector(".history")
    second.keyboard.down("Enter")
    second.wait_for_selector("#decision:has-text('NOT SIGNED')")
    for _ in range(3):
        second.keyboard.down("Enter")  # as a key that is held down repeats
        second.wait_for_timeout(200)
    assert room.review.worklist.read_row(listed[0]).state == "unsure"
    second.keyboard.up("Enter")
    second.keyboard.press("Enter")
    _until(ann, lambda: room.review.worklist.read_row(listed[0]).state == "dismissed")


def test_another_user_in_the_same_browser_neither_signs_nor_loses_what_is_typed(
    ann: Any, listed: list[int], room: Any
) -> None:
    page, other = typed(opened(ann, listed[0]), "a nodule"), ann.pages[0]
    _change_user(other, "ben")
    page.click("label.dismissed")
    page.fill("#comment", "a nodule, 8 mm")
    page.locator("#pane-main").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#unsigned:visible")
    page.wait_for_timeout(1500)  # the save that follows is refused as well
    assert page.inner_text("#unsigned-title") == "NOT SIGNED"
    assert "when you log in here under the same name" in page.inner_text("#unsigned-words")
    page.click("[data-reload]")
    page.wait_for_selector("#viewer[data-ready]", timeout=READY_MS)
    assert "nodule" not in page.content()
    _change_user(other, "ann")
    page.reload()
    page.wait_for_function("() => document.querySelector('#comment').value === 'a nodule, 8 mm'", timeout=READY_MS)
    assert room.review.worklist.read_row(listed[0]).decision_id == 0


def _change_user(page: Any, name: str) -> None:
    page.goto("/models")
    page.click("form[action='/logout'] button")
    page.fill("#name", name)
    page.fill("#password", "a long enough passphrase")
    page.keyboard.press("Enter")
    page.wait_for_selector(f".who:has-text('{name}')")


def sign_and_type_on(page: Any) -> None:
    """Send the decision, and type on until its answer comes."""
    signed: list[Any] = []
    page.route("**/decision", lambda route: signed.append((route, route.fetch())))
    page.click("#decide button[type=submit]")
    page.locator("#comment").press_sequentially(" and an effusion")
    while not signed:
        page.wait_for_timeout(20)
    route, answer = signed[0]
    route.fulfill(response=answer)


def test_words_typed_while_the_signature_is_under_way_are_kept(ann: Any, listed: list[int], room: Any) -> None:
    page = opened(ann, listed[0])
    typed(page, "a nodule")
    page.check("[name=outcome][value=unsure]", force=True)
    sign_and_type_on(page)
    page.wait_for_selector(".history .comment", timeout=READY_MS)
    assert page.inner_text(".history .comment") == "a nodule"
    page.wait_for_function("() => document.querySelector('#comment').value === 'a nodule and an effusion'")
    page.wait_for_timeout(1000)
    assert held(room, listed[0]) == ["a nodule and an effusion"]


def test_words_typed_while_a_form_is_refused_are_kept(ann: Any, listed: list[int], room: Any) -> None:
    page = opened(ann, listed[0])
    typed(page, "a nodule")
    page.check("[name=outcome][value=unsure]", force=True)
    page.evaluate("document.querySelector('[name=seen]').value = '77'")
    sign_and_type_on(page)
    page.wait_for_selector("#decision .notice.bad", timeout=READY_MS)
    assert page.input_value("#comment") == "a nodule and an effusion"


def test_a_reload_during_an_outage_shows_the_newest_text(ann: Any, listed: list[int], room: Any) -> None:
    page = opened(ann, listed[0])
    typed(page, "older")
    page.route("**/draft", lambda route: route.abort())
    page.fill("#comment", "older and newer")
    page.wait_for_timeout(900)
    page.unroute("**/draft")
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    page.wait_for_function("() => document.querySelector('#comment').value === 'older and newer'")
    page.wait_for_timeout(500)
    assert held(room, listed[0]) == ["older and newer"]
    assert not page.is_visible("#other-drafts")


def test_a_page_that_was_made_before_the_last_save_shows_the_newest_text(
    ann: Any, listed: list[int], room: Any
) -> None:
    """The server made the page, then got the save, and the browser loaded the page last."""
    page = opened(ann, listed[0])
    typed(page, "older")
    stale = page.context.request.get(f"/scan/{listed[0]}").body()
    typed(page, "older and newer")
    page.wait_for_timeout(200)
    page.route(f"**/scan/{listed[0]}", lambda route: route.fulfill(body=stale, content_type="text/html"))
    page.reload()
    page.wait_for_function("() => document.querySelector('#comment').value === 'older and newer'")
    assert held(room, listed[0]) == ["older and newer"]


def test_a_newer_text_of_another_window_wins_and_the_own_is_offered(ann: Any, listed: list[int], room: Any) -> None:
    first, second = opened(ann, listed[0]), opened(ann, listed[0])
    first.route("**/draft", lambda route: route.abort())
    first.fill("#comment", "typed first, during an outage")
    first.wait_for_timeout(3000)
    typed(second, "typed last")
    first.unroute("**/draft")
    first.on("dialog", lambda dialog: dialog.accept())
    first.reload()
    first.wait_for_selector("#other-drafts:has-text('typed first')")
    assert first.input_value("#comment") == "typed last"
    assert sorted(held(room, listed[0])) == ["typed first, during an outage", "typed last"]


def test_a_text_survives_the_copy_that_another_window_changed(ann: Any, listed: list[int], room: Any) -> None:
    first = typed(opened(ann, listed[0]), "LEFT nodule")
    second = typed(opened(ann, listed[0]), "right clear")
    assert held(room, listed[0]) == ["right clear", "LEFT nodule"]
    first.reload()
    first.wait_for_selector("#other-drafts:has-text('LEFT nodule')")
    assert first.input_value("#comment") == "right clear"
    typed(first, "right clear, left nodule")
    assert held(room, listed[0]) == ["right clear, left nodule", "right clear", "LEFT nodule"]
    second.reload()
    typed(second, "right clear, too")
    assert "LEFT nodule" in held(room, listed[0])


def test_a_window_that_is_loaded_again_goes_on_with_its_draft(ann: Any, listed: list[int], room: Any) -> None:
    page = typed(opened(ann, listed[0]), "a nodule")
    page.reload()
    page.wait_for_selector("#viewer[data-ready]", timeout=READY_MS)
    typed(page, "a nodule, 8 mm")
    assert held(room, listed[0]) == ["a nodule, 8 mm"]


def test_a_text_that_the_server_lost_is_sent_again(ann: Any, listed: list[int], room: Any) -> None:
    from pipeline.review.permissions import Actor

    page, reader = typed(opened(ann, listed[0]), "a nodule"), Actor("ann", "reader")
    room.review.drafts.discard(listed[0], room.review.drafts.list_kept(listed[0], reader)[0].version, reader)
    page.reload()
    page.wait_for_function("() => document.querySelector('#comment').value === 'a nodule'")
    assert held(room, listed[0]) == ["a nodule"]


def test_a_full_storage_leaves_the_saves_to_the_server(ann: Any, listed: list[int], room: Any) -> None:
    page, asked = opened(ann, listed[0]), []
    page.evaluate("void(Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError') })")
    typed(page, "without storage")
    assert held(room, listed[0]) == ["without storage"]
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    page.click("#comment")
    page.keyboard.type(", and more")
    page.close(run_before_unload=True)
    _until(ann, lambda: held(room, listed[0]) == ["without storage, and more"])
    assert asked == ["beforeunload"]


@pytest.mark.parametrize(("letter", "count", "asks"), [("a", 9_000, False), ("漢", 6_000, False), ("漢", 9_000, True)])
def test_a_text_that_is_too_long_to_be_sent_while_leaving_asks_first(
    ann: Any, listed: list[int], room: Any, letter: str, count: int, asks: bool
) -> None:
    page, asked = opened(ann, listed[0]), []
    page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    page.click("#comment")
    page.keyboard.insert_text(letter * count)
    page.close(run_before_unload=True)
    _until(ann, lambda: held(room, listed[0]) == [letter * count])
    assert bool(asked) == asks


def _until(context: Any, true: Callable[[], bool], seconds: float = 120.0) -> None:
    """Wait, and let the browser answer its dialogs meanwhile."""
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        context.pages[0].wait_for_timeout(50)
    assert true()


def test_a_form_that_cannot_be_read_is_said_on_the_page(ann: Any, listed: list[int]) -> None:
    page = opened(ann, listed[0])
    page.route("**/draft", lambda route: route.fulfill(status=400, body="Too many fields.", content_type="text/plain"))
    page.fill("#comment", "a nodule")
    page.wait_for_selector("#unsigned:has-text('Too many fields.')")


def test_a_text_that_is_too_long_is_counted_and_kept(ann: Any, listed: list[int], room: Any) -> None:
    page, longest = opened(ann, listed[0]), room.review.policy.comment_characters
    for name in ("text", "comment"):
        page.locator(f"#{name}").focus()
        page.keyboard.insert_text("é" * (longest + 7))
        assert len(page.input_value(f"#{name}")) == longest + 7
        words = page.inner_text(f"#{name}-length")
        assert f"{longest + 7} of at most {longest}" in words
        assert "Shorten it by 7" in words
    look_at(page, "too-long")
    page.check("[name=outcome][value=unsure]", force=True)
    page.click("#decide button[type=submit]")
    page.wait_for_selector("#decision .notice.bad", timeout=READY_MS)
    assert f"{longest + 7} characters" in page.inner_text("#decision .notice.bad")
    look_at(page, "too-long-refused")
    assert len(page.input_value("#comment")) == longest + 7
    page.reload()
    assert len(page.input_value("#comment")) == longest + 7
    assert len(page.input_value("#text")) == longest + 7


def test_lines_of_a_pasted_text_stay_lines(ann: Any, listed: list[int], room: Any) -> None:
    page = opened(ann, listed[0])
    page.locator("#text").focus()
    page.keyboard.insert_text("one\ntwo")
    assert page.input_value("#text") == "one\ntwo"
    page.check("[name=outcome][value=unsure]", force=True)
    page.locator("#text").focus()
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: f"/scan/{listed[0]}" not in url)
    assert room.review.worklist.read_row(listed[0]).state == "unsure"


def test_logging_out_waits_for_what_is_typed(ann: Any, listed: list[int], room: Any) -> None:
    page = opened(ann, listed[0])
    page.fill("#comment", "typed a moment ago")
    page.click("form[action='/logout'] button")
    page.wait_for_selector("#password")
    assert held(room, listed[0]) == ["typed a moment ago"]


def test_similar_cases_are_loaded_with_the_heatmap(ann: Any, listed: list[int]) -> None:
    page, asked = ann.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"/scan/{listed[0]}")
    page.wait_for_selector("#viewer[data-ready]", timeout=READY_MS)
    page.wait_for_timeout(500)
    assert not [url for url in asked if "/similar" in url]
    page.click("[data-do=heat]")
    page.wait_for_selector(".similar .thumbs img", timeout=READY_MS)


def test_going_back_to_a_signed_form_signs_no_other_words(ann: Any, listed: list[int], room: Any) -> None:
    page = opened(ann, listed[0])
    typed(page, "a nodule")
    page.check("[name=outcome][value=unsure]", force=True)
    page.click("#decide button[type=submit]")
    page.wait_for_url(lambda url: f"/scan/{listed[0]}" not in url)
    page.go_back()
    page.wait_for_selector(".history .comment")
    typed(page, "a nodule and more")
    assert held(room, listed[0]) == ["a nodule and more"]


def test_a_study_of_two_models_says_so(
    ann: Any, listed: list[int], room: Any, night: Any, list_again: Callable[[str], int]
) -> None:
    second = list_again(room.read_finding(listed[0]).study_id)
    page = opened(ann, listed[0])
    page.uncheck("#go-on")
    page.check("[name=outcome][value=unsure]", force=True)
    page.click("#decide button[type=submit]")
    page.wait_for_selector(".history")
    assert "hidden until this study is decided in all its rows" in page.inner_text(".unusual-words")
    page.wait_for_selector("#viewer[data-ready]", timeout=READY_MS)
    look_at(page, "blind-row-decided")
    page.click("#other-rows a")
    page.wait_for_url(f"**/scan/{second}")
    look_at(page, "blind-row-open")
    page.goto("/?state=all")
    look_at(page, "blind-list")

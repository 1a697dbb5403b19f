"""Lines drawn around a region in a real Chromium: what is drawn, and only that, is kept, under the image it lies on."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from pipeline.review.web.app_state import STATIC

SIZE = {"width": 1440, "height": 900}
READY_MS = 120_000
pytestmark = pytest.mark.slow

# Requests that wait, or find nobody, as the keys of the storage say.
SLOWLY = """
const fetched = window.fetch;
window.fetch = async (where, options) => {
  const address = String(where);
  if (address.endsWith("/draft") && window.isDown) throw new TypeError("nobody answers");
  for (const [part, wait] of Object.entries(sessionStorage)) {
    const isSlow = part.startsWith("slow ") && address.includes(part.slice(5));
    if (isSlow) await new Promise((done) => setTimeout(done, wait));
  }
  return fetched(where, options);
};
"""


@pytest.fixture
def page(chromium: Any, site: str) -> Iterator[Any]:
    """A window in which ann is logged in; any error on its console fails the test."""
    context = chromium.new_context(viewport=SIZE, base_url=site)
    opened, complaints = context.new_page(), []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    opened.add_init_script(SLOWLY)
    opened.goto("/login")
    opened.fill("#name", "ann")
    opened.fill("#password", "a long enough passphrase")
    opened.keyboard.press("Enter")
    opened.wait_for_selector(".who")
    yield opened
    context.close()
    assert complaints == []


@pytest.fixture
def scan(enter: Callable[..., int]) -> int:
    """A scan of five images, which opens with the third."""
    ramp = np.add.outer(np.arange(64, dtype=np.uint16), np.arange(64, dtype=np.uint16)) * 30 + 200
    return enter("drawn", [np.stack([ramp] * 5)], modality="MR")


def to_draw(page: Any, number: int = 0, ready: str = "0/2") -> Any:
    """Open a scan, or load the page again, and take the pen."""
    if number:
        page.goto(f"/scan/{number}")
    else:
        page.reload()
    page.wait_for_selector(f"#viewer[data-ready='{ready}']", timeout=READY_MS)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("g")
    return page


def region(page: Any) -> Any:
    return json.loads(page.input_value("[name=region]") or "null")


def press(page: Any, dx: int = 0) -> tuple[float, float]:
    """Set the pen down, at a distance from the middle."""
    box = page.locator("#pane-main").bounding_box()
    x, y = box["x"] + box["width"] / 2 + dx, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    return x, y


def draw(page: Any, dx: int = 0) -> Any:
    """Draw a triangle and return the region."""
    x, y = press(page, dx)
    for right, down in ((90, 0), (90, 90), (10, 10)):
        page.mouse.move(x + right, y + down, steps=4)
    page.mouse.up()
    return region(page)


def drafts(room: Any, number: int) -> list[Any]:
    from pipeline.review.permissions import Actor

    return [
        json.loads(one.typed.region or "null") for one in room.review.drafts.list_kept(number, Actor("ann", "reader"))
    ]


def saved(page: Any) -> Any:
    return page.expect_response(lambda answer: answer.url.endswith("/draft") and answer.request.method == "POST")


def test_a_click_without_a_line_leaves_the_region(page: Any, scan: int, room: Any) -> None:
    to_draw(page, scan)
    with saved(page):
        drawn = draw(page)
    press(page, -100)
    page.mouse.up()
    assert region(page) == drawn
    assert "drawn on image 3" in page.inner_text("#region-words")
    page.wait_for_timeout(900)  # a draft would be saved by now
    assert drafts(room, scan) == [drawn]
    with saved(page):
        again = draw(page, -150)
    assert again["points"][0] != drawn["points"][0], "a line takes the place of the one before it"
    with saved(page):
        page.keyboard.press("Backspace")
    assert (region(page), drafts(room, scan)) == (None, [])


def test_a_line_stays_on_the_image_that_it_is_drawn_on(page: Any, scan: int) -> None:
    page.evaluate("sessionStorage.setItem('slow /pixels/0/3', '1200')")
    to_draw(page, scan)
    page.keyboard.press("ArrowDown")  # it is being loaded while the pen is on the one before
    x, y = press(page)
    page.mouse.move(x + 90, y, steps=4)
    page.wait_for_timeout(1500)
    for key in ("ArrowUp", "Home", "p"):
        page.keyboard.press(key)
    page.mouse.wheel(0, 100)
    page.wait_for_timeout(300)
    assert page.get_attribute("#viewer", "data-ready") == "0/2"
    assert page.inner_text("#slice-words") == "image 3 of 5"
    page.mouse.move(x + 90, y + 90, steps=4)
    page.mouse.up()
    drawn = region(page)
    assert drawn["index"] == 2 and max(row for _, row in drawn["points"]) > 34
    page.keyboard.press("p")  # to stop, where it plays
    page.keyboard.press("Home")
    page.wait_for_selector("#viewer[data-ready='0/0']", timeout=READY_MS)
    assert region(page) == drawn


@pytest.mark.parametrize("before", [True, False])
def test_a_draft_that_arrives_under_the_pen_is_not_drawn_on(page: Any, scan: int, room: Any, before: bool) -> None:
    """Its region stays as it was until the line ends, and none of its points are in the new one."""
    to_draw(page, scan)
    page.evaluate("window.isDown = true")
    if before:
        draw(page, -200)
    page.fill("#comment", "typed while nobody answered")
    page.evaluate("sessionStorage.setItem('slow /draft', '1500')")
    to_draw(page)
    x, y = press(page)
    page.mouse.move(x + 60, y, steps=4)
    page.wait_for_timeout(2500)
    page.wait_for_selector("#unsigned:not([hidden])")  # the draft is back
    page.mouse.move(x + 60, y + 60, steps=4)
    page.evaluate("sessionStorage.removeItem('slow /draft')")
    with saved(page):
        page.mouse.up()
    drawn = region(page)
    assert min(column for column, _ in drawn["points"]) > 31, "left of the middle lies the line before it"
    assert len(drawn["points"]) >= 3
    assert drafts(room, scan) == [drawn]
    assert page.input_value("#comment") == "typed while nobody answered"


def test_no_key_or_button_fails_before_the_first_image(page: Any, scan: int) -> None:
    keys = re.findall(r'^  bind\((\[[^\]]*\]|"[^"]*"), "', (STATIC / "controls.js").read_text(), re.MULTILINE)
    pressed = [key for bound in keys for key in np.atleast_1d(json.loads(bound))]
    assert len(pressed) > 30
    page.evaluate("sessionStorage.setItem('slow /pixels/', '4000')")
    page.goto(f"/scan/{scan}")
    page.wait_for_load_state()
    page.evaluate("document.activeElement.blur()")
    for key in pressed:
        page.keyboard.press(str(key))
    for button in page.locator("[data-do]:not([disabled])").all():
        button.dispatch_event("click")
    press(page)
    page.mouse.up()
    assert page.get_attribute("#viewer", "data-ready") is None, "an image was there too early for this test"
    page.evaluate("sessionStorage.clear()")
    page.wait_for_selector("#viewer[data-ready]", timeout=READY_MS)


def test_a_line_that_is_being_drawn_is_not_signed_around(page: Any, scan: int, room: Any) -> None:
    to_draw(page, scan)
    with saved(page):
        before = draw(page, -150)
    page.keyboard.press("c")
    x, y = press(page)
    for right, down in ((90, 0), (90, 90)):
        page.mouse.move(x + right, y + down, steps=4)
    page.keyboard.press("Enter")
    page.wait_for_selector("#unsigned:not([hidden])")
    assert "NOT SIGNED" in page.inner_text("#unsigned") and "A line is being drawn." in page.inner_text("#unsigned")
    page.mouse.up()
    drawn = region(page)
    assert drawn["points"][0] != before["points"][0]
    with page.expect_response(re.compile("/decision$")):
        page.keyboard.press("Enter")
    page.wait_for_selector("#last-decided:not([hidden])", timeout=READY_MS)
    from pipeline.review.permissions import Actor

    [decision] = room.review.decisions.read_history(scan, Actor("ann", "reader"))
    assert decision.region["points"] == drawn["points"]


def test_a_region_of_other_images_stays_in_its_own_draft(page: Any, scan: int, room: Any) -> None:
    from pipeline.review.drafts import Typed
    from pipeline.review.permissions import Actor

    other = {"stack": 0, "index": 1, "points": [[1, 1], [9, 1], [9, 9]], "layout": "of other images"}
    to_draw(page, scan)
    room.review.drafts.save(scan, Typed(comment="other", region=json.dumps(other)), "", Actor("ann", "reader"), "other")
    with saved(page):
        own = draw(page)
    with saved(page):
        page.click("text=Put this into the form")
    press(page)
    page.mouse.up()
    page.wait_for_timeout(900)  # a draft would be saved by now
    assert page.input_value("#comment") == "other" and region(page) == other
    assert "draw it again" in page.inner_text("#region-words")
    assert {json.dumps(one) for one in drafts(room, scan)} == {json.dumps(other), json.dumps(own)}
    to_draw(page)
    page.wait_for_timeout(900)
    assert region(page) == other and other in drafts(room, scan)
    with saved(page):
        page.click("[data-erase]")
    assert region(page) is None and page.inner_text("#region-words") == "none drawn"


def test_the_words_about_a_region_name_its_series(page: Any, enter: Callable[..., int]) -> None:
    images = np.stack([np.full((64, 64), 900, np.uint16)] * 5)
    to_draw(page, enter("two series", [images, images], modality="MR"))
    draw(page)
    assert page.inner_text("#region-words").startswith("drawn on image 3 of series 1 (MR")
    page.keyboard.press("v")
    page.wait_for_selector("#viewer[data-ready^='1/']", timeout=READY_MS)
    assert page.inner_text("#region-words").startswith("drawn on image 3 of series 1 (MR"), "it is not on display"
    drawn = draw(page)
    assert page.inner_text("#region-words").startswith(f"drawn on image {drawn['index'] + 1} of series 2 (MR")


def test_nothing_moves_under_the_pen(page: Any, enter: Callable[..., int]) -> None:
    """Not by the wheel, a key, another layout, or a second finger, which does not end the line either."""
    place = "(({scale, translation}) => [scale, translation.x, translation.y])(cornerstone.getViewport(main))"
    place = f"(() => {{ const main = document.getElementById('pane-main'); return {place}; }})()"
    image = np.add.outer(np.arange(64, dtype=np.uint16), np.arange(64, dtype=np.uint16)) * 30 + 200
    to_draw(page, enter("one image", [image[None]], modality="DX"), ready="0/0")
    page.keyboard.press("+")
    before = page.evaluate(place)
    x, y = press(page)
    page.mouse.move(x + 90, y, steps=4)
    page.mouse.wheel(0, 100)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    finger = page.context.new_cdp_session(page)
    for kind, points in (
        ("touchStart", [(x - 200, y - 90)]), ("touchMove", [(x - 150, y)]), ("touchEnd", []),
    ):  # fmt: skip
        touched = [{"x": across, "y": down} for across, down in points]
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touched})
    for key in ("+", "-", "-", "0", "2"):
        page.keyboard.press(key)
    page.wait_for_timeout(300)
    assert page.evaluate(place) == before
    page.mouse.move(x + 90, y + 90, steps=4)
    page.mouse.up()
    corners = np.array(region(page)["points"])
    assert corners[:, 0].min() > 30 and len(corners) >= 3, "the finger is left of where the line begins"
    page.wait_for_timeout(300)
    width = page.evaluate("document.querySelector('#pane-main canvas.cornerstone-canvas').width")
    assert abs(width - page.locator("#pane-main").bounding_box()["width"]) <= 2, "the pane is smaller by now"
    page.keyboard.press("1")
    page.keyboard.press("-")
    assert page.evaluate(place) != before


def test_a_line_has_no_more_corners_than_may_be_signed(
    page: Any, scan: int, room: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = room.review.policy.model_copy(update={"region_points": 4})
    monkeypatch.setattr(room.review, "policy", policy)
    monkeypatch.setattr(room.review.decisions, "_policy", policy)
    to_draw(page, scan)
    assert len(draw(page)["points"]) == 4
    page.keyboard.press("c")
    with page.expect_response(re.compile("/decision$")) as answer:
        page.keyboard.press("Enter")
    assert answer.value.headers["x-decided"] == "1"


def test_the_last_line_of_a_page_that_is_left_wins(page: Any, scan: int, room: Any) -> None:
    """The save under way when it is left arrives after the last one, and does not replace it."""
    held: list[Any] = []
    to_draw(page, scan)
    page.route("**/draft", lambda route: held.append(route) if not held else route.continue_())
    draw(page, -150)
    page.wait_for_timeout(900)
    last = draw(page)
    with saved(page):
        page.evaluate("window.dispatchEvent(new Event('pagehide'))")
    assert drafts(room, scan) == [last]
    answer = held[0].fetch()
    assert answer.json()["overtaken"] and drafts(room, scan) == [last]
    held[0].fulfill(response=answer)


@pytest.mark.parametrize("key", ["j", "k", "l", "z"])
def test_no_key_leaves_the_page_during_a_stroke(key: str, page: Any, scan: int, listed: list[int]) -> None:
    page.evaluate(
        "sessionStorage.decided = JSON.stringify("
        "{path: '/', study: 'x', by: document.querySelector('.who').textContent, told: true})"
    )
    to_draw(page, scan)
    x, y = press(page)
    page.mouse.move(x + 90, y, steps=4)
    page.keyboard.press(key)
    page.wait_for_timeout(400)
    assert f"/scan/{scan}" in page.url and "being drawn" in page.inner_text("#unsigned-words")
    page.mouse.move(x + 90, y + 90, steps=4)
    with saved(page):
        page.mouse.up()
    assert len(region(page)["points"]) >= 3
    assert page.locator("#unsigned").is_hidden()


def test_a_signature_waits_for_a_line_that_began_meanwhile(page: Any, scan: int, room: Any) -> None:
    page.evaluate("sessionStorage.setItem('slow /decision', '800')")
    to_draw(page, scan)
    page.keyboard.press("c")
    page.keyboard.press("Enter")
    x, y = press(page)
    page.mouse.move(x + 90, y, steps=4)
    page.wait_for_timeout(1500)
    assert room.review.worklist.read_row(scan).state == "confirmed" and f"/scan/{scan}" in page.url
    page.mouse.move(x + 90, y + 90, steps=4)
    page.evaluate("sessionStorage.removeItem('slow /decision')")
    page.mouse.up()
    page.wait_for_selector("#undo")
    assert f"/scan/{scan}" in page.url
    page.wait_for_timeout(1200)
    assert len(drafts(room, scan)[0]["points"]) >= 3

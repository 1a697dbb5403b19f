"""A reader's morning in a real Chromium without a screen, by keyboard."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.data.catalogue.effective_decision import read_what_readers_said
from pipeline.data.labels.labels import list_labels

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
SIZE = {"width": 1440, "height": 900}
READY_MS = 120_000
Person = Callable[..., Any]


@pytest.fixture
def complaints() -> list[str]:
    """Errors that pages wrote on the browser's console."""
    return []


@pytest.fixture
def person(chromium: Any, site: str, complaints: list[str]) -> Iterator[Person]:
    """Return a function that opens a window of its own, logged in; any error on the page's console fails the test."""
    windows = []

    def open_one(name: str = "", password: str = "a long enough passphrase") -> Any:
        window = chromium.new_context(viewport=SIZE, base_url=site)
        windows.append(window)
        page = window.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.goto("/")
        if name:
            page.fill("#name", name)
            page.fill("#password", password)
            page.keyboard.press("Enter")
            page.wait_for_selector(".who")
            page.wait_for_load_state()  # scripts are there
        return page

    yield open_one
    for window in windows:
        window.close()
    assert complaints == []


def ready(page: Any) -> Any:
    """Wait until the image is drawn, end the first look, and wait for the heatmap."""
    page.wait_for_selector("#viewer[data-ready]", timeout=READY_MS)
    if page.locator("#first-look").count():
        page.click("[data-do=heat]")
    page.wait_for_selector("#viewer[data-heat]", timeout=READY_MS)
    return page


def pixels(page: Any) -> Any:
    """Return the drawn canvas as bytes of a picture: two are equal when the reader sees the same."""
    page.wait_for_timeout(120)
    return page.locator("#pane-main canvas.cornerstone-canvas").evaluate("canvas => canvas.toDataURL()")


def test_a_reader_looks_and_decides_by_keyboard(person: Person, room: Any) -> None:
    page = person("ann")
    rows = page.locator("[data-row]").count()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    assert page.locator("[data-row][aria-selected]").count() == 1
    first = int(page.locator("[data-row][aria-selected]").get_attribute("data-href").split("/")[2].split("?")[0])
    page.keyboard.press("Enter")
    ready(page)

    with_heat = pixels(page)
    page.keyboard.press("h")
    without = pixels(page)
    assert with_heat != without
    page.keyboard.press("h")
    assert pixels(page) == with_heat

    level = page.inner_text("#window-words")
    page.keyboard.press("]")
    page.keyboard.press("ArrowRight")
    assert pixels(page) != with_heat
    assert page.inner_text("#window-words") != level
    page.keyboard.press("0")
    assert pixels(page) == with_heat
    assert page.inner_text("#window-words") == level

    page.keyboard.press("r")
    page.wait_for_selector("#pane-side canvas")
    page.keyboard.press("r")

    page.locator("#pane-main").focus()
    before = len(list(list_labels(room.catalogue)))
    page.keyboard.press("c")
    assert page.locator("[name=outcome]:checked").get_attribute("value") == "confirmed"
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: f"/scan/{first}" not in url)
    ready(page)
    row = room.review.worklist.read_row(first)
    assert (row.state, row.decided_by) == ("confirmed", "ann")
    assert len(list(list_labels(room.catalogue))) > before
    page.keyboard.press("l")
    page.wait_for_selector("#list")
    assert page.locator("[data-row]").count() == rows - 1


@pytest.mark.slow
def test_a_decision_is_taken_back_by_key(person: Person, listed: list[int], room: Any) -> None:
    page = person("ann")
    page.goto(f"/scan/{listed[0]}")
    ready(page)
    page.uncheck("#go-on")
    page.keyboard.press("Escape")
    page.locator("#pane-main").focus()
    page.keyboard.press("d")
    page.keyboard.press("Enter")
    page.wait_for_selector("#undo")
    assert room.review.worklist.read_row(listed[0]).state == "dismissed"
    ready(page)
    page.locator("#pane-main").focus()
    page.keyboard.press("z")
    page.wait_for_selector(".withdrawn")
    assert room.review.worklist.read_row(listed[0]).state in ("new", "in-review")


@pytest.mark.slow
def test_a_slip_is_found_again_from_the_next_scan(person: Person, listed: list[int], room: Any) -> None:
    page = person("ann")
    page.goto(f"/scan/{listed[0]}")
    ready(page)
    page.keyboard.press("d")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: f"/scan/{listed[0]}" not in url)
    ready(page)
    assert room.read_finding(listed[0]).study_id[:12] in page.inner_text("#last-decided")
    page.locator("#pane-main").focus()
    page.keyboard.press("z")
    page.wait_for_url(f"**/scan/{listed[0]}")
    ready(page)
    page.locator("#pane-main").focus()
    page.keyboard.press("z")
    page.wait_for_selector(".withdrawn")
    assert room.review.worklist.read_row(listed[0]).state in ("new", "in-review")
    assert not page.locator("#last-decided").is_visible()


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["CR", "MR"])
def test_original_and_reconstruction_flicker_in_windows_of_their_own(
    person: Person, enter: Callable[..., int], modality: str
) -> None:
    ramp = np.add.outer(np.arange(64, dtype=np.uint16), np.arange(64, dtype=np.uint16)) * 30 + 200
    finding = enter("flicker", [ramp[None]], modality=modality, photometric="MONOCHROME1", windows=((2000.0, 3600.0),))
    page = person("ann")
    page.goto(f"/scan/{finding}")
    ready(page)
    page.keyboard.press("h")
    page.keyboard.press("]")
    original, level = pixels(page), page.inner_text("#window-words")
    page.keyboard.press("f")
    brightness = _brightness(page.evaluate(WHILE_RECONSTRUCTED))
    assert brightness.std() > 1, "a window of the original's would leave a projection's reconstruction black or white"
    page.keyboard.press("f")
    page.wait_for_selector("[data-do=flicker][aria-pressed=false]")
    assert pixels(page) == original
    assert page.inner_text("#window-words") == level


# The picture as it is drawn while the reconstruction is there, before it gives way to the original again.
WHILE_RECONSTRUCTED = """() => new Promise((done) => {
  let frames = 0;
  const look = () => {
    const there = document.getElementById("viewer-status").textContent === "reconstruction";
    frames = there ? frames + 1 : 0;
    if (frames < 3) requestAnimationFrame(look);
    else done(document.querySelector("#pane-main canvas.cornerstone-canvas").toDataURL());
  };
  look();
})"""


def _picture(url: str, mode: str) -> np.ndarray:
    """Return a canvas's data as uint8 [H, W] or [H, W, 3]."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert(mode))


def _brightness(url: str) -> np.ndarray:
    """Return the middle of a picture, where the image is, in grey."""
    grey = _picture(url, "L")
    return grey[:, grey.shape[1] // 2 - 150 : grey.shape[1] // 2 + 150].astype(float)


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["CR", "MR"])
def test_the_slider_leads_from_the_reconstruction_to_the_scan_and_beyond(
    person: Person, enter: Callable[..., int], modality: str
) -> None:
    ramp = np.add.outer(np.arange(64, dtype=np.uint16), np.arange(64, dtype=np.uint16)) * 30 + 200
    finding = enter("amount", [ramp[None]], modality=modality, photometric="MONOCHROME1", windows=((2000.0, 3600.0),))
    page = person("ann")
    page.goto(f"/scan/{finding}")
    ready(page)
    page.keyboard.press("r")
    slider = page.locator("#pane-side [data-amount]")
    seen = {}
    for percent, words in (
        (0, "computed: as if it were normal"),
        (100, "the scan"),
        (200, "computed: 200 % of the difference"),
    ):
        slider.fill(str(percent))
        page.wait_for_function(
            "words => document.querySelector('#pane-side [data-how]').textContent === words", arg=words
        )
        seen[percent] = _picture(_drawn(page, "#pane-side"), "L").astype(float)
    page.keyboard.press("h")
    page.wait_for_selector("[data-do=heat][aria-pressed=false]")
    original = _picture(_drawn(page, "#pane-main"), "L").astype(float)
    assert np.abs(seen[100] - original).mean() < 3, "at 100 % the pane shows the scan"
    assert np.abs(seen[0] - original).mean() > 3 < np.abs(seen[200] - original).mean()


def _drawn(page: Any, pane: str) -> str:
    """Return the canvas of a pane as a data URL, as soon as the pane has a size."""
    canvas = f"document.querySelector('{pane} canvas.cornerstone-canvas')"
    page.wait_for_function(f"() => {canvas}.width && {canvas}.height")
    page.wait_for_timeout(300)
    return page.evaluate(f"{canvas}.toDataURL()")


@pytest.mark.slow
def test_a_region_is_drawn_with_the_mouse_and_signed(person: Person, listed: list[int], room: Any) -> None:
    page = person("ann")
    page.goto(f"/scan/{listed[0]}")
    ready(page)
    page.keyboard.press("g")
    box = page.locator("#pane-main").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 90, y - 90)
    page.mouse.down()
    for dx, dy in ((90, -90), (90, 90), (-90, 90), (-90, -80)):
        page.mouse.move(x + dx, y + dy, steps=6)
    page.mouse.up()
    assert "drawn on image" in page.inner_text("#region-words")
    page.keyboard.press("u")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: f"/scan/{listed[0]}" not in url)
    region = room.review.decisions.read_history(listed[0], _lead(room))[-1].region
    columns, rows = zip(*region["points"], strict=True)
    page.goto(f"/scan/{listed[0]}")
    ready(page)
    page.keyboard.press("h")
    assert _picture(pixels(page), "RGB").reshape(-1, 3).tolist().count([255, 212, 121]) > 100  # its dashed line
    # Half the drawn square's edge is 90 screen pixels; the phantom has 32 pixels and fills the lower of the two edges;
    # the middle of the image is the edge between its pixels 15 and 16.
    half = 90 / (min(box["width"], box["height"]) / 32)
    assert abs(min(columns) - (15.5 - half)) < 1
    assert abs(max(rows) - (15.5 + half)) < 1


def _lead(room: Any) -> Any:
    from pipeline.review.permissions import Actor

    return Actor("lea", "lead")


@pytest.mark.slow
def test_two_browsers_on_one_scan(person: Person, listed: list[int], room: Any) -> None:
    ann, ben = person("ann"), person("ben")
    ann.goto(f"/scan/{listed[0]}")
    ready(ann)
    ben.goto(f"/scan/{listed[0]}")
    ready(ben)
    assert "ann is reading this scan" in ben.inner_text("#decision")
    assert ben.locator("#decide").count() == 0
    ben.keyboard.press("c")
    ben.keyboard.press("Enter")
    assert room.review.worklist.read_row(listed[0]).decision_id == 0
    ann.keyboard.press("l")  # leaving gives it back
    ann.wait_for_selector("#list")
    ann.wait_for_timeout(300)
    ben.reload()
    ready(ben)
    assert ben.locator("#decide").count() == 1


@pytest.mark.slow
def test_the_keys_are_shown_and_go_away(person: Person, listed: list[int]) -> None:
    page = person("ann")
    page.goto(f"/scan/{listed[0]}")
    ready(page)
    page.keyboard.press("?")
    help_ = page.locator("#help")
    assert help_.is_visible()
    for word in ("heatmap on or off", "second opinion", "next window", "next scan"):
        assert word in help_.inner_text()
    page.keyboard.press("c")  # keys do not reach the page beneath
    assert page.locator("[name=outcome]:checked").count() == 0
    page.keyboard.press("Escape")
    assert not help_.is_visible()


OVERLAPS = """() => {
  const pane = document.getElementById("pane-main");
  for (const edge of pane.querySelectorAll(".edge")) edge.textContent = "P";
  const boxes = [...pane.querySelectorAll(".edge, .note > span, .note > canvas, .pane-head > span")]
    .map((part) => [part.id || part.className, part.getBoundingClientRect()])
    .filter(([, box]) => box.width && box.height);
  const meets = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const pairs = boxes.flatMap(([name, box], i) => boxes.slice(i + 1).map(([other, its]) => [name, box, other, its]));
  return pairs.filter(([, box, , its]) => meets(box, its)).map(([name, , other]) => `${name} on ${other}`);
}"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [700, 320])
def test_a_narrow_window_shows_the_image_too(person: Person, listed: list[int], width: int) -> None:
    page = person("ann")
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"/scan/{listed[0]}")
    ready(page)
    assert page.locator("#pane-main").bounding_box()["height"] > 400
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(OVERLAPS) == []


@pytest.mark.slow
def test_typing_is_not_a_command(person: Person, listed: list[int]) -> None:
    page = person("ann")
    page.goto(f"/scan/{listed[0]}")
    ready(page)
    page.fill("#text", "")
    page.locator("#text").press_sequentially("chdu?")
    assert page.input_value("#text") == "chdu?"
    assert page.locator("[name=outcome]:checked").count() == 0


@pytest.mark.slow
def test_the_list_is_filtered_without_a_new_page(person: Person, room: Any, listed: list[int]) -> None:
    page = person("ann")
    page.evaluate("window.sameage = true")
    page.fill("#search", room.read_finding(listed[2]).study_id[:10])
    page.wait_for_selector("[data-row]:only-child")
    assert page.evaluate("window.sameage")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/scan/{listed[2]}*")


@pytest.mark.slow
def test_an_ended_session_leads_to_the_log_in(person: Person, complaints: list[str], room: Any) -> None:
    page = person("ann")
    room.review.sessions.end_all("ann")
    page.fill("#search", "abcd")
    page.wait_for_selector("#password")
    complaints[:] = [said for said in complaints if "401" not in said]  # which a browser reports as an error


def violations(page: Any) -> list[str]:
    """Return what axe-core finds wrong with a page, however small."""
    page.evaluate(AXE.read_text())
    report = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{one['impact']}: {one['id']}: {one['help']}: {[node['target'] for node in one['nodes']][:3]}"
        for one in report["violations"]
    ]


@pytest.mark.slow
def test_no_page_has_an_accessibility_violation(person: Person, listed: list[int], room: Any) -> None:
    assert violations(person()) == []
    sha256 = room.read_finding(listed[0]).model_sha256
    pages = {
        "aud": ("/audit", f"/audit/finding?name={listed[0]}", "/night"),
        "lea": ("/",),
        "ada": ("/users", "/password", "/promotions"),
        "ann": ("/", "/night", "/models", f"/model/{sha256[:16]}", "/promotions", "/?state=dismissed"),
    }
    for name, paths in pages.items():
        page = person(name)
        for path in paths:
            page.goto(path)
            assert violations(page) == [], path
    page.goto(f"/scan/{listed[0]}")
    ready(page)
    assert violations(page) == []
    page.keyboard.press("c")
    page.keyboard.press("?")
    assert violations(page) == []


@pytest.mark.slow
def test_axe_would_find_something(person: Person) -> None:
    page = person()
    page.evaluate("document.querySelector('#main').innerHTML += '<img src=/static/mark.svg>'")
    assert any("image-alt" in line for line in violations(page))


@pytest.mark.slow
def test_scans_are_kept_by_key_and_leads_keep_them_for_others(person: Person, listed: list[int], room: Any) -> None:
    ann, lea = person("ann"), person("lea")
    ann.keyboard.press("j")
    ann.keyboard.press("a")
    ann.wait_for_selector("[data-row]:has-text('assigned to ann')")
    assert ann.locator("[data-row][aria-selected]").get_attribute("data-scan") == f"/scan/{listed[0]}"
    lea.reload()
    lea.select_option("#assignee", "ben")
    for _ in range(2):
        lea.keyboard.press("Escape")
        lea.locator("#main").focus()
        lea.keyboard.press("j")
    lea.keyboard.press("a")
    lea.wait_for_selector("[data-row]:has-text('assigned to ben')")
    assert [room.review.worklist.read_row(number).holder for number in listed[:3]] == ["ann", "ben", ""]
    ann.goto(f"/scan/{listed[1]}")
    ready(ann)
    assert "assigned to ben" in ann.inner_text("#decision")
    ann.keyboard.press("l")
    ann.wait_for_selector("#list")
    ann.wait_for_load_state()
    in_review = "[name=state][value=in-review] + span b"
    assert ann.inner_text(in_review) == "2"
    ann.keyboard.press("j")
    ann.keyboard.press("a")
    ann.wait_for_selector("#list-words:has-text('anybody may read it')")
    assert ann.inner_text(in_review) == "1"
    assert room.review.worklist.read_row(listed[0]).holder == ""


def _type_and_sign(page: Any) -> None:
    page.fill("#comment", "as large as a plum")
    page.keyboard.press("Escape")
    page.locator("#pane-main").focus()
    page.keyboard.press("d")
    page.keyboard.press("Enter")
    page.wait_for_selector("#unsigned:visible")


@pytest.mark.slow
def test_a_server_that_is_down_while_signing_loses_nothing(
    person: Person, room: Any, listed: list[int], serving: Callable[..., Any], site: str, complaints: list[str]
) -> None:
    with serving(room) as address:
        page = person()
        page.goto(f"{address}/login?next=/scan/{listed[0]}")
        page.fill("#name", "ann")
        page.fill("#password", "a long enough passphrase")
        page.keyboard.press("Enter")
        ready(page)
        page.wait_for_selector(".similar .thumbs img", timeout=READY_MS)  # nothing else is asked of the server
        page.uncheck("#go-on")
        with page.expect_response(lambda answer: answer.url.endswith("/draft") and answer.request.method == "POST"):
            page.fill("#comment", "as large")
    _type_and_sign(page)
    assert page.inner_text("#unsigned-title") == "NOT SIGNED"
    assert page.input_value("#comment") == "as large as a plum"
    assert room.review.worklist.read_row(listed[0]).state in ("new", "in-review")
    with serving(room, int(address.rpartition(":")[2])):
        page.click("[data-retry]")
        page.wait_for_selector(".history .comment")
        assert page.inner_text(".history .comment") == "as large as a plum"
        assert page.locator("#draft-note").count() == 0, "what was saved before is what was signed since"
        assert not page.locator("#unsigned").is_visible()
        assert page.evaluate("Object.keys(sessionStorage).filter((key) => key.startsWith('draft'))") == []
        page.goto(f"{address}/models")  # nothing is asked of the server when it stops
    assert all("ERR_CONNECTION_REFUSED" in said for said in complaints), "which a browser reports as an error"
    complaints.clear()
    assert room.review.worklist.read_row(listed[0]).state == "dismissed"


@pytest.mark.slow
def test_a_session_that_ended_elsewhere_loses_nothing(
    person: Person, room: Any, listed: list[int], complaints: list[str]
) -> None:
    page = person("ann")
    page.goto(f"/scan/{listed[0]}")
    ready(page)
    room.review.sessions.end_all("ann")
    _type_and_sign(page)
    assert "session has ended" in page.inner_text("#unsigned-words")
    page.click("[data-reload]")
    page.wait_for_selector("#password")
    page.fill("#name", "ann")
    page.fill("#password", "a long enough passphrase")
    page.keyboard.press("Enter")
    ready(page)
    assert page.inner_text("#unsigned-title") == "NOT SIGNED"
    assert page.input_value("#comment") == "as large as a plum"
    assert page.locator("[name=outcome]:checked").get_attribute("value") == "dismissed"
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: f"/scan/{listed[0]}" not in url)
    assert room.review.worklist.read_row(listed[0]).state == "dismissed"
    complaints[:] = [said for said in complaints if "401" not in said]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["401", "a proxy leads to its log-in", "the reader comes back to the window"])
def test_the_end_of_a_session_is_said_at_the_next_save(
    person: Person, room: Any, listed: list[int], complaints: list[str], how: str
) -> None:
    """Not only at the signature, up to a minute of typing later."""
    page = person("ann")
    page.goto(f"/scan/{listed[0]}")
    ready(page)
    page.wait_for_load_state("networkidle")  # a part of the page that loads late leads to the log-in itself
    if how == "a proxy leads to its log-in":
        page.route("**/draft", lambda route: route.fulfill(status=302, headers={"location": "http://127.0.0.1:9/"}))
    else:
        room.review.sessions.end_all("ann")
    if how == "the reader comes back to the window":
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    else:
        page.fill("#comment", "as large as a plum")
    page.wait_for_selector("#unsigned:not([hidden])", timeout=READY_MS)
    assert page.inner_text("#unsigned-title") == "NOT SIGNED"
    assert "session has ended" in page.inner_text("#unsigned-words")
    assert page.locator("[data-reload]").is_visible()
    if how == "401":
        assert "as large as a plum" in page.evaluate("JSON.stringify(Object.values(sessionStorage))")
    complaints[:] = [said for said in complaints if "401" not in said]


@pytest.mark.slow
def test_the_first_look_is_without_heatmap(person: Person, room: Any, enter: Callable[..., int]) -> None:
    """No heatmap is drawn or asked for before the key; the outcome chosen until then is kept as the first look."""
    ramp = np.add.outer(np.arange(64, dtype=np.uint16), np.arange(64, dtype=np.uint16)) * 30 + 200
    finding = enter("first", [np.stack([ramp] * 5)], worst=4, modality="MR")
    page, asked = person("ann"), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"/scan/{finding}")
    page.wait_for_selector("#viewer[data-ready='0/2']", timeout=READY_MS)  # the middle, not the worst
    page.wait_for_timeout(300)
    assert not [url for url in asked if "/heat/" in url or "/reconstruction/" in url]
    assert not page.locator("#worst").is_visible()
    page.keyboard.press("u")
    page.locator("#pane-main").focus()
    page.keyboard.press("h")
    page.wait_for_selector("#viewer[data-heat='0/4']", timeout=READY_MS)
    assert page.locator("[data-worst]").count() == 5
    page.keyboard.press("c")
    page.keyboard.press("Enter")
    page.wait_for_url(lambda url: f"/scan/{finding}" not in url)
    with room.catalogue.reading() as session:
        (said,) = read_what_readers_said(session, [finding])[finding]
    assert (said.outcome, said.first_look, said.heatmap, said.blind) == ("confirmed", "unsure", True, True)

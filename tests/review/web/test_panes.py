"""Panes beside the scan, measured lengths and values, and the film: what a reader's browser does with them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow
AXE = Path(__file__).parent / "vendor" / "axe.min.js"
NARROW = {"width": 1280, "height": 800}
READY_MS = 120_000
EDGE = 64
RAMP = np.add.outer(np.arange(EDGE, dtype=np.uint16) * 20, np.arange(EDGE, dtype=np.uint16) * 4)
CT = {"modality": "CT", "body_part": "HEAD", "rescale": ((1.0, -1024.0),), "windows": ((40.0, 400.0),)}


def stack(slices: int, lift: int = 0) -> np.ndarray:
    """Images whose values say where they are."""
    return np.stack([RAMP + lift + number for number in range(slices)])


@pytest.fixture
def reader(chromium: Any, site: str) -> Iterator[Any]:
    """A window of 1280 pixels in which ann is logged in; an error on its console fails the test."""
    complaints: list[str] = []
    window = chromium.new_context(viewport=NARROW, base_url=site)
    page = window.new_page()
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.goto("/")
    page.fill("#name", "ann")
    page.fill("#password", "a long enough passphrase")
    page.keyboard.press("Enter")
    page.wait_for_selector(".who")
    yield page
    window.close()
    assert complaints == []


def open_scan(page: Any, finding: int) -> dict[str, Any]:
    """Open a scan, wait for its first image, and return what the page hands to its viewer."""
    page.goto(f"/scan/{finding}")
    page.wait_for_selector("#viewer[data-ready]", timeout=READY_MS)
    return json.loads(page.text_content("#scan-data"))


def place(page: Any) -> list[int]:
    """Return stack and image that the main pane shows."""
    return [int(number) for number in page.get_attribute("#viewer", "data-ready").split("/")]


def violations(page: Any) -> list[str]:
    """Return what axe-core rates serious or critical."""
    page.evaluate(AXE.read_text())
    report = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [one["id"] for one in report["violations"] if one["impact"] in ("serious", "critical")]


def press_until(page: Any, key: str, selector: str, most: int = 20) -> None:
    """Press a key until something is there."""
    for _ in range(most):
        page.keyboard.press(key)
        if page.locator(selector).count():
            return
    pytest.fail(f"{selector} did not come")


def test_series_and_earlier_studies_scroll_with_the_scan(reader: Any, enter: Any, enter_earlier: Any) -> None:
    finding = enter("now", [stack(12), stack(6, 300)], steps_mm=(1.0, 2.0), **CT)
    enter_earlier("now", "old", [stack(9, 500)], 200, step_mm=3.0, **CT)
    data = open_scan(reader, finding)
    stack_now, index = place(reader)
    other = 1 - stack_now
    reader.keyboard.press("2")
    reader.wait_for_selector("#pane-side:visible")
    reader.select_option("#pane-side [data-choose]", f"own/{other}")
    heights = [[one["position"][2] for one in each["slices"]] for each in data["stacks"]]
    reader.locator("#pane-main").focus()
    reader.keyboard.press("Home")
    for _ in range(4):
        reader.keyboard.press("ArrowDown")
    reader.wait_for_selector(f"#viewer[data-ready='{stack_now}/4']")
    nearest = int(np.argmin(np.abs(np.array(heights[other]) - heights[stack_now][4])))
    assert nearest != 4
    reader.wait_for_selector(f"#pane-side[data-ready='own/{other}/{nearest}']")
    assert reader.inner_text("#pane-side [data-how]") == "linked by position"

    reader.select_option("#pane-side [data-choose]", "earlier/0/0")
    reader.wait_for_selector("#pane-side[data-ready^='earlier/0/0/']")
    begun = int(reader.get_attribute("#pane-side", "data-ready").split("/")[3])
    for _ in range(3):
        reader.keyboard.press("ArrowUp")
    moved = (heights[stack_now][4] - heights[stack_now][place(reader)[1]]) / 3
    reader.wait_for_selector(f"#pane-side[data-ready='earlier/0/0/{begun - round(moved)}']")
    assert reader.inner_text("#pane-side [data-how]") == "6 months earlier · linked by distance"

    reader.keyboard.press("y")
    before = reader.get_attribute("#pane-side", "data-ready")
    reader.keyboard.press("End")
    reader.wait_for_timeout(300)
    assert reader.get_attribute("#pane-side", "data-ready") == before
    main = place(reader)
    reader.locator("#pane-side").focus()
    press_until(reader, "ArrowDown", "#pane-side[data-ready='earlier/0/0/8']")
    assert place(reader) == main, "an unlinked pane scrolls by itself"


def test_series_of_different_frames_of_reference_are_not_linked_by_position(reader: Any, enter: Any) -> None:
    """Every series begins at 0 mm, but only the second lies in the frame of reference of the first (PS3.3 C.7.4.1)."""
    stacks = [stack(12), stack(6, 300), stack(6, 600), stack(6, 900)]
    finding = enter(
        "framed", stacks, steps_mm=(1.0, 2.0, 2.0, 2.0), frames_of_reference=("a" * 32, "a" * 32, "b" * 32, ""), **CT
    )
    data = open_scan(reader, finding)
    numbers = {each["slices"][0]["frame"]: place for place, each in enumerate(data["stacks"])}
    assert len(numbers) == 3 and "a" * 32 not in json.dumps(data)
    first = next(place for place, each in enumerate(data["stacks"]) if len(each["slices"]) == 12)
    own = data["stacks"][first]["slices"][0]["frame"]
    reader.keyboard.press("2")
    reader.wait_for_selector("#pane-side:visible")
    reader.select_option("#series", str(first))
    reader.wait_for_selector(f"#viewer[data-ready^='{first}/']")
    for place_, each in enumerate(data["stacks"]):
        if place_ == first:
            continue
        reader.locator("#pane-main").focus()
        reader.keyboard.press("End")
        reader.wait_for_selector(f"#viewer[data-ready='{first}/11']")
        reader.select_option("#pane-side [data-choose]", f"own/{place_}")
        reader.wait_for_selector(f"#pane-side[data-ready^='own/{place_}/']")
        shares = each["slices"][0]["frame"] in (own, None)
        for _ in range(3):
            reader.keyboard.press("ArrowUp")
        reader.wait_for_selector(f"#viewer[data-ready='{first}/8']")
        here = data["stacks"][first]["slices"]
        there = [one["position"][2] for one in each["slices"]]
        begun, moved = there[-1], here[8]["position"][2] - here[11]["position"][2]
        target = here[8]["position"][2] if shares else begun + moved
        nearest = int(np.argmin(np.abs(np.array(there) - target)))
        reader.wait_for_selector(f"#pane-side[data-ready='own/{place_}/{nearest}']")
        how = "linked by position" if shares else "linked by distance: another frame of reference"
        assert reader.inner_text("#pane-side [data-how]") == how


def test_without_positions_panes_are_linked_by_image_number_and_lengths_are_not_guessed(
    reader: Any, enter: Any
) -> None:
    plain = {"positions": (), "orientation": None, "pixel_spacing_mm": None}
    finding = enter("flat", [stack(5), stack(5, 300)], modality="US", **plain)
    open_scan(reader, finding)
    reader.keyboard.press("2")
    reader.wait_for_selector("#pane-side[data-ready]")
    before = int(reader.get_attribute("#pane-side", "data-ready").rpartition("/")[2])
    reader.keyboard.press("ArrowDown")
    reader.wait_for_selector(f"#pane-side[data-ready$='/{before + 1}']")
    assert reader.inner_text("#pane-side [data-how]") == "linked by image number: no positions"
    assert reader.inner_text("#scale-bar") == "no pixel spacing"
    assert "no pixel spacing" in drag_ruler(reader, 80)
    assert "mm" not in reader.inner_text("#ruler-words")


def drag_ruler(page: Any, length: int) -> str:
    """Draw a horizontal ruler of so many screen pixels in the main pane, and return what a screen reader says."""
    page.locator("#pane-main").focus()
    page.click("[data-tool=ruler]")
    box = page.locator("#pane-main").bounding_box()
    x, y = box["x"] + box["width"] / 2 - length / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + length, y, steps=4)
    page.mouse.up()
    assert page.inner_text("#viewer-status") == "", "the length is on the image itself"
    return page.inner_text("#ruler-words")


def test_a_ruler_measures_mm_and_the_cross_reads_hounsfield_units(reader: Any, enter: Any) -> None:
    finding = enter("lengths", [stack(3)], **{**CT, "pixel_spacing_mm": (0.5, 0.25)})
    open_scan(reader, finding)
    words = drag_ruler(reader, 120)
    # 0.5 x 0.25 mm: the image is 32 mm high and 16 mm wide, and its height fills the pane
    height = reader.locator("#pane-main").bounding_box()["height"]
    assert float(words.split()[0]) == pytest.approx(120 * 32 / height, rel=0.02)
    bar = reader.locator("#scale-bar i").bounding_box()["width"]
    assert float(reader.inner_text("#scale-bar").split()[0]) == pytest.approx((bar - 0) * 32 / height, rel=0.05)

    reader.locator("#pane-main").focus()
    reader.keyboard.press("b")
    column, row, value = map(int, re.findall(r"[−-]?\d+", reader.inner_text("#probe-words").replace("−", "-")))
    _, index = place(reader)
    assert reader.inner_text("#probe-words").endswith("HU")
    assert value == int(stack(3)[index][row, column]) - 1024
    reader.keyboard.press("m")
    for _ in range(8):
        reader.keyboard.press("Shift+ArrowRight")
    reader.keyboard.press("m")
    assert reader.inner_text("#ruler-words") == "2.00 mm"
    reader.keyboard.press("Backspace")
    assert reader.inner_text("#ruler-words") == ""
    moved = re.findall(r"\d+", reader.inner_text("#probe-words"))
    assert int(moved[0]) == column + 8


def test_the_film_plays_and_stops(reader: Any, enter: Any) -> None:
    open_scan(reader, enter("film", [stack(6)], **CT))
    reader.keyboard.press("p")
    seen = set()
    for _ in range(READY_MS // 50):
        seen.add(place(reader)[1])
        if len(seen) > 3:
            break
        reader.wait_for_timeout(50)
    assert len(seen) > 3
    reader.keyboard.press("p")
    reader.wait_for_timeout(1000)
    still = place(reader)
    reader.wait_for_timeout(500)
    assert place(reader) == still


CONTROLS = (
    "[data-tool=ruler]",
    "[data-layout-of='1x1']",
    "[data-layout-of='1x2']",
    "[data-layout-of='2x2']",
    "[data-do=play]",
    "#speed",
    "#series",
    "[data-earlier='0']",
    "#pane-side [data-choose]",
    "#pane-side [data-link]",
    "#pane-3",
    "#pane-4 [data-choose]",
)


def test_every_layout_is_accessible_and_fits(reader: Any, enter: Any, enter_earlier: Any) -> None:
    finding = enter("all", [stack(4), stack(4, 200), stack(4, 400)], **CT)
    enter_earlier("all", "old", [stack(4, 600)], 400, **CT)
    open_scan(reader, finding)
    for key, panes in (("1", 1), ("2", 2), ("4", 4)):
        reader.keyboard.press(key)
        reader.wait_for_selector(f"#viewer[data-layout='{ {1: '1x1', 2: '1x2', 4: '2x2'}[panes] }']")
        reader.wait_for_timeout(600)
        assert reader.locator(".pane:visible").count() == panes
        assert violations(reader) == [], panes
        assert reader.locator(".tools").bounding_box()["height"] < 48, "the toolbar has one row"
        assert reader.locator(".strip").bounding_box()["height"] < 48
        assert reader.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    keys = {each.get_attribute("data-ready").rpartition("/")[0] for each in reader.locator(".beside").all()}
    assert len(keys) == 3, "no two panes show the same"
    reached = set()
    reader.locator("body").press("Tab")
    matching = "all => all.filter((one) => document.activeElement.matches(one))"
    for _ in range(70):
        reached |= set(reader.evaluate(matching, list(CONTROLS)))
        reader.keyboard.press("Tab")
    assert reached == set(CONTROLS)


NATURAL_WIDTHS = """all => all.map((one) => {
  const width = one.offsetWidth;
  one.style.maxWidth = "none";
  const natural = one.offsetWidth;
  one.style.maxWidth = "";
  return [one.id, width, natural, Math.round(one.getBoundingClientRect().top)];
})"""


def test_a_narrow_window_cuts_off_neither_filters_nor_the_signature(reader: Any, enter: Any) -> None:
    finding = enter("narrow", [stack(2)], **CT)
    reader.goto("/?state=all")
    selects = reader.eval_on_selector_all("#filters select", NATURAL_WIDTHS)
    assert {"order", "density"} <= {name for name, *_ in selects}
    assert [name for name, width, natural, _ in selects if width < natural] == []
    assert len({top for *_, top in selects}) == 1, "the filters fit in one row"
    open_scan(reader, finding)
    sign = reader.locator("#decide button[type=submit]").bounding_box()
    assert sign["y"] + sign["height"] <= reader.locator(".neighbours").bounding_box()["y"]
    for width in (400, 320):
        reader.set_viewport_size({"width": width, "height": 700})
        for path in ("/?state=all", f"/scan/{finding}", "/night", "/models"):
            reader.goto(path)
            assert reader.evaluate("document.documentElement.scrollWidth") <= width, (width, path)


def test_an_axial_series_is_reformatted_and_shows_where_the_scan_cuts_it(reader: Any, enter: Any) -> None:
    finding = enter("volume", [stack(12)], **CT)
    open_scan(reader, finding)
    reader.keyboard.press("2")
    reader.wait_for_selector("#pane-side:visible")
    values = reader.eval_on_selector_all("#pane-side [data-choose] option", "all => all.map((one) => one.value)")
    assert {"coronal/0", "sagittal/0"} <= set(values)
    for name in ("coronal", "sagittal"):
        reader.select_option("#pane-side [data-choose]", f"{name}/0")
        reader.wait_for_selector(f"#pane-side[data-ready='{name}/0/{EDGE // 2}']", timeout=READY_MS)
        assert reader.inner_text("#pane-side [data-how]") == "not scrolled: another orientation"
        reader.locator("#pane-side").focus()
        reader.keyboard.press("b")
        words = reader.inner_text("#pane-side [data-probe]")
        column, row, value = map(int, re.findall(r"-?\d+", words.replace("−", "-")))
        images, at = stack(12)[::-1], EDGE // 2  # the head is at the top
        assert value == int(images[row][at, column] if name == "coronal" else images[row][column, at]) - 1024
        assert reader.locator("#pane-side .edge.top").inner_text() == "H"

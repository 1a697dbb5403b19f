"""Pages on paper, in a real Chromium: dark text on white, nothing wider than the sheet, nothing to press."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.slow
SHEET = 186 * 96 // 25  # CSS pixels between margins of 12 mm on A4

# Text that a printer would draw in a pale colour, text outside the sheet, and controls. The image stays white on black.
FAULTS = """(sheet) => {
  const pale = (colour) => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map((one) => (one / 255) ** 2.2);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18; // 4.5 : 1 on white
  };
  const faults = [];
  for (const one of document.querySelectorAll("body *")) {
    const own = [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    const box = one.getBoundingClientRect();
    const seen = box.width && one.checkVisibility({ visibilityProperty: true });
    if (!seen || one.closest(".pane, .only-read, script")) continue;
    const said = `${one.tagName} ${one.className} ${one.textContent.trim().slice(0, 30)}`;
    if (own && pale(getComputedStyle(one).color)) faults.push(`pale: ${said}`);
    if (box.right > sheet + 1) faults.push(`cut off: ${said}`);
    if (["BUTTON", "INPUT", "SELECT", "TEXTAREA"].includes(one.tagName)) faults.push(`control: ${said}`);
  }
  return faults.slice(0, 5);
}"""


def test_every_page_can_be_printed(chromium: Any, site: str, listed: list[int], room: Any) -> None:
    model = room.read_finding(listed[0]).model_sha256[:16]
    pages = {
        "ann": ("/", "/night", "/models", "/promotions", f"/model/{model}", f"/scan/{listed[0]}"),
        "aud": ("/audit", f"/audit/finding?name={listed[0]}"),
        "ada": ("/users",),
    }
    faults = {}
    for name, paths in pages.items():
        window = chromium.new_context(viewport={"width": SHEET, "height": 1000}, base_url=site)
        page = window.new_page()
        _log_in(page, name)
        for path in paths:
            page.goto(path)
            page.wait_for_load_state("networkidle")
            page.emulate_media(media="print")
            faults[path] = page.evaluate(FAULTS, SHEET)
            if path.startswith("/scan/"):
                assert "not for diagnosis" in page.evaluate("getComputedStyle(main, '::after').content")
            page.emulate_media(media="screen")
        window.close()
    assert {path: said for path, said in faults.items() if said} == {}


def _log_in(page: Any, name: str) -> None:
    page.goto("/login")
    page.fill("#name", name)
    page.fill("#password", "a long enough passphrase")
    page.keyboard.press("Enter")
    page.wait_for_selector(".who")


def test_a_single_chart_is_as_large_as_one_of_several(chromium: Any, site: str, listed: list[int]) -> None:
    """One route has one chart of drift: its letters are not twice those of the charts above it."""
    page = chromium.new_context(viewport={"width": 1280, "height": 800}, base_url=site).new_page()
    _log_in(page, "aud")
    page.goto("/night")
    widths = page.evaluate("[...document.querySelectorAll('.charts figure')].map((one) => one.offsetWidth)")
    assert len(widths) >= 3 and max(widths) - min(widths) <= 1
    page.evaluate(
        "for (const one of document.querySelectorAll('.charts')) while (one.children[1]) one.children[1].remove()"
    )
    alone = page.evaluate("[...document.querySelectorAll('.charts figure')].map((one) => one.offsetWidth)")
    assert max(alone) <= min(widths) + 1
    page.context.close()

"""Scans that are not the usual stack of slices: inverted, projected, multi-frame, once in colour, of several sizes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from pipeline.config import Settings
from pipeline.data.catalogue.removed_pixels import mark_removed
from pipeline.data.catalogue.schema import Series, now
from pipeline.review.web.app_state import Room
from pipeline.review.web.config import WebConfig

Open = Callable[..., Any]
Enter = Callable[..., int]
RAMP = np.add.outer(np.arange(48, dtype=np.uint16) * 40, np.arange(40, dtype=np.uint16) * 20)


def about(one: Any, finding: int, what: str) -> dict[str, Any]:
    """Return the description that the server sends with an image."""
    answer = one.client.get(f"/scan/{finding}/{what}", headers={"accept": "*/*"})
    assert answer.status_code == 200, answer.text
    return json.loads(answer.headers["x-image"])


@pytest.mark.parametrize(
    ("modality", "attributes", "invert", "linked"),
    [("MR", {"photometric": "MONOCHROME1"}, True, True), ("MR", {"presentation_lut_shape": "INVERSE"}, True, True),
     ("CR", {"photometric": "MONOCHROME1"}, True, False), ("MR", {}, False, True)],
)  # fmt: skip
def test_dark_and_bright_are_those_of_the_file(
    browser: Open, enter: Enter, modality: str, attributes: dict[str, Any], invert: bool, linked: bool
) -> None:
    one = browser("ann")
    finding = enter("odd", [RAMP[None]], modality=modality, windows=((900.0, 1800.0),), **attributes)
    assert about(one, finding, "pixels/0/0")["invert"] is invert
    one.end_first_look(finding)
    made = about(one, finding, "reconstruction/0/0")
    # A projection's physical values are what a reader sees, inversion included; any other's are as they are stored.
    assert (made["linked"], made["invert"]) == (linked, invert and linked)
    assert (made["rows"], made["columns"]) == RAMP.shape


def test_frames_of_reference_are_numbered_and_not_named(browser: Open, enter: Enter, pseudonym: Open) -> None:
    names = (pseudonym("one"), pseudonym("other"), "", pseudonym("one"))
    finding = enter("framed", [RAMP[None]] * 4, frames_of_reference=names, modality="CT")
    page = browser("ann").get(f"/scan/{finding}").text
    data = json.loads(re.search(r'id="scan-data"[^>]*>(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    numbers = [each["slices"][0]["frame"] for each in data["stacks"]]
    assert sorted(numbers, key=str) == [0, 0, 1, None] or sorted(numbers, key=str) == [0, 1, 1, None]
    assert not any(name in page for name in filter(None, names))


def test_series_of_several_sizes_and_frames_with_their_own_lines(browser: Open, enter: Enter) -> None:
    one = browser("ann")
    finding = enter("sizes", [RAMP[None], np.stack([RAMP[:30, :20]] * 2)], modality="CT", rescale=((2.0, -100.0),))
    one.end_first_look(finding)
    answers = {place: about(one, finding, f"heat/{place}") for place in ("0/0", "1/0", "1/1")}
    assert {place: (a["rows"], a["columns"]) for place, a in answers.items()} == {
        "0/0": (48, 40),
        "1/0": (30, 20),
        "1/1": (30, 20),
    }
    enhanced = enter(
        "frames", [np.stack([RAMP, RAMP])], worst=1, modality="MR", frames=2, rescale=((1.0, 0.0), (3.0, 5.0))
    )
    lines = [about(one, enhanced, f"pixels/0/{frame}") for frame in (0, 1)]
    assert [(line["slope"], line["intercept"]) for line in lines] == [(1.0, 0.0), (3.0, 5.0)]
    one.end_first_look(enhanced)
    assert scan_data(one.get(f"/scan/{enhanced}").text)["start"] == [0, 1]


def test_a_scan_that_came_in_colour_says_that_it_is_shown_in_grey(browser: Open, enter: Enter) -> None:
    one = browser("ann")
    grey = enter("grey", [RAMP[None].astype(np.uint8)], modality="US")
    colour = enter("colour", [RAMP[None].astype(np.uint8)], modality="US", original_photometric="YBR_FULL_422")
    assert about(one, grey, "pixels/0/0")["colour"] is False
    assert about(one, colour, "pixels/0/0")["colour"] is True


def test_a_model_whose_run_is_gone_leaves_the_images_and_the_decision(browser: Open, enter: Enter, room: Any) -> None:
    one, finding = browser("ann"), enter("orphan", [RAMP[None]], modality="MR")
    with room.catalogue.session() as session:
        session.merge(room.catalogue.run(room.read_finding(finding).run_id)).folder = "/nowhere/at-all"
    assert one.get(f"/scan/{finding}").status_code == 200
    assert about(one, finding, "pixels/0/0")["rows"] == 48
    one.end_first_look(finding)
    for what in ("heat/0/0", "reconstruction/0/0"):
        answer = one.client.get(f"/scan/{finding}/{what}", headers={"accept": "*/*"})
        assert answer.status_code == 409
        assert answer.json()["detail"]
    assert "Most similar" in one.get(f"/scan/{finding}/similar").text
    for path in ("/models", f"/model/{room.read_finding(finding).model_sha256[:16]}", "/night", "/"):
        assert one.get(path).status_code == 200, path
    assert one.decide(finding, "unsure").headers["x-decided"] == "1"


@pytest.mark.parametrize("name", ["ann", "aud"])
def test_an_empty_workspace_has_pages_too(
    any_settings: Settings, visit: Callable[..., Any], setup: Any, name: str
) -> None:
    with Room.open(any_settings, WebConfig()) as room:
        role = {"ann": "reader", "aud": "auditor"}[name]
        room.review.users.add(name, role, "a long enough passphrase", setup)
        one = visit(room)
        assert one.log_in(name).status_code == 303
        for path in ("/night", "/models", *(("/", "/?state=all") if name == "ann" else ("/audit", "/audit.jsonl"))):
            assert one.get(path).status_code == 200, path
        assert one.get("/scan/1").status_code in (403, 409)


def test_a_scan_that_grew_is_not_shown_or_marked_by_numbers_that_moved(
    browser: Open, enter: Enter, room: Any, monkeypatch: pytest.MonkeyPatch, setup: Any
) -> None:
    images = np.stack([RAMP, RAMP + 7, RAMP + 9])
    finding = enter("grown", [images[1:]], modality="MR")
    one = browser("ann")
    one.end_first_look(finding)
    data = scan_data(one.get(f"/scan/{finding}").text)
    assert about(one, finding, f"pixels/0/0?layout={data['layout']}")["rows"] == 48
    enter("grown", [images[1:], images[:1]], modality="MR")  # its series came late
    monkeypatch.setattr("pipeline.review.stacks.KEPT_S", 0.0)
    room.stacks.__init__(room.catalogue)
    for path in ("pixels", "heat", "reconstruction"):
        answer = one.client.get(f"/scan/{finding}/{path}/0/0?layout={data['layout']}", headers={"accept": "*/*"})
        assert answer.status_code == 409
        assert "Load it again" in answer.json()["detail"]
    region = {"stack": 0, "index": 0, "layout": data["layout"], "points": [[3, 4], [10, 4], [10, 12]]}
    answer = one.decide(finding, "confirmed", region=json.dumps(region))
    assert "x-decided" not in answer.headers
    assert "Load it again" in answer.text
    now = scan_data(one.get(f"/scan/{finding}").text)
    assert now["layout"] != data["layout"]
    answer = one.decide(finding, "confirmed", region=json.dumps({**region, "layout": now["layout"]}))
    assert answer.headers["x-decided"] == "1"
    regions = scan_data(one.get(f"/scan/{finding}").text)["regions"]
    assert regions == [{"stack": 0, "index": 0, "points": [[3, 4], [10, 4], [10, 12]]}]


def scan_data(page: str) -> dict[str, Any]:
    """Return the data that a page hands to its viewer."""
    return json.loads(page.split('id="scan-data">')[1].split("</script>")[0])


def test_a_scan_whose_pixels_were_removed_says_so(browser: Open, room: Room) -> None:
    finding = room.catalogue.list_findings()[0]
    with room.catalogue.session() as session:
        series = list(session.scalars(select(Series.series_id).where(Series.study_id == finding.study_id)))
        mark_removed(session, series, "20260301T120000")
    page = browser("ann").get(f"/scan/{finding.id}")
    assert page.status_code == 200
    assert f"removed by retention on {now():%Y-%m-%d}" in page.text
    assert browser("ben").get(f"/scan/{finding.id}/pixels/0/0").status_code == 404

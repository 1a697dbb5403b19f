"""Clinical context: the patient's earlier studies, study dates by role, and the link to the site's own viewer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pipeline.review.viewer_link import ViewerLink

Open = Callable[..., Any]
RAMP = np.add.outer(np.arange(48, dtype=np.uint16) * 40, np.arange(40, dtype=np.uint16) * 20)
IMAGES = np.stack([RAMP, RAMP + 7, RAMP + 9])
PLAIN = {"accept": "*/*"}


def page_data(page: str) -> dict[str, Any]:
    """Return the data that a page hands to its viewer."""
    return json.loads(page.split('id="scan-data">')[1].split("</script>")[0])


@pytest.fixture
def identifying(room: Any) -> Callable[..., None]:
    """Return a function that sets the policy on real identifiers and the site's viewer."""

    def put(**values: Any) -> None:
        policy = room.review.policy.model_copy(update=values)
        room.review.policy = policy
        room.review.viewer = ViewerLink(room.settings.model_copy(update={"review": policy}), room.review.audit)

    return put


def test_earlier_studies_are_named_by_interval_and_later_ones_left_out(
    browser: Open, enter: Open, enter_earlier: Open
) -> None:
    finding = enter("now", [IMAGES], modality="MR")
    for other, days in (("old", 800), ("recent", 20), ("same", 0), ("later", -5), ("undated", None)):
        enter_earlier("now", other, [IMAGES[:1]], days, modality="MR")
    reader, lead = (page_data(browser(name).get(f"/scan/{finding}").text) for name in ("ann", "lea"))
    words = ["same day", "20 days earlier", "2 years earlier", "another study, date unknown"]
    assert [one["words"] for one in reader["earlier"]] == words
    assert {one["date"] for one in reader["earlier"]} == {""}, "a reader may not see dates"
    assert [one["date"] for one in lead["earlier"]] == ["02 Mar 2026", "10 Feb 2026", "23 Dec 2023", ""]


def test_an_earlier_study_has_stacks_and_pixels_and_is_recorded_before(
    browser: Open, enter: Open, enter_earlier: Open, room: Any, pseudonym: Open
) -> None:
    finding = enter("now", [IMAGES], modality="MR")
    study = enter_earlier("now", "old", [IMAGES + 1000, IMAGES[:1]], 100, modality="MR")
    one = browser("ann")
    answer = one.client.get(f"/scan/{finding}/earlier/0", headers=PLAIN).json()
    assert [len(stack["slices"]) for stack in answer["stacks"]] == [3, 1] or [
        len(stack["slices"]) for stack in answer["stacks"]
    ] == [1, 3]
    assert answer["stacks"][0]["slices"][0]["position"] == [0.0, 0.0, 0.0]
    assert study not in json.dumps(answer) and study[:12] not in json.dumps(answer)
    number = next(n for n, stack in enumerate(answer["stacks"]) if len(stack["slices"]) == 3)
    got = one.client.get(f"{answer['base']}/pixels/{number}/2?layout={answer['layout']}", headers=PLAIN)
    pixels = np.frombuffer(got.content, json.loads(got.headers["x-image"])["dtype"]).reshape(RAMP.shape)
    assert (pixels == IMAGES[2] + 1000).all()
    entries = [entry for entry in room.review.audit.list_entries() if entry.action == "earlier-study"]
    assert [(entry.subject, entry.detail) for entry in entries] == [
        (f"finding:{finding}", {"number": 0, "days_before": 100})
    ]


@pytest.mark.parametrize(
    ("path", "status"),
    [("earlier/1", 404), ("earlier/0/pixels/0/9", 404), ("earlier/0/pixels/7/0", 404), ("earlier/-1", 422),
     ("earlier/0/pixels/0/0?layout=another", 409)],
)  # fmt: skip
def test_what_an_earlier_study_has_not(browser: Open, enter: Open, enter_earlier: Open, path: str, status: int) -> None:
    finding = enter("now", [IMAGES], modality="MR")
    enter_earlier("now", "old", [IMAGES], 100, modality="MR")
    assert browser("ann").client.get(f"/scan/{finding}/{path}", headers=PLAIN).status_code == status


def test_nobody_else_may_open_an_earlier_study(browser: Open, enter: Open, enter_earlier: Open) -> None:
    finding = enter("now", [IMAGES], modality="MR")
    enter_earlier("now", "old", [IMAGES], 100, modality="MR")
    for name in ("aud", "ada"):
        for path in ("earlier/0", "earlier/0/pixels/0/0", "viewer"):
            assert browser(name).client.get(f"/scan/{finding}/{path}", headers=PLAIN).status_code == 403
    assert browser().client.get(f"/scan/{finding}/earlier/0", headers=PLAIN).status_code == 401


def test_another_patients_studies_are_not_offered(browser: Open, enter: Open, enter_earlier: Open) -> None:
    finding, other = enter("now", [IMAGES], modality="MR"), enter("other", [IMAGES], modality="MR")
    enter_earlier("now", "old", [IMAGES], 100, modality="MR")
    assert len(page_data(browser("ann").get(f"/scan/{finding}").text)["earlier"]) == 1
    assert page_data(browser("ann").get(f"/scan/{other}").text)["earlier"] == []


def test_the_list_gives_dates_to_those_who_may_see_them(
    browser: Open, enter: Open, enter_earlier: Open, identifying: Open
) -> None:
    enter("now", [IMAGES], modality="MR")
    enter_earlier("now", "old", [IMAGES], 100, modality="MR")
    for name, title in (("ann", "Study made"), ("lea", "Study date")):
        page = browser(name).get("/").text
        assert f'<th scope="col">{title}</th>' in page
        assert ("02 Mar 2026" in page) is (name == "lea")
    identifying(readers_identify=True)
    assert "02 Mar 2026" in browser("ann").get("/").text


URL = "https://viewer.example/viewer?StudyInstanceUIDs={study_uid}&id={patient_id}"


def test_the_sites_viewer_opens_for_those_who_may_see_identifiers_and_never_blind(
    browser: Open, enter: Open, enter_earlier: Open, identifying: Open, room: Any, uid: Open
) -> None:
    finding = enter("now", [IMAGES], modality="MR")
    enter_earlier("now", "old", [IMAGES], 100, modality="MR")
    lea, ann = browser("lea"), browser("ann")
    assert lea.get(f"/scan/{finding}/viewer").status_code == 403, "off by default"
    identifying(viewer_url=URL)
    blinded = not room.review.worklist.read_row(finding).revealed
    assert blinded
    assert lea.get(f"/scan/{finding}/viewer").status_code == 403, "the PACS may show what was pushed"
    assert uid("study", "now") not in lea.get(f"/scan/{finding}").text
    lea.decide(finding, "dismissed")
    answer = lea.get(f"/scan/{finding}/viewer")
    address = f"https://viewer.example/viewer?StudyInstanceUIDs={uid('study', 'now')}&id=ID%20of%20now"
    assert (answer.status_code, answer.headers["location"]) == (303, address)
    assert ann.get(f"/scan/{finding}/viewer").status_code == 403
    identifying(viewer_url=URL, readers_identify=True)
    assert ann.get(f"/scan/{finding}/viewer").status_code == 303
    entries = [entry for entry in room.review.audit.list_entries() if entry.action == "site-viewer"]
    said = [(entry.user, bool(entry.detail.get("refused"))) for entry in reversed(entries)]
    assert said == [("lea", True), ("lea", False), ("ann", True), ("ann", False)]


def test_a_site_may_offer_its_viewer_before_the_decision(
    browser: Open, enter: Open, enter_earlier: Open, identifying: Open
) -> None:
    finding = enter("now", [IMAGES], modality="MR")
    enter_earlier("now", "old", [IMAGES], 100, modality="MR")
    identifying(viewer_url=URL, viewer_blind=True)
    assert browser("lea").get(f"/scan/{finding}/viewer").status_code == 303


@pytest.mark.parametrize("flagged", [True, False])
def test_what_lies_beside_a_scan_does_not_tell_whether_it_was_flagged(
    browser: Open, enter: Open, enter_earlier: Open, room: Any, flagged: bool
) -> None:
    """Its own and its earlier study's flags change nothing of what a blind reader is sent."""
    from pipeline.data.catalogue.schema import FindingRow

    finding = enter("now", [IMAGES], modality="MR")
    enter_earlier("now", "old", [IMAGES], 100, modality="MR")
    with room.catalogue.session() as session:
        row = session.get(FindingRow, finding)
        row.flagged = flagged
    one = browser("ann")
    data = page_data(one.get(f"/scan/{finding}").text)
    assert data["earlier"] == [{"words": "3 months earlier", "date": ""}]
    answer = one.client.get(f"/scan/{finding}/earlier/0", headers=PLAIN).json()
    assert set(answer) == {"base", "layout", "stacks"}
    assert set(answer["stacks"][0]) == {
        "title", "rows", "columns", "spacing", "sliceMm", "unit", "presets", "slices",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("attributes", "spacing", "measured"),
    [
        ({"modality": "CT"}, [0.7, 0.7], "patient"),
        ({"modality": "US", "pixel_spacing_mm": None}, None, "patient"),
        ({"modality": "DX", "pixel_spacing_mm": None, "imager_pixel_spacing_mm": (0.2, 0.2)}, [0.2, 0.2], "detector"),
        ({"modality": "DX", "imager_pixel_spacing_mm": (0.7, 0.7)}, [0.7, 0.7], "detector"),
        ({"modality": "DX", "imager_pixel_spacing_mm": (0.9, 0.9)}, [0.7, 0.7], "patient"),
        ({"modality": "DX"}, [0.7, 0.7], "projection"),
        ({"modality": "CR", "pixel_spacing_mm": None}, None, "projection"),
    ],
)
def test_lengths_are_those_of_the_file_or_none(
    browser: Open, enter: Open, attributes: dict[str, Any], spacing: Any, measured: str
) -> None:
    finding = enter("lengths", [RAMP[None]], **attributes)
    answer = browser("ann").client.get(f"/scan/{finding}/pixels/0/0", headers=PLAIN)
    about = json.loads(answer.headers["x-image"])
    assert (about["spacing"], about["measured"]) == (spacing, measured)


@pytest.mark.parametrize(
    ("attributes", "unit"),
    [
        ({"modality": "CT", "rescale": ((1.0, -1024.0),)}, "HU"),
        ({"modality": "CT", "rescale": ((1.0, -1024.0),), "rescale_type": "HU"}, "HU"),
        ({"modality": "CT"}, ""),
        ({"modality": "CT", "rescale": ((1.0, 0.0),), "rescale_type": "US"}, ""),
        ({"modality": "CT", "rescale": ((0.1, 0.0),), "content": "spectral"}, ""),
        ({"modality": "MR", "rescale": ((2.0, 0.0),)}, ""),
    ],
)
def test_hounsfield_units_are_said_only_where_they_are(
    browser: Open, enter: Open, attributes: dict[str, Any], unit: str
) -> None:
    finding = enter("units", [RAMP[None]], **attributes)
    stack = page_data(browser("ann").get(f"/scan/{finding}").text)["stacks"][0]
    assert (stack["unit"], bool(stack["presets"])) == (unit, unit == "HU")


def test_the_stacks_of_a_split_series_are_named(browser: Open, enter: Open, room: Any) -> None:
    finding = enter("echoes", [IMAGES], modality="MR")
    refs = room.stacks.read(room.read_finding(finding).study_id).stacks[0].refs
    from pipeline.review.scan_data import title

    assert title(refs[0]) == "MR"
    assert title(replace(refs[0], stack="EchoTime 30 ms")) == "MR, EchoTime 30 ms"

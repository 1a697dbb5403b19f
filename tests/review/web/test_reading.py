"""Viewing scans and deciding over HTTP: the answers, the refusals, and the records that remain."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from pipeline.data.catalogue.effective_decision import read_what_readers_said
from pipeline.data.catalogue.review_schema import ReadingEntry
from pipeline.data.catalogue.schema import Instance
from pipeline.data.labels.labels import list_labels
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.review.web.listing import unusual_words

Open = Callable[..., Any]
HTMX = {"hx-request": "true"}


def test_pixels_are_those_of_the_store(browser: Open, listed: list[int], room: Any) -> None:
    one = browser("ann")
    ref = room.stacks.read(room.read_finding(listed[0]).study_id).stacks[0].refs[0]
    answer = one.get(f"/scan/{listed[0]}/pixels/0/0")
    about = json.loads(answer.headers["x-image"])
    sent = np.frombuffer(answer.content, np.dtype(about["dtype"]).newbyteorder("<"))
    stored = room.frames.read_stored(ref)
    np.testing.assert_array_equal(sent.reshape(about["rows"], about["columns"]), stored)
    assert (about["slope"], about["intercept"], about["reduced"], about["exact"]) == (1.0, 0.0, 1, True)


@pytest.mark.parametrize(
    ("path", "status"),
    [("pixels/0/99", 404), ("pixels/9/0", 404), ("pixels/0/-1", 404), ("pixels/0/0?box=1,2,3", 422),
     ("pixels/0/0?box=1,2,3,x", 422), ("heat/0/99", 404), ("pixels/0/0?box=0,0,9999999,9999999", 200)],
)  # fmt: skip
def test_images_that_are_not_there_are_said(browser: Open, listed: list[int], path: str, status: int) -> None:
    one = browser("ann")
    one.end_first_look(listed[0])
    answer = one.client.get(f"/scan/{listed[0]}/{path}", headers={"accept": "*/*"})
    assert answer.status_code == status
    assert status == 200 or answer.json()["detail"]


def test_heatmap_and_reconstruction_arrive(browser: Open, listed: list[int]) -> None:
    one = browser("ann")
    one.end_first_look(listed[0])
    for kind, dtype in (("heat", "uint8"), ("reconstruction", "uint16")):
        answer = one.get(f"/scan/{listed[0]}/{kind}/0/0")
        about = json.loads(answer.headers["x-image"])
        assert about["dtype"] == dtype
        assert len(answer.content) == about["rows"] * about["columns"] * np.dtype(dtype).itemsize


def test_what_the_model_saw_is_sent_only_after_the_first_look(browser: Open, listed: list[int], room: Any) -> None:
    ann, ben = browser("ann"), browser("ben")
    data = json.loads(ann.get(f"/scan/{listed[0]}").text.split('id="scan-data">')[1].split("</script>")[0])
    assert (data["heatmap"], data["worst"]) == (False, [])
    paths = [f"/scan/{listed[0]}/{kind}/0/0" for kind in ("heat", "reconstruction")]
    assert {ann.get(path).status_code for path in paths} == {403}
    assert ann.end_first_look(listed[0], "healed").status_code == 409
    for outcome in ("unsure", "confirmed"):  # the first one is kept
        assert ann.end_first_look(listed[0], outcome).json()["worst"]
    assert {ann.get(path).status_code for path in paths} == {200}
    assert {ben.get(path).status_code for path in paths} == {403}, "each reader has a first look of their own"
    entry = room.review.audit.list_entries(action="heatmap")[0]
    assert (entry.user, entry.detail) == ("ann", {"first_look": "unsure"})


def test_decisions_before_and_with_the_heatmap_are_kept_apart(browser: Open, listed: list[int], room: Any) -> None:
    one = browser("ann")
    one.decide(listed[0], "dismissed")
    one.end_first_look(listed[1], "unsure")
    one.decide(listed[1], "confirmed")
    one.decide(listed[0], "confirmed")  # the same reader, after the result was shown
    with room.catalogue.reading() as session:
        said = {row.finding_id: row for (row,) in read_what_readers_said(session).values()}
    assert [said[n].heatmap for n in listed[:2]] == [True, True]
    assert [said[n].first_look for n in listed[:2]] == ["", "unsure"]
    assert [said[n].blind for n in listed[:2]] == [False, True]
    history = one.get(f"/scan/{listed[0]}").text.split('class="history"')[1]
    assert (history.count("before the heatmap"), history.count("with the heatmap")) == (1, 1)


def test_nothing_tells_a_sampled_scan_from_a_flagged_one(browser: Open, listed: list[int], room: Any) -> None:
    flagged = {number: bool(room.read_finding(number).flagged) for number in listed}
    assert set(flagged.values()) == {True, False}, "the list must hold both kinds"
    one = browser("ann")
    shapes = {}
    for number in listed:
        one.end_first_look(number)
        page = one.get(f"/scan/{number}").text
        assert "hidden until you decide" in page
        assert "more unusual than" not in page
        data = json.loads(page.split('id="scan-data">')[1].split("</script>")[0])
        heat = json.loads(one.get(f"/scan/{number}/heat/0/0").headers["x-image"])
        assert heat["threshold"] is None
        assert heat["alpha"] is None
        assert (heat["common"], heat["slope"]) == (True, 1 / 255)  # one scale for all images of the model
        shapes[number] = (
            sorted(data),
            sorted(heat),
            len(data["worst"]),
            re.sub(r"[0-9a-f]{12,}|\d+", "#", _aside(page)),
        )
        one.post(f"/scan/{number}/release", {"csrf": one.csrf()})
    kinds = {
        kind: {str(shapes[n]) for n, is_flagged in flagged.items() if is_flagged is kind} for kind in (True, False)
    }
    assert kinds[True] & kinds[False]


def _aside(page: str) -> str:
    """The part of a page that speaks of the finding, without its tokens and its neighbours."""
    text = page.split("<aside")[1].split('<nav class="neighbours"')[0]
    return re.sub(r'value="[^"]*"', "", text)


def test_words_name_the_normals_and_count_them_readably() -> None:
    words = unusual_words("more unusual than 99.6 % of 1240 normal scans", "ct-chest")
    assert words == "more unusual than 99.6 % of 1\u202f240 normal ct-chest scans"
    assert unusual_words("more unusual than all 53 normal slices (no guarantee)", "lgg") == (
        "more unusual than all 53 normal lgg slices (no guarantee)"
    )
    assert unusual_words("not calibrated", "ct-chest") == "not calibrated"


def test_once_decided_the_words_and_the_outline_are_shown(browser: Open, listed: list[int]) -> None:
    one = browser("ann")
    answer = one.decide(listed[0], "dismissed")
    assert answer.headers["x-decided"] == "1"
    assert re.search(r"unusual than .* of \d+ normal phantom-mr scans|all \d+ normal phantom-mr scans",
                     one.get(f"/scan/{listed[0]}").text)  # fmt: skip
    assert json.loads(one.get(f"/scan/{listed[0]}/heat/0/0").headers["x-image"])["threshold"] is not None


def test_a_decision_becomes_a_label(browser: Open, listed: list[int], room: Any, setup: Any) -> None:
    one = browser("ann")
    before = len(list(list_labels(room.catalogue)))
    region = {"stack": 0, "index": 0, "points": [[3, 4], [10, 4], [10, 12.25]]}
    one.decide(listed[0], "confirmed", text="a mass", comment="large", region=json.dumps(region))
    row = room.review.worklist.read_row(listed[0])
    assert (row.state, row.decided_by) == ("confirmed", "ann")
    assert len(list(list_labels(room.catalogue))) > before

    latest = room.review.decisions.read_history(listed[0], setup)[-1]
    assert (latest.by, latest.text, latest.comment) == ("ann", "a mass", "large")
    assert latest.region["points"] == [[3, 4], [10, 4], [10, 12.25]]


def test_a_double_click_is_one_decision(browser: Open, listed: list[int], room: Any, hidden: Any, setup: Any) -> None:
    one = browser("ann")
    page = one.get(f"/scan/{listed[0]}").text.split('id="decide"')[1]
    fields = {name: hidden(page, name) for name in ("csrf", "seen", "token")} | {"outcome": "confirmed"}
    answers = [one.post(f"/scan/{listed[0]}/decision", fields, **HTMX) for _ in range(2)]
    assert [answer.headers.get("x-decided") for answer in answers] == ["1", "1"]
    assert _decisions(room, listed[0], setup) == 1


def test_a_stale_form_is_refused_and_said(browser: Open, listed: list[int], room: Any, hidden: Any, setup: Any) -> None:
    one = browser("ann")
    page = one.get(f"/scan/{listed[0]}").text.split('id="decide"')[1]
    old = {name: hidden(page, name) for name in ("csrf", "seen", "token")}
    one.decide(listed[0], "confirmed")
    answer = one.post(
        f"/scan/{listed[0]}/decision", {**old, "token": "another-token-0123", "outcome": "dismissed"}, **HTMX
    )
    assert "x-decided" not in answer.headers
    assert 'role="alert"' in answer.text
    assert room.review.worklist.read_row(listed[0]).state == "confirmed"
    assert _decisions(room, listed[0], setup) == 1


def test_taking_back_keeps_both_and_opens_the_scan(
    browser: Open, listed: list[int], room: Any, hidden: Any, setup: Any
) -> None:
    one = browser("ann")
    one.decide(listed[0], "confirmed")
    page = one.get(f"/scan/{listed[0]}").text.split('id="undo"')[1]
    fields = {name: hidden(page, name) for name in ("csrf", "seen", "token")}
    assert "Withdrawn" in one.post(f"/scan/{listed[0]}/undo", fields, **HTMX).text
    assert _decisions(room, listed[0], setup) == 2
    assert room.review.worklist.read_row(listed[0]).state in ("new", "in-review")


def _decisions(room: Any, number: int, setup: Any) -> int:

    return len(room.review.decisions.read_history(number, setup))


def test_two_readers_do_not_read_one_scan_unaware(browser: Open, listed: list[int], room: Any, hidden: Any) -> None:
    ann, ben = browser("ann"), browser("ben", "203.0.113.8")
    mine = ann.get(f"/scan/{listed[0]}").text
    page = ben.get(f"/scan/{listed[0]}").text
    assert "ann is reading this scan" in page
    assert 'id="decide"' not in page
    form = mine.split('id="decide"')[1]
    fields = {
        "seen": hidden(form, "seen"),
        "token": "bens-own-token-012345",
        "csrf": ben.csrf(),
        "outcome": "dismissed",
    }
    assert "x-decided" not in ben.post(f"/scan/{listed[0]}/decision", fields, **HTMX).headers
    assert ben.post(f"/scan/{listed[0]}/hold", {"csrf": ben.csrf()}).status_code == 409
    assert ann.post(f"/scan/{listed[0]}/hold", {"csrf": ann.csrf()}).status_code == 200
    ann.post(f"/scan/{listed[0]}/release", {"csrf": ann.csrf()})
    assert 'id="decide"' in ben.get(f"/scan/{listed[0]}").text


def test_a_scan_is_free_once_the_last_of_its_readers_pages_is_left(
    browser: Callable[..., Any], room: Any, listed: list[int]
) -> None:
    """A reload tells of the old page after it has opened the new one, and one of two tabs may be closed."""
    ann, number = browser("ann"), listed[0]
    pages = [re.search(r'data-opening="([^"]+)"', ann.get(f"/scan/{number}").text)[1] for _ in range(2)]
    for opening, holder in zip(pages, ("ann", ""), strict=True):
        ann.post(f"/scan/{number}/release", {"csrf": ann.csrf(), "opening": opening})
        claim = room.review.locks.find_holder(number)
        assert (claim.holder if claim else "") == holder
    ann.post(f"/scan/{number}/hold", {"csrf": ann.csrf(), "opening": pages[0]})
    assert room.review.locks.find_holder(number).holder == "ann"
    ann.post(f"/scan/{number}/release", {"csrf": ann.csrf(), "opening": pages[0]})
    assert room.review.locks.find_holder(number) is None


TEXTS = [
    "Läsion, größer",
    "病変あり",
    "병변",
    "Поражение",
    "بقعة داكنة",
    "נגע",
    "κύστη",
    "รอยโรค",
    "é",
    "👁 𝔸",
    "<b>&\"'",
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_in_every_script_comes_back_as_it_was(
    browser: Open, listed: list[int], room: Any, text: str, setup: Any
) -> None:
    from html import unescape

    one = browser("ann")
    assert one.decide(listed[0], "confirmed", text=text, comment=text).headers["x-decided"] == "1"
    latest = room.review.decisions.read_history(listed[0], setup)[-1]
    assert latest.comment == text
    page = one.get(f"/scan/{listed[0]}").text
    assert text in unescape(page)
    assert "<b>" not in page.split('class="history"')[1].split("</ol>")[0].replace("<b></b>", "")


@pytest.mark.parametrize(
    "fields",
    [{"comment": "x" * 50_000}, {"comment": "nul \0 byte"}, {"outcome": "healed"}, {"seen": "x"}, {"seen": "-1"},
     {"seen": "9" * 19}, {"region": "not json"}, {"region": '{"stack":0,"index":99,"points":[[0,0],[1,1],[2,0]]}'},
     {"region": '{"stack":0,"index":0,"points":[[0,0]]}'},
     {"region": '{"stack":0,"index":0,"points":[[NaN,0],[1,1],[9,0]]}'},
     {"code": "no such code"}, {"token": ""}],
)  # fmt: skip
def test_an_invalid_form_is_reported_and_nothing_is_signed(
    browser: Open, listed: list[int], room: Any, fields: dict[str, str], setup: Any
) -> None:
    one = browser("ann")
    answer = one.decide(listed[0], **{"outcome": "confirmed", **fields})
    assert answer.status_code < 500
    assert "x-decided" not in answer.headers
    assert 'role="alert"' in answer.text
    assert _decisions(room, listed[0], setup) == 0


def test_a_scan_whose_pixels_are_gone_is_said(browser: Open, listed: list[int], room: Any, night: Any) -> None:
    finding = room.read_finding(listed[0])
    ref = room.stacks.read(finding.study_id).stacks[0].refs[0]
    next((night.settings.workspace / "pixels").rglob(f"{ref.pixel_key}*")).unlink()
    one = browser("ann")
    assert one.get(f"/scan/{listed[0]}").status_code == 200
    answer = one.client.get(f"/scan/{listed[0]}/pixels/0/0", headers={"accept": "*/*"})
    assert answer.status_code == 409
    assert "Restore the store" in answer.json()["detail"]


def test_every_view_is_written_down(browser: Open, listed: list[int], room: Any) -> None:
    one = browser("ann", "203.0.113.99")
    one.get(f"/scan/{listed[0]}")
    entry = room.review.audit.list_entries(limit=5, action="view")[0]
    assert (entry.user, entry.subject, entry.address) == ("ann", f"finding:{listed[0]}", "203.0.113.99")
    one.get(f"/scan/{listed[0]}")
    assert len(room.review.audit.list_entries(action="view")) == 2


def test_the_normal_cases_beside_a_scan_are_views_too(browser: Open, listed: list[int], room: Any) -> None:
    one = browser("ann")
    one.end_first_look(listed[0])
    for _ in range(2000):
        if "thumbs" in one.get(f"/scan/{listed[0]}/similar").text:
            break
        time.sleep(0.1)
    entry = room.review.audit.list_entries(action="similar")[0]
    with room.catalogue.reading() as session:
        keys = set(session.scalars(select(Instance.pixel_key)))
    prefixes = entry.detail["pixels"].split()
    assert len(prefixes) == entry.detail["shown"] == 4
    assert all(sum(key.startswith(prefix) for key in keys) == 1 for prefix in prefixes)


def test_similar_cases_are_sent_only_after_the_first_look(browser: Open, listed: list[int], room: Any) -> None:
    """They are those of the image with the highest score, and so tell which one that is."""
    one = browser("ann")
    assert "Shown with the heatmap" in one.get(f"/scan/{listed[0]}").text.split('class="similar"')[1]
    part = one.get(f"/scan/{listed[0]}/similar").text
    assert "Shown with the heatmap" in part
    assert "hx-get" not in part
    assert one.get(f"/scan/{listed[0]}/similar/0.png").status_code == 403
    assert not room.review.audit.list_entries(action="similar")
    one.end_first_look(listed[0])
    assert "Shown with the heatmap" not in one.get(f"/scan/{listed[0]}/similar").text


def test_pixels_without_their_page_are_a_view_too(browser: Open, listed: list[int], room: Any) -> None:
    one = browser("ann")
    for _ in range(3):
        one.get(f"/scan/{listed[0]}/pixels/0/0")
    assert [entry.subject for entry in room.review.audit.list_entries(action="pixels")] == [f"finding:{listed[0]}"]


def test_the_audit_log_is_exported_as_json_lines(browser: Open, listed: list[int]) -> None:
    browser("ann").get(f"/scan/{listed[0]}")
    answer = browser("aud").get("/audit.jsonl")
    entries = [json.loads(line) for line in answer.text.splitlines()]
    assert {"view", "login", "export"} <= {entry["action"] for entry in entries}


def test_the_list_is_found_by_pseudonym_and_by_accession_number(browser: Open, listed: list[int], room: Any) -> None:
    study = room.read_finding(listed[1]).study_id
    rows = browser("ann").get(f"/?state=all&search={study[:10]}", **{"hx-target": "list"}).text
    assert rows.count("data-row") == 1
    assert study[:12] in rows
    lead = browser("lea")
    answer = lead.post("/accession", {"csrf": lead.csrf(), "accession": "no such number"})
    assert answer.status_code == 200
    assert "no such number" not in answer.text
    with Crosswalk.open(room.settings) as crosswalk:
        number = crosswalk.find_identity(study).accession_number
    answer = lead.post("/accession", {"csrf": lead.csrf(), "accession": number})
    assert answer.status_code == 200
    assert re.findall(r'data-href="/scan/(\d+)', answer.text) == [str(listed[1])]
    assert number not in answer.text


def test_the_list_goes_on_where_it_ended(browser: Open, room: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline.review.web import listing

    monkeypatch.setattr(listing, "PAGE_SIZE", 2)
    one, seen, path = browser("ann"), [], "/?state=all"
    for _ in range(9):
        page = one.get(path, **{"hx-target": "list"}).text
        seen += re.findall(r'data-href="/scan/(\d+)', page)
        following = re.search(r'href="([^"]*)" rel="next"', page)
        if not following:
            break
        path = following[1].replace("&amp;", "&")
    total = room.review.worklist.count_states(listing.WorklistQuery())["all"]
    assert len(seen) == len(set(seen)) == total > 2


def test_the_list_is_narrowed_by_age_and_by_model(browser: Open, room: Any, listed: list[int]) -> None:
    one, ids = browser("ann"), lambda page: [int(number) for number in re.findall(r'data-href="/scan/(\d+)', page)]
    with room.catalogue.session() as session:
        session.get(ReadingEntry, listed[1]).arrived_at -= timedelta(days=8)
        session.get(ReadingEntry, listed[2]).arrived_at -= timedelta(days=2)
        session.get(ReadingEntry, listed[3]).model_sha256 = "0" * 64
    for age, expected in {
        "day": {listed[0], *listed[3:]},
        "three-days": {listed[0], *listed[2:]},
        "older": {listed[1]},
        "": set(listed),
    }.items():
        page = one.get(f"/?state=all&age={age}").text
        assert set(ids(page)) == expected, age
        assert f'<option value="{age}" selected>' in page
    assert ids(one.get(f"/?state=all&model={'0' * 64}").text) == [listed[3]]
    assert one.get("/?age=yesterday").status_code == 422


def test_a_row_gives_reasons_to_open_it(browser: Open, listed: list[int], enter: Callable[..., int]) -> None:
    images = np.stack([np.full((48, 40), 100, np.uint16)] * 3)
    finding = enter("facts", [images, images + 9], modality="MR", sex="F", age_years=54, description=("T2", "AXIAL"))
    one = browser("ann")
    row = one.get("/").text.split(f'data-scan="/scan/{finding}"')[1].split("</tr>")[0]
    assert all(words in row for words in ("54 years, female", "2 series", "T2 AXIAL", f"/scan/{finding}/thumbnail.png"))
    picture = one.get(f"/scan/{finding}/thumbnail.png")
    assert (picture.status_code, picture.content[:4]) == (200, b"\x89PNG")
    assert "thumbnail.png" not in one.get("/?density=compact").text


def test_the_list_is_ordered_by_arrival_and_paged(
    browser: Open, room: Any, listed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.review.web import listing

    monkeypatch.setattr(listing, "PAGE_SIZE", 2)
    with room.catalogue.session() as session:
        for age, number in enumerate(listed):
            session.get(ReadingEntry, number).arrived_at -= timedelta(hours=age)
    one = browser("ann")
    for order, expected in (("newest", listed), ("oldest", listed[::-1])):
        seen: list[str] = []
        path: str | None = f"/?order={order}"
        while path:
            page = one.get(path, **{"hx-target": "list"}).text
            seen += re.findall(r'data-href="/scan/(\d+)', page)
            following = re.search(r'href="([^"]*)" rel="next"', page)
            path = following[1].replace("&amp;", "&") if following else None
        assert [int(number) for number in seen] == expected
        scan = one.get(f"/scan/{expected[1]}?order={order}").text
        assert f'href="/scan/{expected[0]}?' in scan.split('data-go="previous"')[0].rsplit("<a", 1)[1]

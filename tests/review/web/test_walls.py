"""Headers on every answer, tokens in every form, roles on every page, and no name anywhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Open = Callable[..., Any]
SAME_SITE = {"sec-fetch-site": "same-origin"}


@pytest.mark.parametrize(
    "path", ["/", "/login", "/static/app.css", "/static/nothing.js", "/nowhere", "/health", "/night"]
)
def test_headers_are_on_every_answer(browser: Open, path: str) -> None:
    headers = browser("ann").get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["strict-transport-security"].startswith("max-age=")


def test_scans_are_never_cached_and_scripts_are_revalidated(browser: Open, listed: list[int]) -> None:
    one = browser("ann")
    for path in ("/", f"/scan/{listed[0]}", f"/scan/{listed[0]}/pixels/0/0", f"/scan/{listed[0]}/heat/0/0"):
        assert one.get(path).headers["cache-control"] == "no-store", path
    assert one.get("/static/scan.js").headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize("token", [None, "", "guessed", "ä"])
@pytest.mark.parametrize("what", ["decision", "undo", "hold", "release", "assign", "unassign"])
def test_a_form_without_the_sessions_token_does_nothing(
    browser: Open, listed: list[int], room: Any, what: str, token: str | None
) -> None:
    one = browser("ann")
    fields = {"outcome": "confirmed", "seen": "0", "token": "t" * 20} | ({} if token is None else {"csrf": token})
    assert one.post(f"/scan/{listed[0]}/{what}", fields).status_code == 403
    assert room.review.worklist.read_row(listed[0]).state == "new"


def test_another_sessions_token_does_not_fit(browser: Open, listed: list[int]) -> None:
    ann, ben = browser("ann"), browser("ben")
    fields = {"outcome": "confirmed", "seen": "0", "token": "t" * 20, "csrf": ben.csrf()}
    assert ann.post(f"/scan/{listed[0]}/decision", fields).status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_a_form_from_another_site_is_refused(browser: Open, listed: list[int], site: str) -> None:
    one = browser("ann")
    answer = one.post(f"/scan/{listed[0]}/hold", {"csrf": one.csrf()}, **{"sec-fetch-site": site})
    assert answer.status_code == 403
    assert one.post(f"/scan/{listed[0]}/hold", {"csrf": one.csrf()}, **SAME_SITE).status_code == 200


def test_a_form_that_is_too_large_is_not_read(browser: Open, listed: list[int]) -> None:
    one = browser("ann")
    for path, characters in ((f"/scan/{listed[0]}/heatmap", 300_000), (f"/scan/{listed[0]}/decision", 7_000_000)):
        assert one.post(path, {"csrf": one.csrf(), "comment": "x" * characters}).status_code == 413

    def endless() -> Any:
        yield b"csrf="

    answer = one.client.post(
        "/logout", content=endless(), headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 413  # no length, no reading


ROLES = {
    "reader": {"/": 200, "scan": 200, "/night": 200, "/models": 200, "/audit": 403, "/audit.jsonl": 403},
    "lead": {"/": 200, "scan": 200, "/night": 200, "/models": 200},
    "auditor": {"/": 303, "/audit": 200, "/audit.jsonl": 200, "decision": 403, "scan": 403},
    "admin": {"/": 303, "/audit": 403, "/night": 200, "/models": 200, "scan": 403},
}
NAMES = {"reader": "ann", "lead": "lea", "auditor": "aud", "admin": "ada"}


@pytest.mark.parametrize("role", ROLES)
def test_roles_open_their_pages_and_no_others(browser: Open, listed: list[int], role: str) -> None:
    one = browser(NAMES[role])
    for path, expected in ROLES[role].items():
        if path == "decision":
            answer = one.post(f"/scan/{listed[0]}/decision", {"outcome": "confirmed"})
        else:
            answer = one.get(f"/scan/{listed[0]}" if path == "scan" else path)
        assert answer.status_code == expected, path


@pytest.mark.parametrize("role", ROLES)
def test_the_bar_offers_what_the_role_may_open(browser: Open, role: str) -> None:
    one = browser(NAMES[role])
    page = one.get("/models").text if role != "auditor" else one.get("/audit").text
    for path in ("/night", "/models", "/audit"):
        if f'<a href="{path}"' in page:
            assert one.get(path).status_code == 200, path
        else:
            assert one.get(path).status_code == 403, path


def test_no_name_is_on_any_page(browser: Open, listed: list[int], night: Any) -> None:
    one = browser("lea")
    paths = ["/", "/night", "/models", "/login"]
    paths += [f"/scan/{number}{part}" for number in listed for part in ("", "/pixels/0/0", "/similar")]
    for path in paths:
        answer = one.get(path)
        assert answer.status_code == 200, path
        assert night.planted.encode() not in answer.content, path
        assert night.planted not in str(answer.headers), path


@pytest.mark.parametrize(
    "path", ["/scan/999999", "/scan/abc", "/scan/-1", "/scan/99999999999999999999", "/nowhere", "/model/ffffffffffff"]
)
def test_bad_addresses_are_answered_with_a_page(browser: Open, path: str) -> None:
    answer = browser("ann").get(path)
    assert answer.status_code in (404, 409, 422)
    assert "Traceback" not in answer.text
    assert 'role="alert"' in answer.text


def test_markup_in_a_search_stays_text(browser: Open) -> None:
    answer = browser("ann").get("/?search=<script>alert(1)</script>")
    assert "<script>alert" not in answer.text


@pytest.mark.parametrize("query", ["state=nonsense", "after=x", "after=0", "search=" + "a" * 65, "whose=everybody"])
def test_odd_addresses_of_the_list_are_answered(browser: Open, query: str) -> None:
    assert browser("ann").get(f"/?{query}").status_code in (200, 422)

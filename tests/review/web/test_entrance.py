"""The log-in page: who may enter, how many attempts are allowed, and what a session permits."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.review.web.access import LOGIN_COOKIE, SESSION_COOKIE, own_path
from pipeline.review.web.config import WebConfig

Open = Callable[..., Any]
PAGES = ("/", "/scan/1", "/night", "/models", "/model/0123456789abcdef", "/audit", "/audit.jsonl", "/scan/1/similar")
PAGES += (
    "/users",
    "/password",
    "/scan/1/earlier/0",
    "/scan/1/viewer",
    "/scan/1/draft",
    "/audit/finding",
    "/promotions",
    "/night/report.html",
    "/night/report.pdf",
)
PIXELS = ("/scan/1/pixels/0/0", "/scan/1/heat/0/0", "/scan/1/reconstruction/0/0", "/scan/1/similar/0.png")
PIXELS += ("/scan/1/thumbnail.png", "/scan/1/strip/0/0.svg", "/scan/1/earlier/0/pixels/0/0")
FORMS = (
    "/logout",
    "/accession",
    *(f"/scan/1/{what}" for what in ("decision", "undo", "hold", "release", "draft", "draft/discard", "heatmap")),
)
FORMS += ("/scan/1/assign", "/scan/1/unassign", "/users", "/users/ben/disable", "/password", "/promotions")


@pytest.mark.parametrize("path", PAGES)
def test_a_page_asks_to_log_in_and_comes_back(browser: Open, path: str) -> None:
    answer = browser().get(path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login?next=%2F")


@pytest.mark.parametrize("path", PIXELS)
def test_pixels_are_for_those_who_are_logged_in(browser: Open, path: str) -> None:
    answer = browser().client.get(path, headers={"accept": "application/octet-stream"})
    assert answer.status_code == 401
    assert not answer.content


@pytest.mark.parametrize("path", FORMS)
def test_forms_are_for_those_who_are_logged_in(browser: Open, path: str) -> None:
    assert browser().post(path, {"outcome": "confirmed"}).status_code == 303


def test_a_part_of_a_page_leads_back_to_its_page_after_the_log_in(browser: Open) -> None:
    one, headers = browser(), {"hx-request": "true", "hx-current-url": "https://reading.example/scan/3?state=all"}
    assert one.get("/scan/3", **headers).headers["hx-redirect"] == "/login?next=%2Fscan%2F3%3Fstate%3Dall"
    by_itself = one.get("/scan/3/similar", **headers)
    assert by_itself.status_code == 401 and "hx-redirect" not in by_itself.headers, "somebody may be typing"
    headers["hx-current-url"] = "https://evil.example//evil.example/x"
    assert one.get("/scan/3", **headers).headers["hx-redirect"] == "/login?next=%2F"


def test_every_route_is_among_those_tested(room: Any) -> None:
    from pipeline.review.web.app import create_app

    paths = set(create_app(room).openapi()["paths"])
    stated = {"/login", "/health"}
    for path in (*PAGES, *PIXELS, *FORMS):
        named = path.replace("/scan/1", "/scan/{finding_id}").replace("0123456789abcdef", "{sha256}")
        named = named.replace("/ben/disable", "/{name}/{what}").replace("/earlier/0", "/earlier/{number}")
        named = re.sub(r"/night/report\.\w+", "/night/report.{kind}", named)
        stated.add(named.replace("/0/0", "/{stack}/{index}").replace("/0.png", "/{number}.png"))
    assert paths == stated


def test_logging_in_gives_a_cookie_that_only_this_host_gets(browser: Open) -> None:
    one = browser()
    answer = one.log_in("ann")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/"
    cookie = next(line for line in answer.headers.get_list("set-cookie") if line.startswith(f"{SESSION_COOKIE}="))
    for word in ("Secure", "HttpOnly", "SameSite=strict", "Path=/"):
        assert word in cookie
    assert "Domain" not in cookie
    assert one.get("/").status_code == 200


@pytest.mark.parametrize(("name", "password"), [("ann", "wrong"), ("nobody", "a long enough passphrase"), ("ann", "")])
def test_wrong_words_say_nothing_of_what_was_wrong(browser: Open, name: str, password: str) -> None:
    answer = browser().log_in(name, password or " ")
    assert answer.status_code == 401
    assert f"{SESSION_COOKIE}=" not in answer.headers.get("set-cookie", "")
    alert = answer.text.split('role="alert">')[1].split("<")[0]
    assert alert == browser().log_in("ann", "also wrong").text.split('role="alert">')[1].split("<")[0]


def test_guessing_has_to_wait(browser: Open) -> None:
    one = browser()
    answers = [one.log_in("ann", f"guess {number}").status_code for number in range(12)]
    assert answers[0] == 401
    assert answers[-1] == 429
    late = one.log_in("ann")  # the right one has to wait as well
    assert late.status_code == 429
    assert int(late.headers["retry-after"]) > 0


def test_failures_of_others_at_one_address_lock_nobody_out_of_their_own_browser(browser: Open) -> None:
    """A hospital's gateway gives everybody one address; somebody there guesses at every name."""
    gateway = "198.51.100.1"
    ann = browser("ann", gateway)
    attacker = browser("", gateway)
    answers = [attacker.log_in(name, "guess").status_code for name in ("ann", "ben", "lea") * 12]
    assert answers[-1] == 429
    assert browser("", gateway).log_in("ann").status_code == 429, "a browser without her token"
    assert ann.log_in("ann").status_code == 303
    assert [ann.log_in("ann", "guess").status_code for _ in range(12)][-1] == 429, "her own failures count there too"


def test_a_log_in_form_from_elsewhere_is_refused(browser: Open) -> None:
    one = browser()
    one.get("/login")
    assert one.post("/login", {"name": "ann", "password": "a long enough passphrase", "csrf": "x"}).status_code == 403
    assert browser().post("/login", {"name": "ann", "password": "a", "csrf": ""}).status_code == 403


def test_a_session_gets_a_new_token_and_the_old_one_ends(browser: Open) -> None:
    one = browser("ann")
    first = one.client.cookies[SESSION_COOKIE]
    one.log_in("ann")
    second = one.client.cookies[SESSION_COOKIE]
    assert first != second
    other = browser()
    other.client.cookies.set(SESSION_COOKIE, first)
    assert other.get("/").status_code == 303


def test_a_planted_token_is_not_adopted(browser: Open) -> None:
    one = browser()
    one.client.cookies.set(SESSION_COOKIE, "planted-by-somebody-else", domain="reading.example", path="/")
    one.log_in("ann")
    assert one.client.cookies[SESSION_COOKIE] != "planted-by-somebody-else"


def test_logging_out_ends_the_session_everywhere(browser: Open) -> None:
    one = browser("ann")
    token = one.client.cookies[SESSION_COOKIE]
    assert one.post("/logout", {"csrf": one.csrf()}).status_code == 303
    other = browser()
    other.client.cookies.set(SESSION_COOKIE, token)
    assert other.get("/").status_code == 303


def test_a_disabled_user_is_out_at_once(browser: Open, room: Any, setup: Any) -> None:

    one = browser("ann")
    room.review.users.disable("ann", setup)
    assert one.get("/").status_code == 303


@pytest.mark.parametrize(
    ("asked", "given"),
    [("/scan/3", "/scan/3"), ("/?state=all", "/?state=all"), ("//evil.example", "/"), ("https://evil.example", "/"),
     ("/\\evil.example", "/"), ("javascript:alert(1)", "/"), ("", "/"), ("/a\nb", "/")],
)  # fmt: skip
def test_the_log_in_leads_nowhere_else(asked: str, given: str) -> None:
    assert own_path(asked) == given


def test_the_cookie_of_the_log_in_page_is_not_a_session(browser: Open) -> None:
    one = browser()
    one.get("/login")
    one.client.cookies.set(SESSION_COOKIE, one.client.cookies[LOGIN_COOKIE])
    assert one.get("/").status_code == 303


@pytest.mark.parametrize(
    ("address", "name", "comes_in"),
    [("10.0.0.9", "ann", True), ("10.0.0.8", "ann", False), ("10.0.0.9", "nobody", False), ("10.0.0.9", "", False)],
)
def test_a_header_counts_from_a_listed_proxy_only(
    behind: Any, listed: list[int], room: Any, address: str, name: str, comes_in: bool
) -> None:
    config = WebConfig(user_header="x-user", proxies=("10.0.0.9",))
    one = behind(config, address)
    answer = one.get("/login", **{"x-user": name, "x-forwarded-for": "198.51.100.3"})
    assert (answer.status_code == 303) is comes_in
    assert (SESSION_COOKIE in one.client.cookies) is comes_in
    if comes_in:
        one.get(f"/scan/{listed[0]}", **{"x-forwarded-for": "203.0.113.5, 198.51.100.3"})
        assert room.review.audit.list_entries(limit=1)[0].address == "198.51.100.3"


def test_the_user_is_the_one_that_the_proxy_names_now(behind: Any) -> None:
    one = behind(WebConfig(user_header="x-user", proxies=("10.0.0.9",)), "10.0.0.9")
    assert one.get("/login", **{"x-user": "ann"}).status_code == 303
    assert one.get("/", **{"x-user": "Ann"}).status_code == 200
    for somebody in ("ben", "no body"):
        assert one.get("/", **{"x-user": somebody}).status_code == 303, "ben sits there now, with ann's cookie"
    assert one.get("/", **{"x-user": "ann"}).status_code == 200
    assert one.get("/").status_code == 303
    assert one.get("/", **{"x-user": "ann"}).status_code == 303, "a request without the name ended the session"


def test_a_name_that_comes_twice_is_refused(behind: Any) -> None:
    one = behind(WebConfig(user_header="x-user", proxies=("10.0.0.9",)), "10.0.0.9")
    twice = [("x-user", "ann"), ("x-user", "lea"), ("accept", "text/html")]
    assert one.client.get("/login", headers=twice).status_code == 400
    assert SESSION_COOKIE not in one.client.cookies
    assert one.get("/login", **{"x-user": "ann, lea"}).status_code == 403

"""Admins manage users in the browser, everybody may change their own password, and nobody may do more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Open = Callable[..., Any]
NEW = "another long passphrase"


def test_an_admin_adds_disables_and_enables(browser: Open, room: Any, listed: list[int]) -> None:
    ada = browser("ada")
    csrf = ada.csrf()
    added = ada.post("/users", {"csrf": csrf, "name": "Cleo", "role": "reader", "password": NEW})
    assert (added.status_code, added.headers["location"]) == (303, "/users")
    cleo = browser()
    assert cleo.log_in("cleo", NEW).status_code == 303
    assert ada.post("/users/cleo/disable", {"csrf": csrf}).status_code == 303
    assert cleo.get("/").status_code == 303
    assert ">disabled<" in ada.get("/users").text
    assert ada.post("/users/cleo/enable", {"csrf": csrf}).status_code == 303
    assert cleo.log_in("cleo", NEW).status_code == 303
    entries = [(entry.user, entry.action, entry.subject) for entry in room.review.audit.list_entries(limit=50)]
    for action in ("user-add", "user-disable", "user-enable"):
        assert ("ada", action, "user:cleo") in entries


def test_a_user_without_a_password_comes_by_the_proxy_alone(browser: Open, room: Any) -> None:
    ada = browser("ada")
    ada.post("/users", {"csrf": ada.csrf(), "name": "pia", "role": "lead", "password": ""})
    assert room.review.users.get("pia").role == "lead"
    assert browser().log_in("pia", " ").status_code == 401


@pytest.mark.parametrize(
    ("path", "fields", "words"),
    [("/users", {"name": "ann", "role": "reader", "password": NEW}, "already"),
     ("/users", {"name": "new", "role": "king", "password": NEW}, "no role"),
     ("/users", {"name": "new", "role": "reader", "password": "short"}, "at least"),
     ("/users", {"name": "a b", "role": "reader", "password": NEW}, "user name"),
     ("/users/nobody/disable", {}, "no user"), ("/users/Ada/disable", {}, "Ask another admin"),
     ("/users/ann/password", {"password": "short"}, "at least"), ("/users/ann/crown", {}, "Ask another admin")],
)  # fmt: skip
def test_impossible_changes_are_reported_and_change_nothing(
    browser: Open, room: Any, path: str, fields: dict[str, str], words: str
) -> None:
    ada, before = browser("ada"), room.review.users.list()
    answer = ada.post(path, {"csrf": ada.csrf(), **fields})
    assert answer.status_code == 409
    assert words in answer.text
    assert room.review.users.list() == before
    assert browser("ann").get("/").status_code == 200


@pytest.mark.parametrize("name", ["ann", "lea", "aud"])
def test_nobody_else_keeps_users(browser: Open, room: Any, name: str) -> None:
    one, before = browser(name), room.review.users.list()
    assert one.get("/users").status_code == 403
    for path in ("/users", "/users/ben/disable", "/users/ben/password"):
        fields = {"csrf": one.csrf(), "name": "x", "role": "admin", "password": NEW}
        assert one.post(path, fields).status_code == 403
    assert room.review.users.list() == before


def test_everybody_changes_their_own_password(browser: Open) -> None:
    one, other = browser("ann"), browser("ann")
    csrf = one.csrf()
    wrong = one.post("/password", {"csrf": csrf, "old": "guess", "new": NEW, "again": NEW})
    unequal = one.post("/password", {"csrf": csrf, "old": "a long enough passphrase", "new": NEW, "again": "x"})
    assert (wrong.status_code, unequal.status_code) == (409, 409)
    assert other.get("/").status_code == 200
    done = one.post("/password", {"csrf": csrf, "old": "a long enough passphrase", "new": NEW, "again": NEW})
    assert (done.status_code, done.headers["location"]) == (303, "/login")
    assert one.get("/").status_code == other.get("/").status_code == 303
    assert browser().log_in("ann").status_code == 401
    assert browser().log_in("ann", NEW).status_code == 303

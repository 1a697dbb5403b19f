"""Log-ins: hashed, limited, revealing nothing, and ended when idle, old, disabled or changed."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select, text

from pipeline.config import Settings
from pipeline.data.catalogue import schema
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.review_schema import User as UserRow
from pipeline.review import logins, sessions
from pipeline.review.permissions import PERMISSIONS, ROLES, CommandLine
from pipeline.review.refusals import BadInput, BadText, LoginRefused, NotAllowed, TooManyFailures
from pipeline.review.services import Review

PASSWORD, HOUSE = "correct horse battery", CommandLine()


@pytest.fixture
def ann(review: Review) -> Any:
    return review.users.add("ann", "reader", PASSWORD, HOUSE)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Move the clock of log-ins: `later(minutes=...)`."""
    moved = {"by": timedelta()}
    for module in (logins, sessions):
        monkeypatch.setattr(module, "now", lambda: schema.now() + moved["by"])

    def move(**how: float) -> None:
        moved["by"] += timedelta(**how)

    return move


def test_roles_are_what_they_should_be() -> None:
    """The table as a whole: a reader reads, a lead also searches by number, admins and auditors see no scan."""
    assert ROLES == ("reader", "lead", "admin", "auditor")
    assert PERMISSIONS["lead"] > PERMISSIONS["reader"] > {"view", "decide"}
    assert {role for role in ROLES if "search_accession" in PERMISSIONS[role]} == {"lead"}
    assert {role for role in ROLES if "view" in PERMISSIONS[role]} == {"reader", "lead"}
    assert {role for role in ROLES if "audit" in PERMISSIONS[role]} == {"auditor"}
    assert {role for role in ROLES if "users" in PERMISSIONS[role]} == {"admin"}


def test_the_password_is_an_argon2id_hash_and_nowhere_else(review: Review, ann: Any, catalogue: Catalogue) -> None:
    with catalogue.reading() as session:
        stored = session.scalars(select(UserRow.password_hash)).one()
    assert stored.startswith("$argon2id$v=19$") and PASSWORD not in stored
    assert review.logins.log_in("Ann", PASSWORD, "::1").name == "ann"
    assert not any(PASSWORD in line for line in review.audit.write_lines())


def test_a_password_in_any_script_and_either_composition(review: Review) -> None:
    review.users.add("uwe", "reader", "Schlüssel-пароль-鍵", HOUSE)
    assert review.logins.log_in("uwe", "Schlu\u0308ssel-пароль-鍵", "::1")


def test_old_parameters_are_replaced_at_the_next_log_in(ann: Any, catalogue: Catalogue, any_settings: Settings) -> None:
    stronger = Review(catalogue, any_settings, hasher=PasswordHasher(2, 128, 1))
    stronger.logins.log_in("ann", PASSWORD, "::1")
    with catalogue.reading() as session:
        assert "m=128,t=2,p=1" in session.scalars(select(UserRow.password_hash)).one()
    stronger.logins.log_in("ann", PASSWORD, "::1")


@pytest.mark.parametrize(
    ("name", "password"), [("ann", "wrong password"), ("nobody", PASSWORD), ("ann", ""), ("", ""), ("a\0", "x"),
                           ("\ud800", "\ud800"), ("x" * 100_000, "y" * 100_000)]
)  # fmt: skip
def test_a_failed_log_in_is_refused_in_one_sentence(review: Review, ann: Any, name: str, password: str) -> None:
    with pytest.raises(LoginRefused, match=f"^{logins.WRONG}$"):
        review.logins.log_in(name, password, "::1")


def test_a_wrong_name_takes_as_long_as_a_wrong_password(catalogue: Catalogue, any_settings: Settings) -> None:
    review = Review(catalogue, any_settings, hasher=PasswordHasher(2, 16_384, 1))
    review.users.add("ann", "reader", PASSWORD, HOUSE)
    review.users.add("proxied", "reader", None, HOUSE)
    rounds = [{name: _refusal_s(review, name) for name in ("ann", "nobody", "proxied")} for _ in range(6)]
    times = {name: min(one[name] for one in rounds) for name in rounds[0]}  # in turn, as other load comes and goes
    assert max(times.values()) < 4 * min(times.values()), times  # without a hash: some hundred times
    assert min(times.values()) > 0.01


def _refusal_s(review: Review, name: str) -> float:
    started = time.process_time()
    with pytest.raises(LoginRefused):
        review.logins.log_in(name, "not the password", "::1")
    return time.process_time() - started


def test_after_ten_failures_the_right_password_waits_too(review: Review, ann: Any, later: Any) -> None:
    for _ in range(10):
        with pytest.raises(LoginRefused):
            review.logins.log_in("ann", "wrong", "10.0.0.1")
    with pytest.raises(TooManyFailures) as refused:
        review.logins.log_in("ann", PASSWORD, "10.0.0.1")
    assert 0 < refused.value.wait_s <= 900
    assert review.logins.log_in("ann", PASSWORD, "10.0.0.2")  # another's guesses do not lock her out of her own desk
    later(minutes=16)
    assert review.logins.log_in("ann", PASSWORD, "10.0.0.1")


def test_the_limit_survives_a_restart(review: Review, ann: Any, catalogue: Catalogue, any_settings: Settings) -> None:
    for number in range(30):  # thirty names from one address
        with pytest.raises(LoginRefused):
            review.logins.log_in(f"guess{number}", "wrong", "10.0.0.1")
    with pytest.raises(TooManyFailures):
        Review(catalogue, any_settings).logins.log_in("ann", PASSWORD, "10.0.0.1")


def test_forty_guesses_at_once_are_forty_guesses(review: Review, ann: Any) -> None:
    outcomes: list[type[Exception]] = []

    def guess() -> None:
        try:
            review.logins.log_in("ann", "wrong", "10.0.0.1")
        except (LoginRefused, TooManyFailures) as error:
            outcomes.append(type(error))

    threads = [threading.Thread(target=guess) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(LoginRefused) == 10 and outcomes.count(TooManyFailures) == 30


def test_the_name_that_was_typed_is_not_kept(review: Review, catalogue: Catalogue) -> None:
    with pytest.raises(LoginRefused):
        review.logins.log_in("my secret password", "x", "::1")
    with catalogue.reading() as session:
        rows = str(session.execute(text("SELECT * FROM login_failures")).all())
    assert "secret" not in rows and not any("secret" in line for line in review.audit.write_lines())


def test_a_session_is_found_by_its_token_which_is_not_kept(review: Review, ann: Any, catalogue: Catalogue) -> None:
    token = review.sessions.create(ann, "::1")
    logged_in = review.sessions.find(token)
    assert logged_in.user.name == "ann" and logged_in.user.may("decide") and logged_in.csrf not in token
    assert review.sessions.find(token).csrf == logged_in.csrf
    assert review.sessions.find("other") is review.sessions.find("") is None
    with catalogue.reading() as session:
        assert token not in str(session.execute(text("SELECT * FROM user_sessions")).all())


def test_a_session_ends_when_idle_when_old_and_at_the_next_log_in(review: Review, ann: Any, later: Any) -> None:
    token = review.sessions.create(ann, "::1")
    for _ in range(25):  # asked every 29 minutes it lives on, until twelve hours are over
        later(minutes=29)
        alive = review.sessions.find(token) is not None
    assert not alive
    idle = review.sessions.create(ann, "::1")
    later(minutes=29)
    assert review.sessions.find(idle)
    later(minutes=31)
    assert review.sessions.find(idle) is None
    old = review.sessions.create(ann, "::1")
    new = review.sessions.create(ann, "::1", old_token=old)
    assert review.sessions.find(old) is None and review.sessions.find(new)
    review.sessions.end(new, "::1")
    assert review.sessions.find(new) is None
    assert review.audit.list_entries(1)[0].action == "logout"


@pytest.mark.parametrize("change", ["disable", "password", "all"])
def test_sessions_are_revoked(review: Review, ann: Any, change: str) -> None:
    token = review.sessions.create(ann, "::1")
    if change == "disable":
        review.users.disable("ann", HOUSE)
    elif change == "password":
        review.users.set_password("ann", "another long one", ann.at("::1"))
    else:
        assert review.sessions.end_all("ann") == 1
    assert review.sessions.find(token) is None


def test_a_disabled_user_is_out_and_may_come_back(review: Review, ann: Any) -> None:
    review.users.disable("ann", HOUSE)
    for attempt in (
        lambda: review.logins.log_in("ann", PASSWORD, "::1"),
        lambda: review.logins.log_in_by_proxy("ann", "::1"),
    ):
        with pytest.raises(LoginRefused):
            attempt()
    assert not review.users.get("ann").may("view")
    review.users.enable("ann", HOUSE)
    assert review.logins.log_in_by_proxy("ANN", "::1").name == "ann"
    with pytest.raises(LoginRefused, match="proxy"):
        review.logins.log_in_by_proxy("eve", "::1")


def test_only_admins_keep_users(review: Review, ann: Any, people: Any) -> None:
    with pytest.raises(NotAllowed, match="admin"):
        review.users.add("eve", "admin", PASSWORD, people["lea"])
    with pytest.raises(NotAllowed):
        review.users.set_password("ann", PASSWORD, people["ben"])
    with pytest.raises(BadInput, match="exists"):
        review.users.add("ANN", "reader", PASSWORD, people["adm"])
    with pytest.raises(BadInput, match="no role"):
        review.users.add("eve", "god", PASSWORD, people["adm"])
    with pytest.raises(BadText):
        review.users.add("eve", "reader", "x" * 2_000, people["adm"])


def test_the_audit_log_says_who_what_when_from_where(review: Review, ann: Any) -> None:
    with pytest.raises(LoginRefused):
        review.logins.log_in("ann", "wrong", "10.1.2.3")
    review.logins.log_in("ann", PASSWORD, "10.1.2.3")
    review.audit.record("view", ann.at("10.1.2.3"), "finding:12", {"images": 40})
    lines = [(e.action, e.user, e.address, e.subject) for e in reversed(review.audit.list_entries())]
    assert lines == [
        ("user-add", "command-line", "local", "user:ann"),
        ("login-failed", "ann", "10.1.2.3", ""),
        ("login", "ann", "10.1.2.3", ""),
        ("view", "ann", "10.1.2.3", "finding:12"),
    ]
    assert [e.action for e in review.audit.list_entries(action="view")] == ["view"]
    newest = review.audit.list_entries(limit=2)
    assert [e.action for e in review.audit.list_entries(limit=2, before=newest[-1].id)] == ["login-failed", "user-add"]
    assert review.audit.verify().problems == ()


@pytest.mark.parametrize(
    ("subject", "detail"),
    [
        ("study:" + "0123456789abcdef" * 4, {}),
        ("Mueller^Anna", {}),
        ("finding:1", {"study": "0123456789abcdef0123"}),
        ("finding:1", {"comment": "x" * 61}),
        ("finding:1", {"rows": [1, 2]}),
    ],
)
def test_the_audit_log_takes_no_pseudonym_and_no_text(review: Review, people: Any, subject: str, detail: Any) -> None:
    with pytest.raises(BadInput):
        review.audit.record("view", people["ann"], subject, detail)

"""The commands of the reading list, as an administrator types them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import group
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.review.services import Review

Run = Callable[..., Result]


@pytest.fixture
def nightread(tmp_path: Path) -> Run:
    def run(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(group, ["-w", str(tmp_path / "workspace"), "review", *arguments], input=stdin)

    return run


def test_users_come_are_listed_and_go(nightread: Run, settings: Settings) -> None:
    assert "no users yet" in nightread("users", "list").output
    done = nightread("users", "add", "Ann", "--role", "reader", "--password-stdin", stdin="correct horse battery\n")
    assert done.output == "ann may log in as reader.\n"
    nightread("users", "add", "ben@clinic", "--role", "lead", "--proxied")
    nightread("users", "disable", "ben@clinic")
    rows = json.loads(nightread("users", "list", "--json").output)
    assert [(r["user"], r["role"], r["disabled"]) for r in rows] == [
        ("ann", "reader", False),
        ("ben@clinic", "lead", True),
    ]
    with Catalogue.open(settings) as catalogue:
        assert Review(catalogue, settings).logins.log_in("ANN", "correct horse battery", "::1").role == "reader"


@pytest.mark.parametrize(
    ("arguments", "stdin", "words"),
    [
        (("users", "add", "ann", "--role", "reader", "--password-stdin"), "short\n", "at least 12 characters"),
        (("users", "add", "a b", "--role", "reader", "--proxied"), None, "letters, digits"),
        (("users", "disable", "nobody"), None, "no user 'nobody'"),
    ],
)
def test_what_is_wrong_is_said(nightread: Run, arguments: tuple[str, ...], stdin: str | None, words: str) -> None:
    done = nightread(*arguments, stdin=stdin)
    assert done.exit_code == 11 and words in done.stderr


def test_the_audit_log_is_json_lines_and_notes_its_own_export(nightread: Run) -> None:
    nightread("users", "add", "ann", "--role", "reader", "--proxied")
    lines = [json.loads(line) for line in nightread("audit", "--since", "2020-01-01").output.splitlines()]
    assert [(line["action"], line["user"], line["subject"]) for line in lines] == [
        ("user-add", "command-line", "user:ann"),
        ("export", "command-line", "table:audit"),
    ]
    assert nightread("audit", "--until", "2020-01-01").output == ""
    assert nightread("audit", "--since", "yesterday").exit_code == 2


def test_verify_prints_hashes_that_hold(nightread: Run) -> None:
    nightread("users", "add", "ann", "--role", "reader", "--proxied")
    first = json.loads(nightread("verify", "--json").output)
    assert first["audit log"]["rows"] == 1 and first["audit log"]["problems"] == []
    assert nightread("verify", "--audit", first["audit log"]["head"]).exit_code == 0
    wrong = nightread("verify", "--audit", "0" * 64)
    assert wrong.exit_code == 11 and "cut off" in wrong.output


def test_sample_says_when_there_is_nothing_to_draw(nightread: Run) -> None:
    assert "Nothing to add" in nightread("sample").output

"""Commands of the reading list: serve it, manage its users, export its audit log, verify that nothing was altered."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.output import json_option, print_json, print_rows, settings_of
from pipeline.cli.review_start import REVIEW_EXTRA, start

if TYPE_CHECKING:
    from pipeline.review.services import Review

ROLES = ("reader", "lead", "admin", "auditor")


@click.group(
    invoke_without_command=True,
    short_help="Read flagged scans in a browser.",
    epilog="""\b
Example:
  nightread review users add ann --role reader
  nightread review""",
)
@click.pass_context
def review(context: click.Context) -> None:
    """Serve the reading list to browsers and administer it; without a subcommand it runs `nightread review start`."""
    if context.invoked_subcommand is None:
        context.invoke(start)


review.add_command(start)


@review.group(
    "users", short_help="Manage who may log in.", epilog="Example: nightread review users add ann --role reader"
)
def users() -> None:
    """Manage who may log in, and with what role: reader, lead (also searches by accession number), admin, auditor."""


@users.command(
    "add",
    epilog="""\b
Example:
  nightread review users add ann --role reader
  nightread review users add ben@clinic --role lead --proxied""",
)
@click.argument("name")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What the user may do.")
@click.option("--proxied", is_flag=True, help="No password: a proxy in front authenticates this user (OIDC).")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input instead of asking.")
@json_option
@click.pass_context
def users_add(context: click.Context, name: str, role: str, proxied: bool, password_stdin: bool, as_json: bool) -> None:
    """Add a user; the password is prompted for twice and stored as an argon2 hash."""
    from pipeline.errors import ConfigError

    if proxied and password_stdin:
        raise ConfigError("A proxied user has no password: give either --proxied or --password-stdin.")
    with _opened(context) as (room, actor):
        user = room.users.add(name, role, None if proxied else _password(password_stdin), actor)
    _done(as_json, {"user": user.name, "role": user.role}, f"{user.name} may log in as {user.role}.")


@users.command("list", epilog="Example: nightread review users list")
@json_option
@click.pass_context
def users_list(context: click.Context, as_json: bool) -> None:
    """List all users, including disabled ones."""
    with _opened(context) as (room, _):
        rows = [
            {"user": user.name, "role": user.role, "disabled": user.disabled, "since": f"{user.created_at:%Y-%m-%d}"}
            for user in room.users.list()
        ]
    print_rows(rows, as_json, "There are no users yet. Add one: nightread review users add NAME --role reader")


@users.command("disable", epilog="Example: nightread review users disable ann")
@click.argument("name")
@json_option
@click.pass_context
def users_disable(context: click.Context, name: str, as_json: bool) -> None:
    """Disable a user and end their sessions; their decisions stay."""
    with _opened(context) as (room, actor):
        room.users.disable(name, actor)
    _done(as_json, {"user": name, "disabled": True}, f"{name} may no longer log in.")


@users.command("enable", epilog="Example: nightread review users enable ann")
@click.argument("name")
@json_option
@click.pass_context
def users_enable(context: click.Context, name: str, as_json: bool) -> None:
    """Enable a disabled user again."""
    with _opened(context) as (room, actor):
        room.users.enable(name, actor)
    _done(as_json, {"user": name, "disabled": False}, f"{name} may log in again.")


@users.command("password", epilog="Example: nightread review users password ann")
@click.argument("name")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input instead of asking.")
@json_option
@click.pass_context
def users_password(context: click.Context, name: str, password_stdin: bool, as_json: bool) -> None:
    """Set a user's password and end their sessions."""
    with _opened(context) as (room, actor):
        room.users.set_password(name, _password(password_stdin), actor)
    _done(as_json, {"user": name}, f"The password of {name} has been set.")


@review.command(
    "audit",
    epilog="""\b
Example:
  nightread review audit --since 2026-01-31 > january.jsonl
  nightread review audit --since 2026-01-31T22:00 --until 2026-02-01T06:00""",
)
@click.option("--since", help="Only from this date or time on (UTC).")
@click.option("--until", help="Only before this date or time (UTC).")
@click.option("--json", "as_json", is_flag=True, help="The default: one JSON document per line.")
@click.pass_context
def audit(context: click.Context, since: str | None, until: str | None, as_json: bool) -> None:
    """Print who did what, when and from where, as JSON lines, oldest first; the export itself is recorded first."""
    begin, end = _moment(since, "--since"), _moment(until, "--until")
    with _opened(context) as (room, actor):
        room.audit.record("export", actor, "table:audit")
        for line in room.audit.write_lines(begin, end):
            click.echo(line)


@review.command(
    "verify",
    epilog="""\b
Example:
  nightread review verify
  nightread review verify --decisions 5f1c... --audit 90ab...    (the hashes that an earlier call printed)""",
)
@click.option("--decisions", "decisions_head", default="", help="Last hash of the decisions, as printed earlier.")
@click.option("--audit", "audit_head", default="", help="Last hash of the audit log, as printed earlier.")
@json_option
@click.pass_context
def verify(context: click.Context, decisions_head: str, audit_head: str, as_json: bool) -> None:
    """Verify that the decisions and the audit log were not altered; exit code 11 if they were.

    Store the printed hashes elsewhere: passed to a later call, they reveal rows that were removed from the end since.
    """
    from pipeline.errors import ReviewError

    with _opened(context) as (room, _):
        verdicts = {"decisions": room.decisions.verify(decisions_head), "audit log": room.audit.verify(audit_head)}
    if as_json:
        print_json({name: {"rows": v.rows, "head": v.head, "problems": v.problems} for name, v in verdicts.items()})
    else:
        for name, verdict in verdicts.items():
            click.echo(f"{name}: {verdict.rows} rows, last hash {verdict.head or 'none'}")
            for problem in verdict.problems:
                click.echo(f"  {problem}")
    if any(verdict.problems for verdict in verdicts.values()):
        context.exit(ReviewError.exit_code)


@review.command("sample", epilog="Example: nightread review sample")
@json_option
@click.pass_context
def sample(context: click.Context, as_json: bool) -> None:
    """Fill the reading list from scoring runs that were not sampled yet; `nightread score` does this by itself.

    The amount is set by `review: {sample_share: 0.02, sample_least: 5}` in the workspace's settings.yaml.
    """
    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.data.catalogue.reading_list import draw_reading_lists

    settings = settings_of(context)
    with Catalogue.open(settings) as catalogue:
        drawn = draw_reading_lists(catalogue, settings.review)
    rows = [
        {"run": one.run_id, "flagged": one.flagged, "unflagged": one.unflagged, "sampled": one.sampled} for one in drawn
    ]
    print_rows(rows, as_json, "Nothing to add: every scoring run has already been sampled.")


@contextmanager
def _opened(context: click.Context) -> Iterator[tuple[Review, Any]]:
    """Open the reading list of the workspace."""
    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.errors import ConfigError

    try:
        from pipeline.review.permissions import CommandLine
        from pipeline.review.services import Review
    except ModuleNotFoundError as error:
        if str(error.name).startswith("pipeline"):
            raise
        raise ConfigError(f"The package {error.name} is not installed. {REVIEW_EXTRA}") from None
    settings = settings_of(context)
    with Catalogue.open(settings) as catalogue:
        yield Review(catalogue, settings), CommandLine()


def _password(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))


def _moment(text: str | None, option: str) -> datetime | None:
    """Return a date or time in UTC without a zone; a time with a zone is converted."""
    from pipeline.errors import ConfigError

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{option} is not a date or time. Write it as 2026-01-31 or 2026-01-31T22:00.") from None
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def _done(as_json: bool, value: dict[str, Any], sentence: str) -> None:
    if as_json:
        print_json(value)
    else:
        click.echo(sentence)

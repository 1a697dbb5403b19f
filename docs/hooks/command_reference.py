"""Turn the click commands into one page: each with its sentence, its options and an example."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from pipeline.cli import group

HEAD = """# Commands

Generated from the commands themselves, so it says what `nightread COMMAND --help` says. `--json`, where there is one,
prints the result as JSON for other programs. Exit codes are listed under [codes and exit codes](codes.md).
"""


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Yield a command and all below it, in the order of `--help`."""
    yield command, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from commands(below, click.Context(below, parent=context, info_name=name))


def command_reference() -> str:
    """Return the page."""
    root = click.Context(group, info_name="nightread")
    return "\n".join([HEAD, *(_section(command, context) for command, context in commands(group, root))])


def _section(command: click.Command, context: click.Context) -> str:
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parts = [f"## `{context.command_path}`", *_prose(command.help or ""), f"```\n{usage}\n```"]
    parts += [_options(command, context), _example(command)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _prose(text: str) -> Iterator[str]:
    r"""Yield paragraphs of a help text; one that click leaves unwrapped (\b) becomes a code block."""
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b"):
            yield "```\n" + paragraph.removeprefix("\b").strip("\n") + "\n```"
        else:
            yield " ".join(paragraph.split())


def _options(command: click.Command, context: click.Context) -> str:
    rows = [record for param in command.get_params(context) if (record := param.get_help_record(context))]
    rows = [(names, text) for names, text in rows if text and "--help" not in names]
    if not rows:
        return ""
    lines = [f"| `{_cell(names)}` | {_cell(text).replace('<', '&lt;')} |" for names, text in rows]
    return "\n".join(["| option | meaning |", "|---|---|", *lines])


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _example(command: click.Command) -> str:
    text = inspect.cleandoc((command.epilog or "").replace("\b", "")).removeprefix("Example")
    head, _, rest = text.partition(":")
    lines = inspect.cleandoc(rest).strip()
    return f"Example{head}:\n\n```\n{lines}\n```" if lines else ""

"""Commands of the audit: what is behind a finding, and its score computed again."""

from __future__ import annotations

import click

from pipeline.cli.output import json_option, print_json, settings_of


@click.group(short_help="Show what is behind a finding.", epilog="Example: nightread audit show 12")
def audit() -> None:
    """Show what is behind a finding: models, training patients, configuration, code, threshold, decisions."""


@audit.command(
    "show",
    epilog="""\b
Example (number of a finding, or its study as nightread flagged prints it):
  nightread audit show 12
  nightread audit show 3f09a1c2d4e5 --json""",
)
@click.argument("finding")
@json_option
@click.pass_context
def audit_show(context: click.Context, finding: str, as_json: bool) -> None:
    """Show all that led to FINDING, with the SHA-256 of every part, and what was decided about it.

    Every model is read byte by byte meanwhile. Exit code 7 if one is missing or was altered.
    """
    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.errors import ArtefactError
    from pipeline.stages.audit.audit_trail import read_audit_trail, write_trail
    from pipeline.stages.audit.find_finding import find_finding

    settings = settings_of(context)
    with Catalogue.open(settings) as catalogue:
        trail = read_audit_trail(catalogue, settings, find_finding(catalogue, finding))
    if as_json:
        print_json(trail)
    else:
        click.echo("\n".join(write_trail(trail)))
    if trail["problems"]:
        context.exit(ArtefactError.exit_code)


@click.command(
    short_help="Compute a finding's score again.",
    epilog="""\b
Example:
  nightread reproduce 12
  nightread reproduce 3f09a1c2d4e5 --json""",
)
@click.argument("finding")
@json_option
@click.pass_context
def reproduce(context: click.Context, finding: str, as_json: bool) -> None:
    """Compute the score of FINDING again, from its model, its detector and the stored pixels; nothing is written.

    Exit code 0 if it agrees to 1e-5, else 1. Printed beside it: which versions, commit and processor differ from those
    of the score. A model or detector whose SHA-256 is not the recorded one is refused (exit code 7).
    """
    from pipeline.stages.audit.reproduce import reproduce as score_again

    result = score_again(settings_of(context), finding)
    if as_json:
        print_json(result.to_json())
    else:
        click.echo("\n".join(result.lines()))
    if not result.agrees:
        context.exit(1)

"""Commands of the audit: all that is behind a finding, its score computed again, and an export for an auditor."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

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
    """Show everything that led to FINDING, with the SHA-256 of every part, and the decisions about it.

    Every byte of the models is checked. Exit code 7 if one is missing or was altered.
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

    Exit code 0 if it agrees to 1e-5, else 1. The versions, commit and processor that have changed since are also
    printed. A model or detector whose SHA-256 is not the recorded one is refused (exit code 7).
    """
    from pipeline.stages.audit.reproduce import reproduce as score_again

    result = score_again(settings_of(context), finding)
    if as_json:
        print_json(result.to_json())
    else:
        click.echo("\n".join(result.lines()))
    if not result.agrees:
        context.exit(1)


@audit.command(
    "export",
    epilog="""\b
Example:
  nightread audit export audit.zip
  nightread audit export night.zip --day 2026-01-31""",
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--day", type=click.DateTime(["%Y-%m-%d"]), help="Only this day (UTC).")
@json_option
@click.pass_context
def audit_export(context: click.Context, file: Path, day: datetime | None, as_json: bool) -> None:
    """Write the audit into FILE for somebody outside: tables, flagged findings, hashes of the chains, a signature.

    It contains pseudonyms and no free text. Send the printed fingerprint of the key by a different channel from the
    file.
    """
    from pipeline.stages.audit.export_audit import export_audit

    report = export_audit(settings_of(context), file, None if day is None else day.date())
    if as_json:
        print_json(report.to_json())
        return
    click.echo(f"{report.findings} findings in {report.members} files are saved in {file}.")
    click.echo(f"Key {report.key_sha256}")


@audit.command(
    "verify",
    epilog="""\b
Example:
  nightread audit verify audit.zip --key 5f1c09a1b2c3d4e5""",
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--key", help="Fingerprint of the site's key, as the export printed it.")
@json_option
@click.pass_context
def audit_verify(context: click.Context, file: Path, key: str | None, as_json: bool) -> None:
    """Verify every byte of an export, on any machine; a changed file is named, and the exit code is 7."""
    from pipeline.errors import ArtefactError
    from pipeline.stages.audit.export_audit import verify_export

    verdict = verify_export(file, key)
    if as_json:
        print_json(verdict.to_json())
    else:
        signed = f"signed by the key {verdict.key_sha256}" + ("" if key else ", which --key would compare")
        click.echo("\n".join(verdict.problems) or f"{verdict.members} files are as they were written, {signed}.")
    if verdict.problems:
        context.exit(ArtefactError.exit_code)

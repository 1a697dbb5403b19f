"""`nightread forget`: erase one patient's data."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from pipeline.cli.output import json_option, print_json, settings_of

if TYPE_CHECKING:
    from pipeline.config import Settings
    from pipeline.stages.audit.forget import ErasureReport

PSEUDONYM_LENGTH = 32


@click.command(
    short_help="Erase one patient's data.",
    epilog="""\b
Example (type the Patient ID at the prompt, so that it is not in the shell's history):
  nightread forget --dry-run
  nightread forget 3f09a1c2d4e5f60718293a4b5c6d7e8f --yes
  echo "4711^^^SITE-A" | nightread forget - --yes --json""",
)
@click.argument("patient", required=False)
@click.option("--dry-run", is_flag=True, help="Print what would be removed, and what cannot be reached.")
@click.option("--reveal", is_flag=True, help="Also print the paths of the source files (identifying).")
@click.option("--readmit", is_flag=True, help="Take files of an erased patient in again from now on.")
@click.option("--resume", is_flag=True, help="Finish every erasure that was interrupted.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def forget(
    context: click.Context,
    patient: str | None,
    dry_run: bool,
    reveal: bool,
    readmit: bool,
    resume: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Erase the data of PATIENT everywhere within this workspace's reach, and list what is beyond it.

    PATIENT is a pseudonym. Without it, or with - for standard input, a Patient ID (or ID^^^ISSUER) may be given.
    It removes pixels, identifiers, pictures, caches, entries of indices, labels, drafts and free text; findings,
    decisions and the audit log stay under the pseudonym. This cannot be undone. If it is interrupted, run it again to
    continue. Later files of the patient are refused (patient-forgotten).
    """
    from pipeline.stages.audit import forget as stage

    settings = settings_of(context)
    patients = stage.list_unfinished(settings) if resume else [_resolve(settings, patient)]
    for one in patients:
        if readmit:
            stage.readmit(settings, one)
            click.echo(f"Files of the patient {one[:12]} are taken in again.")
            continue
        if not (dry_run or yes or resume):
            click.confirm(f"Erase all data of the patient {one[:12]}? This cannot be undone", abort=True)
        _print(stage.plan_erasure(settings, one) if dry_run else stage.forget(settings, one), as_json, reveal)
    if not patients:
        click.echo("No erasure was interrupted.")


def _resolve(settings: Settings, patient: str | None) -> str:
    """Return the pseudonym of the patient who was named on the command line, at the prompt or on standard input."""
    from pipeline.errors import ConfigError
    from pipeline.stages.audit.find_patient import find_patient_to_forget

    if patient is None:
        patient = str(click.prompt("Pseudonym, Patient ID or ID^^^ISSUER", hide_input=True))
    elif patient == "-":
        patient = sys.stdin.readline().strip()
    elif len(patient) != PSEUDONYM_LENGTH:
        raise ConfigError(
            "The argument is not a whole pseudonym. If it is a Patient ID, it is in the shell's history now: remove it "
            "there, and run nightread forget without an argument, which asks for it."
        )
    return find_patient_to_forget(settings, patient)


def _print(report: ErasureReport, as_json: bool, reveal: bool) -> None:
    if as_json:
        print_json(report.to_json(reveal))
        return
    planned = report.state == "planned"
    verb = {"planned": "would be erased", "finished": "was erased"}.get(report.state, "had been erased before")
    removed = ", ".join(f"{count} {name}" for name, count in report.counts.items() if count) or "nothing"
    click.echo(f"The patient {report.patient[:12]} {verb}.")
    click.echo(f"{'To remove' if planned else 'Removed'}: {removed}.")
    for one in report.models:
        click.echo(f"Model {one['run']} learned from the patient ({', '.join(one['sets'])}) and cannot unlearn.")
    click.echo("Out of reach:")
    for sentence in (*report.unreachable, *(report.source_files if reveal else ())):
        click.echo(f"  {sentence}")
    for name in report.still_named:
        click.echo(f"STILL NAMED in {name}: remove the file, or report this.", err=True)

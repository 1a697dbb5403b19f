"""`nightread retention`: remove what the site's policy no longer keeps, and legal holds, which keep it."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.output import json_option, print_json, print_rows, settings_of


@click.group(
    invoke_without_command=True,
    short_help="Remove what the policy no longer keeps.",
    epilog="""\b
Example:
  nightread retention --dry-run
  nightread retention --yes
  nightread retention hold 12 --why "case 4/2026" """,
)
@click.option("--dry-run", is_flag=True, help="Print what would be removed, and why the rest stays.")
@click.option(
    "--policy", type=click.Path(path_type=Path), help="File of the policy [default: <workspace>/retention.yaml]."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
@click.pass_context
def retention(context: click.Context, dry_run: bool, policy: Path | None, yes: bool, as_json: bool) -> None:
    """Remove pixels, pictures, logs and other files that are older than the site's policy keeps them.

    Never removed: findings, decisions and the audit log; scans that are open, on legal hold, or that no night has
    scored; and, unless the policy says otherwise, scans that a model in use learned from and patients of develop, gate
    and test. If it is interrupted, run it again. A scan whose pixels are gone says so wherever it is opened.
    """
    if context.invoked_subcommand is not None:
        return
    from pipeline.config import load_config
    from pipeline.stages.audit.retention import preview_retention, retain
    from pipeline.stages.audit.retention_policy import RetentionPolicy, read_retention_policy

    settings = settings_of(context)
    rules = load_config(policy, RetentionPolicy) if policy else read_retention_policy(settings)
    if dry_run or not yes:
        report = preview_retention(settings, rules)
    if not (dry_run or yes):
        click.echo(report.sentences())
        click.confirm("Remove this? It cannot be undone", abort=True)
    if not dry_run:
        report = retain(settings, rules)
    if as_json:
        print_json(report.to_json())
    else:
        click.echo(report.sentences())


@retention.command("hold", epilog='\b\nExample:\n  nightread retention hold 12 --why "case 4/2026"')
@click.argument("patient")
@click.option("--why", required=True, help="The reason, without the patient's name: it is printed.")
@json_option
@click.pass_context
def hold(context: click.Context, patient: str, why: str, as_json: bool) -> None:
    """Keep all data of PATIENT, a pseudonym or the number of a finding, until the hold is released.

    Neither retention nor nightread forget removes it.
    """
    from pipeline.stages.audit.legal_holds import hold_patient

    patient_id = hold_patient(settings_of(context), patient, why)
    _say(as_json, {"patient": patient_id}, f"The data of the patient {patient_id[:12]} is on legal hold.")


@retention.command("release", epilog="\b\nExample:\n  nightread retention release 12")
@click.argument("patient")
@json_option
@click.pass_context
def release(context: click.Context, patient: str, as_json: bool) -> None:
    """End the legal hold on PATIENT, a pseudonym or the number of a finding."""
    from pipeline.stages.audit.legal_holds import release_patient

    patient_id = release_patient(settings_of(context), patient)
    _say(as_json, {"patient": patient_id}, f"The hold on the data of the patient {patient_id[:12]} has ended.")


def _say(as_json: bool, values: dict[str, object], sentence: str) -> None:
    if as_json:
        print_json(values)
    else:
        click.echo(sentence)


@retention.command("holds", epilog="\b\nExample:\n  nightread retention holds --json")
@json_option
@click.pass_context
def holds(context: click.Context, as_json: bool) -> None:
    """List the legal holds that are in effect."""
    from pipeline.stages.audit.legal_holds import describe_holds

    print_rows(describe_holds(settings_of(context)), as_json, "No patient is on legal hold.")


@retention.command("readmit", epilog="\b\nExample:\n  nightread retention readmit 3f09a1c2d4e5f60718293a4b5c6d7e8f")
@click.argument("study")
@json_option
@click.pass_context
def readmit(context: click.Context, study: str, as_json: bool) -> None:
    """Let the files of STUDY, a pseudonym, in again; what was removed does not come back by itself."""
    from pipeline.stages.audit.legal_holds import readmit as let_in

    count = let_in(settings_of(context), study)
    words = f"Files of {count} series of the study {study[:12]} are taken in again: nightread ingest FOLDER"
    _say(as_json, {"study": study, "series": count}, words)

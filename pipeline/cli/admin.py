"""Commands for administrators: identity, backup, restore and serve."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.output import find_shipped, json_option, print_json, progress_bar, settings_of, use_workspace

if TYPE_CHECKING:
    from pipeline.stages.operations.backup import BackupReport
    from pipeline.stages.operations.restore import RestoreReport


@click.group(
    short_help="Rotate the key, reveal a pseudonym, merge patients.",
    epilog="Example: nightread identity reveal 7f3a09c2",
)
def identity() -> None:
    """Manage pseudonyms: rotate the key, reveal the identity behind one, or merge two that belong to one patient."""


@identity.command("rotate", epilog="Example: nightread identity rotate")
@click.confirmation_option(prompt="Replace the pseudonym key and rewrite every pseudonym?")
@click.pass_context
def identity_rotate(context: click.Context) -> None:
    """Make a new key and rewrite every pseudonym; no patient changes sets. If interrupted, run it again to continue."""
    from pipeline.data.catalogue.rotation import rotate

    rotate(settings_of(context))
    click.echo("The key was rotated; old pseudonyms can still be resolved through the crosswalk.")


@identity.command("reveal", epilog="Example: nightread identity reveal 7f3a09c2...")
@click.argument("pseudonym")
@click.pass_context
def identity_reveal(context: click.Context, pseudonym: str) -> None:
    """Print the real identifiers behind a patient, study, series or instance pseudonym (identifying)."""
    from pipeline.dicom.identity.crosswalk import Crosswalk

    with Crosswalk.open(settings_of(context)) as crosswalk:
        identifiers = crosswalk.reveal(pseudonym)
    for name, value in identifiers.items():
        click.echo(f"{name}: {value}")


@identity.command(
    "merge",
    epilog="""\b
Example (Patient IDs, ID^^^ISSUER, or pseudonyms):
  nightread identity merge 4711 0815
  nightread identity merge "4711^^^SITE-A" "4711^^^SITE-B" --yes --json""",
)
@click.argument("keep")
@click.argument("absorb")
@click.confirmation_option(prompt="Merge the two patients? This cannot be undone.")
@json_option
@click.pass_context
def identity_merge(context: click.Context, keep: str, absorb: str, as_json: bool) -> None:
    """Merge the patient ABSORB into KEEP, who is the same person: studies, labels, findings and set.

    If the two were in different sets, test takes precedence over all others, so that no later model learns from a test
    patient. This cannot be undone. New files with the absorbed Patient ID will belong to KEEP, and files that were
    refused because both patients claim their study are read again by the next ingest. Of ABSORB, every file may have
    been refused.
    """
    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.data.catalogue.patients import find_patient, merge_patients
    from pipeline.dicom.identity.crosswalk import Crosswalk

    settings = settings_of(context)
    with Catalogue.open(settings) as catalogue, Crosswalk.open(settings) as crosswalk:
        survivor = find_patient(catalogue, crosswalk, keep)
        absorbed = find_patient(catalogue, crosswalk, absorb, or_refused=True)
        set_name = merge_patients(catalogue, survivor, absorbed, or_refused=True)
    if as_json:
        print_json({"patient": survivor, "absorbed": absorbed, "set": set_name})
        return
    where = f"in the set {set_name}" if set_name else "not in a set yet"
    click.echo(f"The patient {absorbed[:12]} was merged into {survivor[:12]}, which is {where}.")


@click.command(
    short_help="Save the workspace into a file.",
    epilog="""\b
Example:
  nightread backup /backups/monday.tar --identity /safe/monday-identity.tar""",
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--identity",
    type=click.Path(path_type=Path),
    help="Also save the pseudonym key, the crosswalk, inbox and outbox, into this file.",
)
@click.option("--without-outside", is_flag=True, help="Leave out data outside the workspace, e.g. in PostgreSQL.")
@json_option
@click.pass_context
def backup(context: click.Context, file: Path, identity: Path | None, without_outside: bool, as_json: bool) -> None:
    """Save the workspace, which may be in use, into FILE: a tar archive with the SHA-256 of everything in it.

    FILE identifies nobody. With the pseudonym key or the crosswalk, anybody who finds a backup could identify every
    patient, so these go only into the file of --identity, which belongs in a different, safer place. Without that file,
    a restored workspace shows its results but cannot ingest scans.
    """
    from pipeline.stages.operations.backup import back_up

    with progress_bar("files", as_json) as update:
        report = back_up(settings_of(context), file.absolute(), identity, without_outside, update)
    notes = (
        [] if report.identity else ["The pseudonym key and the crosswalk are not in it. Save them with --identity FILE"]
    )
    if report.left_out:
        notes.append(f"Left out, since they are outside the workspace: {', '.join(report.left_out)}.")
    _print_report(report, f"are saved in {file}", notes, as_json)


@click.command(
    short_help="Restore a workspace from a backup.",
    epilog="""\b
Example:
  nightread restore /backups/monday.tar restored --identity /safe/monday-identity.tar""",
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@click.option(
    "--identity",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The identity file of the same backup.",
)
@json_option
@click.pass_context
def restore(context: click.Context, file: Path, folder: Path | None, identity: Path | None, as_json: bool) -> None:
    """Restore the workspace FOLDER, which must be new or empty, from FILE; the default FOLDER is that of -w.

    Every byte is checked before the folder appears. The identity file alone, given later as FILE, completes a
    workspace that was restored without it.
    """
    from pipeline.stages.operations.restore import restore as unpack

    target = settings_of(context).workspace if folder is None else folder.absolute()
    with progress_bar("files", as_json) as update:
        report = unpack(file, target, identity, update)
    missing = "Its pseudonym key is missing. To ingest again, run nightread restore IDENTITY FOLDER"
    notes = [*([] if report.identity else [missing]), f"Check it with nightread -w {target} doctor"]
    _print_report(report, f"are restored and verified in {target}", notes, as_json)


def _print_report(report: BackupReport | RestoreReport, done: str, notes: list[str], as_json: bool) -> None:
    """Print the size of a backup, where it is, and notes; or the report as JSON."""
    if as_json:
        print_json(report.to_json())
        return
    click.echo(f"{report.files} files, {report.size_bytes / 2**20:.1f} MiB, {done}.")
    for note in notes:
        click.echo(note)


@click.command(
    short_help="Keep running, and run the night on its schedule.",
    epilog="""\b
Example:
  nightread serve --schedule configs/schedules/nightly.yaml""",
)
@click.option(
    "--schedule",
    "schedules",
    multiple=True,
    type=click.Path(path_type=Path),
    default=(Path("configs/schedules/nightly.yaml"),),
    show_default=True,
    help="File that says when a flow runs and which folders it reads; repeat for more.",
)
@click.pass_context
def serve(context: click.Context, schedules: tuple[Path, ...]) -> None:
    """Keep running, and run the night and other flows on their schedules (Prefect); stop with Ctrl-C or SIGTERM."""
    settings, files = settings_of(context), [find_shipped(schedule) for schedule in schedules]
    use_workspace(settings)
    from flows.serve import serve_schedules

    serve_schedules(files, settings)

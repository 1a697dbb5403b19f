"""Commands for those who run the installation: identity and serve."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.output import json_option, print_json, settings_of, shipped, use_workspace


@click.group(
    short_help="Rotate the key, look behind a pseudonym, merge patients.",
    epilog="Example: nightread identity reveal 7f3a09c2",
)
def identity() -> None:
    """Pseudonyms: rotate the key, find the real identity behind one, or join two that are one patient."""


@identity.command("rotate", epilog="Example: nightread identity rotate")
@click.confirmation_option(prompt="Replace the pseudonym key and rewrite every pseudonym?")
@click.pass_context
def identity_rotate(context: click.Context) -> None:
    """Make a new key and rewrite every pseudonym; nobody changes sets. Stopped half-way, it goes on when run again."""
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
        found = crosswalk.reveal(pseudonym)
    for name, value in found.items():
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
@click.confirmation_option(prompt="Join the two patients for good?")
@json_option
@click.pass_context
def identity_merge(context: click.Context, keep: str, absorb: str, as_json: bool) -> None:
    """Join the patient ABSORB to KEEP, who turned out to be the same person: studies, labels, findings and set.

    Where the two stood in different sets, test wins over all others, so that no later model learns from a test patient.
    It cannot be undone. Files that come in with the absorbed Patient ID go to KEEP from now on.
    """
    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.data.catalogue.patients import find_patient, merge_patients
    from pipeline.dicom.identity.crosswalk import Crosswalk

    settings = settings_of(context)
    with Catalogue.open(settings) as catalogue, Crosswalk.open(settings) as crosswalk:
        kept, absorbed = (find_patient(catalogue, crosswalk, who) for who in (keep, absorb))
        stands = merge_patients(catalogue, kept, absorbed)
    if as_json:
        print_json({"patient": kept, "absorbed": absorbed, "set": stands})
        return
    click.echo(f"The patient {absorbed[:12]} is {kept[:12]} now, in {f'the set {stands}' if stands else 'no set yet'}.")


@click.command(
    short_help="Stay up and run the night on its schedule.",
    epilog="""\b
Example:
  nightread serve --schedule configs/schedules/nightly.yaml""",
)
@click.option(
    "--schedule",
    type=click.Path(path_type=Path),
    default=Path("configs/schedules/nightly.yaml"),
    show_default=True,
    help="When the night runs, and on what.",
)
@click.pass_context
def serve(context: click.Context, schedule: Path) -> None:
    """Stay up, and run the nightly flow on its schedule (Prefect); stop with Ctrl-C or SIGTERM."""
    settings, found = settings_of(context), shipped(schedule)
    use_workspace(settings)
    from flows.serve import serve_schedule

    serve_schedule(found, settings)

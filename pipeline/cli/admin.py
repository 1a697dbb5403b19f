"""Commands for those who run the installation: identity and serve."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.output import settings_of, shipped, use_workspace


@click.group(
    short_help="Rotate the pseudonym key, or look behind one.", epilog="Example: nightread identity reveal 7f3a09c2"
)
def identity() -> None:
    """Pseudonyms: rotate the key, or find the real identity behind one."""


@identity.command("rotate", epilog="Example: nightread identity rotate")
@click.confirmation_option(prompt="Replace the pseudonym key and rewrite every pseudonym?")
@click.pass_context
def identity_rotate(context: click.Context) -> None:
    """Make a new key and rewrite every pseudonym; nobody changes sets. Stopped half-way, it goes on when run again."""
    from pipeline.data.rotation import rotate

    rotate(settings_of(context))
    click.echo("The key was rotated; old pseudonyms can still be resolved through the crosswalk.")


@identity.command("reveal", epilog="Example: nightread identity reveal 7f3a09c2...")
@click.argument("pseudonym")
@click.pass_context
def identity_reveal(context: click.Context, pseudonym: str) -> None:
    """Print the real identifiers behind a patient, study, series or instance pseudonym (identifying)."""
    from pipeline.dicom.crosswalk import Crosswalk

    with Crosswalk.open(settings_of(context)) as crosswalk:
        found = crosswalk.reveal(pseudonym)
    for name, value in found.items():
        click.echo(f"{name}: {value}")


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

"""The command `nightread`. Only click is imported here, so that `--help` answers at once; commands import the rest."""

from __future__ import annotations

import sys

import click

from pipeline import __version__
from pipeline.cli.admin import identity, serve
from pipeline.cli.doctor import doctor
from pipeline.cli.intake import ingest, labels, rejections, wrap
from pipeline.cli.lists import flagged, runs
from pipeline.cli.model import benchmark, evaluate, nightly, score, train
from pipeline.errors import NightreadError

COMMANDS = (
    *(ingest, wrap, labels, train, score, evaluate, flagged, nightly),
    *(serve, runs, rejections, identity, benchmark, doctor),
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="nightread")
@click.option(
    "-w",
    "--workspace",
    envvar="NIGHTREAD_WORKSPACE",
    default="nightread-data",
    show_default=True,
    help="Folder of the catalogue, pixels, models and results.",
)
@click.pass_context
def group(context: click.Context, workspace: str) -> None:
    """Nightread reads last night's scans before the radiologist does.

    \b
    Example, from scans to a flagged list:
      nightread ingest /data/inbox
      nightread labels import reports.csv
      nightread train configs/runs/demo-ct.yaml
      nightread score && nightread flagged
    """
    context.obj = workspace


for command in COMMANDS:
    group.add_command(command)


def main() -> None:
    """Run the command line; errors raised on purpose become one sentence and their exit code."""
    try:
        group(standalone_mode=True)
    except NightreadError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(error.exit_code)

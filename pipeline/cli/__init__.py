"""The command `nightread`. Only click is imported here, so that `--help` is fast; each command imports the rest."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from pipeline import __version__
from pipeline.cli.admin import backup, identity, restore, serve
from pipeline.cli.apply_retention import retention
from pipeline.cli.audit_findings import audit, reproduce
from pipeline.cli.champions import promote, promotions, refuse, retrain, rollback
from pipeline.cli.choosing import compare, grid
from pipeline.cli.code_tasks import CODE_TASKS
from pipeline.cli.degraded_images import RESTORATIONS
from pipeline.cli.doctor import doctor
from pipeline.cli.drift_streams import drift
from pipeline.cli.export_model import export
from pipeline.cli.forget_patient import forget
from pipeline.cli.generate import gallery, generate
from pipeline.cli.intake import ingest, labels, rejections, spoil, wrap
from pipeline.cli.lists import flagged, runs, series
from pipeline.cli.model import benchmark, evaluate, nightly, score
from pipeline.cli.pacs import listen, push
from pipeline.cli.pull import pull
from pipeline.cli.purification import ROBUSTNESS
from pipeline.cli.report_night import report
from pipeline.cli.review import review
from pipeline.cli.signals import SIGNALS
from pipeline.cli.text_prompts import WORDS
from pipeline.cli.train import train
from pipeline.cli.up import up
from pipeline.cli.watch import status, watch
from pipeline.errors import DEBUG, NightreadError, UnforeseenError, to_own_error

COMMANDS = (
    *(ingest, wrap, labels, series, train, score, evaluate, flagged, nightly, status, report),
    *(retrain, promote, refuse, rollback, promotions, drift),
    *(listen, pull, push),
    review,
    *(audit, reproduce, forget, retention),
    *(up, serve, watch, runs, compare, grid, export, benchmark, generate, gallery, spoil),
    *(rejections, identity, backup, restore, doctor),
)


for command in (*CODE_TASKS, *RESTORATIONS, *SIGNALS, *ROBUSTNESS, *WORDS):
    generate.add_command(command)


class Nightread(click.Group):
    """The commands; an error is printed as one sentence on standard error and sets the exit code, never a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which a user needs them, not in alphabetical order."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except NightreadError as error:
            return _fail(ctx, error)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except Exception as error:
            if os.environ.get(DEBUG):
                raise
            failure = to_own_error(error, Path(ctx.params["workspace"]))
            unforeseen = isinstance(failure, UnforeseenError)
            return _fail(
                ctx, failure, f" Set {DEBUG}=1 to see its full text (which may show identifiers)." * unforeseen
            )


def _fail(context: click.Context, error: NightreadError, more: str = "") -> None:
    click.echo(f"Error: {error}{more}", err=True)
    context.exit(error.exit_code)


@click.group(
    "nightread", cls=Nightread, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="nightread")
@click.option(
    "-w",
    "--workspace",
    envvar="NIGHTREAD_WORKSPACE",
    default="nightread-data",
    show_default=True,
    help="Folder that holds the catalogue, pixels, models and results.",
)
@click.pass_context
def group(context: click.Context, workspace: str) -> None:
    """Nightread reads last night's scans before the radiologist does.

    \b
    Example, from scans to a flagged list:
      nightread ingest /data/inbox
      nightread labels import reports.csv
      nightread train configs/runs/demo-mr.yaml
      nightread score && nightread flagged
    """
    context.obj = workspace


for command in COMMANDS:
    group.add_command(command)


def main() -> None:
    """Run the command line."""
    group()

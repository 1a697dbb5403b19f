"""The command that runs a whole site: up."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.output import json_option, print_rows, settings_of
from pipeline.cli.watch import site_option

if TYPE_CHECKING:
    from pipeline.stages.up.parts import Part

NAMES = ("prefect", "schedules", "mlflow", "review", "listener", "watch")


@click.command(
    short_help="Start everything that a site needs on one machine.",
    epilog="""\b
Example:
  nightread up
  nightread up --only review --only watch --review-port 8700""",
)
@click.option("--only", multiple=True, type=click.Choice(NAMES), help="Only this component; repeat for more.")
@click.option("--prefect-port", type=click.IntRange(1, 65535), help="Port of Prefect [default: 4200].")
@click.option("--mlflow-port", type=click.IntRange(1, 65535), help="Port of MLflow [default: 5000].")
@click.option("--review-port", type=click.IntRange(1, 65535), help="Port of the reading list [default: 8650].")
@click.option("--dicom-port", type=click.IntRange(1, 65535), help="Port of the DICOM listener [default: 11112].")
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Port of the metrics [default: 9464].")
@site_option
@json_option
@click.pass_context
def up(context: click.Context, only: Sequence[Any], site_file: Path | None, as_json: bool, **ports: int | None) -> None:
    """Start Prefect's server, the schedules, MLflow's pages, the reading list, the DICOM listener and the watch.

    Once each is healthy, their addresses are printed. One that dies or hangs is restarted. Everything stops with Ctrl-C
    or SIGTERM, and nothing is left behind. All listen on 127.0.0.1 unless site.yaml says otherwise. --json prints
    one line per event.
    """
    from pipeline.stages.up.parts import plan
    from pipeline.stages.up.run_site import running_site
    from pipeline.stages.watch.site_config import load_site

    settings = settings_of(context)
    site = load_site(settings, site_file).with_ports(
        prefect=ports["prefect_port"],
        mlflow=ports["mlflow_port"],
        review=ports["review_port"],
        listener=ports["dicom_port"],
        watch=ports["metrics_port"],
    )
    parts = plan(settings, site, only, site_file)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    tell = _teller(as_json)
    tell("", f"Starting {', '.join(part.name for part in parts)}")
    with running_site(settings, parts, tell, ended, site.watch.restart_seconds) as running:
        if not ended.is_set():
            _print_addresses(parts, as_json)
            running.keep(ended)
        tell("", "Stopping")
    tell("", "Everything has stopped")


def _print_addresses(parts: Sequence[Part], as_json: bool) -> None:
    rows = [{"component": part.name, "address": part.component.address or "(none)"} for part in parts]
    if as_json:
        click.echo(json.dumps({"event": "running", "components": rows}))
        return
    click.echo()
    print_rows(rows, False, "")
    click.echo("\nEverything runs. Ctrl-C stops it. In another terminal: nightread status")


def _teller(as_json: bool) -> Callable[[str, str], None]:
    def tell(name: str, what: str) -> None:
        click.echo(json.dumps({"event": what, "component": name}) if as_json else f"{name} {what}".strip())

    return tell

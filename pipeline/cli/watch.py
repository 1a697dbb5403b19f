"""Commands that look after the nights: status and watch."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from pipeline.cli.output import find_shipped, json_option, print_json, print_rows, settings_of

if TYPE_CHECKING:
    from pipeline.config import Settings
    from pipeline.stages.watch.status import Status

UNKNOWN = 3
site_option = click.option(
    "--site",
    "site_file",
    type=click.Path(path_type=Path),
    help="File of the site [default: <workspace>/site.yaml].",
)


@click.command(
    short_help="Last night at a glance; exit code for monitoring.",
    epilog="""\b
Example:
  nightread status
  nightread status --json""",
)
@site_option
@json_option
@click.pass_context
def status(context: click.Context, site_file: Path | None, as_json: bool) -> None:
    """Show last night, the next run, champions, components and open alerts.

    The exit code is that of monitoring plugins: 0 all is well, 1 warning, 2 critical, 3 unknown (nothing could be
    read). Nothing is changed.
    """
    from pipeline.errors import NightreadError
    from pipeline.stages.watch.site_config import load_site
    from pipeline.stages.watch.status import CODES, read_status

    try:
        settings = settings_of(context)
        state = read_status(settings, load_site(settings, site_file))
    except NightreadError as error:
        _end_unknown(context, error, as_json)
    if as_json:
        print_json(state.to_json())
    else:
        _print_status(state)
    context.exit(CODES[state.word])


def _print_status(state: Status) -> None:
    from pipeline.stages.watch.status import night_sentence

    click.echo(state.headline())
    for condition in state.conditions[1:]:
        click.echo(f"{condition.severity.upper()}: {condition.sentence}")
    click.echo()
    for night in state.last:
        click.echo(night_sentence(night))
    for schedule, moment in state.upcoming.items():
        click.echo(f"Next run of {schedule}: {moment} UTC")
    if not state.upcoming:
        click.echo("No schedule is being served: nightread up")
    champions = ", ".join(f"{route} version {version}" for route, version in state.champions.items())
    click.echo(f"Champions: {champions or 'no route has one yet'}")
    if state.components:
        click.echo()
        print_rows(state.components, False, "")
    if state.alerts:
        click.echo()
        print_rows(state.alerts, False, "", "Alerts")


@click.command(
    short_help="Raise alerts about missed nights and dead components.",
    epilog="""\b
Example:
  nightread watch --schedule configs/schedules/nightly.yaml
  nightread watch --once        (from a timer; the exit code is that of nightread status)""",
)
@click.option("--once", is_flag=True, help="Look once and end; for a timer.")
@click.option(
    "--schedule",
    "schedules",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Expect this schedule; repeat for more [default: those that are served].",
)
@click.option("--metrics-port", type=click.IntRange(0, 65535), help="Serve metrics for Prometheus on this port.")
@site_option
@json_option
@click.pass_context
def watch(
    context: click.Context,
    once: bool,
    schedules: tuple[Path, ...],
    metrics_port: int | None,
    site_file: Path | None,
    as_json: bool,
) -> None:
    """Look at the nights from outside, without Prefect, and send one alert and one recovery for each trouble.

    Trouble is a night that was missed, is late, died, failed, received nothing or refused most of what it received; a
    component that does not answer; a full disk. Receivers are listed in the workspace's site.yaml. Stop with Ctrl-C.
    --json prints one line per event.
    """
    from pipeline.config import load_config
    from pipeline.stages.watch.nights import register_schedules
    from pipeline.stages.watch.schedule import Schedule
    from pipeline.stages.watch.site_config import load_site
    from pipeline.stages.watch.watcher import Watch, keep_watch

    settings = settings_of(context)
    say = _teller(as_json)
    watcher = Watch(settings, load_site(settings, site_file), lambda text: say("trouble", text))
    if schedules:
        register_schedules(settings, [load_config(find_shipped(file), Schedule) for file in schedules])
    if once:
        _check_that_it_exists(context, settings, as_json)
        context.exit(_look_once(watcher, as_json))
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with ExitStack() as stack:
        if metrics_port is not None:
            say("metrics", f"http://127.0.0.1:{_serve_metrics(stack, settings, watcher.site, metrics_port)}/metrics")
        say("watching", f"every {watcher.site.watch.every_seconds:g} seconds")
        keep_watch(watcher, ended)


def _check_that_it_exists(context: click.Context, settings: Settings, as_json: bool) -> None:
    """End as `status` does where there is nothing to watch: a timer with a wrong -w must not say that all is well."""
    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.errors import ConfigError

    try:
        Catalogue.check_exists(settings)
    except ConfigError as error:
        _end_unknown(context, error, as_json)


def _end_unknown(context: click.Context, error: Exception, as_json: bool) -> NoReturn:
    """Say why nothing can be said, and end as monitoring plugins do then."""
    click.echo(json.dumps({"status": "unknown", "error": str(error)}) if as_json else f"UNKNOWN: {error}")
    context.exit(UNKNOWN)


def _serve_metrics(stack: ExitStack, settings: Settings, site: Any, port: int) -> int:
    from pipeline.stages.watch.site_metrics import serving_metrics

    return stack.enter_context(serving_metrics(settings, site, port))


def _look_once(watcher: Any, as_json: bool) -> int:
    from pipeline.stages.watch.status import CODES
    from pipeline.stages.watch.troubles import CRITICAL

    watcher.site = watcher.site.model_copy(
        update={"watch": watcher.site.watch.model_copy(update={"down_seconds": 0.0})}
    )
    rows = [{"key": one.key, "severity": one.severity, "sentence": one.sentence} for one in watcher.look()]
    print_rows(rows, as_json, "All is well.")
    if not rows:
        return CODES["ok"]
    return CODES["critical" if any(row["severity"] == CRITICAL for row in rows) else "warning"]


def _teller(as_json: bool) -> Callable[[str, str], None]:
    from pipeline.stages.watch.json_log import write_json_line

    def say(event: str, text: str) -> None:
        write_json_line("error" if event == "trouble" else "info", "watch", text, event=event)
        click.echo(json.dumps({"event": event, "text": text}) if as_json else f"{event}: {text}")

    return say

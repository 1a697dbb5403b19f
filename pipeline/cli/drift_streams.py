"""`nightread drift`: whether scans have changed, per route, scanner and protocol, with a promise over all nights."""

from __future__ import annotations

import click

from pipeline.cli.output import json_option, print_json, print_rows, settings_of


@click.command(
    short_help="Tell whether the scans have changed.",
    epilog="""\b
Example:
  nightread drift
  nightread drift --route phantom-mr --json""",
)
@click.option("--route", help="Only this route.")
@json_option
@click.pass_context
def drift(context: click.Context, route: str | None, as_json: bool) -> None:
    """Show the evidence that scans have changed, per route, scanner and protocol, and what moved.

    Capital of a bet against the claim that nothing has changed: the probability that any stream ever reaches its alarm
    without a change is at most alpha, over all nights. CUSUM signals of the score and of image statistics are listed
    with the false alarms and the delay that they promise. Limits: drift.yaml in the workspace.
    """
    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.data.sets.routes import load_routes
    from pipeline.errors import ConfigError
    from pipeline.stages.operations.drift_watch import read_policy, watch_drift

    settings = settings_of(context)
    with Catalogue.open(settings) as catalogue:
        watch = watch_drift(catalogue, read_policy(settings))
    streams = [one for one in watch.streams if route in (None, one.route)]
    if route is not None and not streams:  # scans of a route may outlive its file
        routes = sorted(one.name for one in load_routes(settings.routes_folder))
        if route not in routes:
            raise ConfigError(f"The route {route!r} is unknown. Choose one of {', '.join(routes)}.")
    statistics = [one for one in watch.statistics if route in (None, one.route)]
    if as_json:
        print_json(
            {
                "policy": watch.policy.model_dump(mode="json"),
                "streams": [one.to_json() for one in streams],
                "statistics": [one.to_json() for one in statistics],
            }
        )
        return
    rows = [
        {
            "stream": one.name,
            "scans": one.evidence.scans,
            "capital": float(10 ** one.evidence.capital[-1]),
            "alarm at": float(10**one.evidence.level),
            "alarm": None if one.evidence.alarm is None else str(one.evidence.alarm),
            "changed about": None if one.evidence.since is None else str(one.evidence.since),
        }
        for one in streams
    ]
    print_rows(rows, False, "No scans yet. Score some with nightread score")
    for changed in streams:
        if changed.evidence.alarm is not None:
            click.echo(changed.sentence())
    for one in statistics:
        days = ", ".join(map(str, one.signals)) or "never"
        click.echo(f"CUSUM of {one.statistic} on {one.route}: {one.scans} scans, signalled {days}.")
    if statistics:
        click.echo(statistics[0].statement)

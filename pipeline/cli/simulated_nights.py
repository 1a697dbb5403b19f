"""Command `nightread benchmark nights`: a year of whole nights on a simulated calendar."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.output import json_option, print_json, print_rows

LARGEST_SLOWDOWN = 1.5


@click.command(
    "nights",
    short_help="Live through a year of whole nights, and what goes wrong in one.",
    epilog="""\b
Example:
  nightread benchmark nights --nights 365 --studies 4 --folder /dev/shm""",
)
@click.option("--nights", type=click.IntRange(min=20), default=365, show_default=True, help="Nights of the calendar.")
@click.option("--studies", type=click.IntRange(min=1), default=4, show_default=True, help="Studies of each night.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Begin no night after that time.")
@click.option("--seed", type=click.IntRange(0, 900), default=0, show_default=True, help="Seed of phantoms and faults.")
@click.option(
    "--folder", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Where the nights write; 200 MB."
)
@json_option
@click.pass_context
def benchmark_nights(
    context: click.Context,
    nights: int,
    studies: int,
    minutes: float | None,
    seed: int,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Run whole nights of phantoms (ingest, score, list, report, send, watch) on a simulated calendar.

    One night in seven is empty, missed, killed, mostly refused, or without a PACS; the scanner is upgraded after three
    fifths, and retention runs weekly. The exit code is 1 if an alert is missing or nothing caused one, or if the last
    nights take more than one and a half times the processor time of early ones. A night takes 3 seconds of it.
    """
    import math
    from dataclasses import asdict

    from pipeline.stages.reliability.simulated_year import show_year, simulate_year

    year = simulate_year(nights, studies, seed, folder, math.inf if minutes is None else minutes)
    slowdown = year.slowdown()
    if as_json:
        rows = [asdict(one) | {"event": one.event.value} for one in year.nights]
        alerts = {"raised": [asdict(one) for one in year.raised], "missing": year.missing, "surplus": year.surplus}
        print_json(
            {"nights": rows, "alerts": alerts, "upgrade": year.upgrade, "drift": year.drift, "slowdown": slowdown}
        )
    else:
        print_rows(show_year(year), as_json, "No night was run.")
        raised = len(year.raised) - len(year.drift)
        click.echo(
            f"Alerts: {raised} raised, {len(year.missing)} missing, {len(year.surplus)} that nothing had caused."
        )
        click.echo(f"Scanner upgraded before night {year.upgrade + 1}; drift alerts in nights {_plus_one(year.drift)}.")
        click.echo(f"The last nights take {slowdown:.2f} times the processor time of early ones.")
    for key, night in year.missing:
        click.echo(f"Missing: {key} of night {night + 1}", err=True)
    for key, night in year.surplus:
        click.echo(f"Without a cause: {key} of night {night + 1}", err=True)
    if year.missing or year.surplus or slowdown > LARGEST_SLOWDOWN:
        context.exit(1)


def _plus_one(nights: list[int]) -> str:
    return ", ".join(str(night + 1) for night in nights) or "none"

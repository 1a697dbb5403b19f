"""Command `nightread benchmark reliability`: whole nights that are killed, or that a fault befalls."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.output import json_option, print_rows


@click.command(
    "reliability",
    short_help="Kill whole nights, or let a fault befall them, and compare.",
    epilog="""\b
Example:
  nightread benchmark reliability --kills 200
  nightread benchmark reliability --kills 200 --minutes 30 --folder /dev/shm
  nightread benchmark reliability --fault disk-full --fault pacs-gone --nights 10""",
)
@click.option("--kills", type=click.IntRange(min=1), default=20, show_default=True, help="Nights to kill.")
@click.option(
    "--fault",
    "faults",
    multiple=True,
    type=click.Choice(["disk-full", "database-locked", "clock-jumped", "pacs-gone", "mlflow-gone", "prefect-gone"]),
    help="Let this befall nights instead of a kill; may be given more than once.",
)
@click.option("--nights", type=click.IntRange(min=1), default=6, show_default=True, help="Nights per fault.")
@click.option("--minutes", type=click.FloatRange(min=0, min_open=True), help="Begin no night after that time.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the moments.")
@click.option(
    "--folder", type=click.Path(path_type=Path, exists=True, file_okay=False), help="Where the nights write; 30 MB."
)
@json_option
@click.pass_context
def benchmark_reliability(
    context: click.Context,
    kills: int,
    faults: tuple[str, ...],
    nights: int,
    minutes: float | None,
    seed: int,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Kill whole nights of phantoms (SIGKILL) at uniformly random moments, run each again, and compare.

    Catalogue, pixels, heatmaps, MLflow's runs, hash chains and objects for the PACS must be those of a night that
    nobody disturbed; the exit code is 1 if one differs. With --fault, a night must besides end well, or with an error
    of ours and an alert. A night takes 2 to 5 seconds of processor time.
    """
    import math

    if faults:
        _let_befall(context, faults, nights, seed, folder, math.inf if minutes is None else minutes, as_json)
        return
    from pipeline.stages.reliability.killed_nights import measure_kills, show_kills

    done = measure_kills(kills, seed, folder, math.inf if minutes is None else minutes)
    print_rows(show_kills(done), as_json, "No night was killed.")
    for one in done:
        for difference in one.differences:
            click.echo(f"Killed during {one.phase} after {one.seconds:.2f} s: {difference}", err=True)
    if any(one.differences for one in done):
        context.exit(1)


def _let_befall(
    context: click.Context,
    faults: tuple[str, ...],
    nights: int,
    seed: int,
    folder: Path | None,
    minutes: float,
    as_json: bool,
) -> None:
    from pipeline.stages.reliability.faulty_nights import measure_faults, show_faults

    done = measure_faults(faults, nights, seed, folder, minutes)
    print_rows(show_faults(done), as_json, "No night was disturbed.")
    for one in done:
        place = f"{one.fault} at {one.share:.2f} of a night, during {one.phase or 'its end'}"
        if one.failure:
            click.echo(f"{place}: {one.failure[0]}: {one.failure[2]} [{one.state}; {', '.join(one.alerts)}]", err=True)
        for difference in one.differences:
            click.echo(f"{place}: {difference}", err=True)
    if any(one.differences or not one.is_clear for one in done):
        context.exit(1)

"""Command about training: train, from a configuration or by what the scans look like."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.output import find_shipped, json_option, print_json, settings_of

AUTO, AUTO_FILE = Path("auto"), Path("configs/runs/auto.yaml")

set_option = click.option(
    "-s", "--set", "overrides", multiple=True, metavar="A.B=C", help="Override a field of the configuration."
)


@click.command(
    short_help="Learn normality, calibrate, register the model.",
    epilog="""\b
Example:
  nightread train configs/runs/demo-mr.yaml
  nightread train configs/runs/demo-mr.yaml -s method=configs/methods/vae.yaml
  nightread train auto --route phantom-mr --budget 5""",
)
@click.argument("config", type=click.Path(path_type=Path))
@set_option
@click.option("--route", help="Train for this route: short for -s data.route=ROUTE.")
@click.option("--budget", type=float, metavar="MINUTES", help="With auto: most CPU minutes of training [default: 20].")
@click.option("--again", is_flag=True, help="Train again, even with the same configuration and data.")
@json_option
@click.pass_context
def train(
    context: click.Context,
    config: Path,
    overrides: tuple[str, ...],
    route: str | None,
    budget: float | None,
    again: bool,
    as_json: bool,
) -> None:
    """Learn normality from normal scans, calibrate on held-out normals, log and register the model.

    CONFIG is a file, or `auto`: then the scans of the route determine an ensemble, which is printed with its reasons
    before it trains.

    A run without `detection` ends with its model. An interrupted run resumes where it stopped; a finished run with the
    same configuration and data is reused.
    """
    asked = _overrides(config, overrides, route, budget)
    # before the slow imports, so that a mistyped name is reported at once
    file = find_shipped(AUTO_FILE if config == AUTO else config)
    from pipeline.stages.auto.train_auto import train_run
    from pipeline.stages.detect.calibrate import calibrate
    from pipeline.stages.detect.model_report import read_model_report
    from pipeline.stages.run.auto_config import load_run
    from pipeline.training.processes import leads

    settings, quiet = settings_of(context), as_json or not leads()
    say = (lambda text: None) if quiet else click.echo
    trained = train_run(load_run(file, asked), settings, again=again, progress=not quiet, say=say)
    if not leads():
        return
    report = read_model_report(trained) or calibrate(trained, settings)
    if as_json:
        print_json(report.to_json())
        return
    click.echo(report.sentence())


def _overrides(config: Path, overrides: tuple[str, ...], route: str | None, budget: float | None) -> tuple[str, ...]:
    """Return the overrides with those that --route and --budget are short for."""
    chooses = config == AUTO or config.name == AUTO_FILE.name
    if config == AUTO and route is None and not any(one.startswith("data") for one in overrides):
        raise click.UsageError("auto looks at the scans of one route: give it with --route ROUTE.")
    if budget is not None and not chooses:
        raise click.UsageError("--budget is for auto. Other runs have -s training.max_seconds=SECONDS.")
    routes = () if route is None else (f"data.route={route}",)
    budgets = () if budget is None else (f"method.budget_minutes={budget}",)
    return (*overrides, *routes, *budgets)

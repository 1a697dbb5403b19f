"""Commands about models: train, score, evaluate, nightly, benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipeline.cli.output import json_option, print_json, print_rows, progress_bar, settings_of, use_workspace

set_option = click.option(
    "-s", "--set", "overrides", multiple=True, metavar="A.B=C", help="Override a field of the configuration."
)


@click.command(
    epilog="""\b
Example:
  nightread train configs/runs/demo-ct.yaml
  nightread train configs/runs/lgg.yaml -s method.name=vae -s training.images=20000"""
)
@click.argument("config", type=click.Path(path_type=Path))
@set_option
@click.option("--again", is_flag=True, help="Train anew even if the same configuration was trained on the same data.")
@json_option
@click.pass_context
def train(context: click.Context, config: Path, overrides: tuple[str, ...], again: bool, as_json: bool) -> None:
    """Learn normality from normal scans, calibrate on held-out normals, log and register the model.

    A run that was stopped goes on where it was; one that is done with the same configuration and data is reused.
    """
    from pipeline.config import load_config
    from pipeline.stages.calibrate import calibrate
    from pipeline.stages.config import RunConfig
    from pipeline.stages.train import train as run

    settings = settings_of(context)
    trained = run(load_config(config, RunConfig, overrides), settings, again=again, progress=not as_json)
    report = calibrate(trained, settings)
    if as_json:
        print_json(report.to_json())
        return
    click.echo(report.sentence())


@click.command(epilog="Example: nightread score --route phantom-ct")
@click.option("--route", help="Only this route; default every route that has a champion.")
@click.option("--run", "run_id", help="Use the detector of this training run instead of the champion.")
@click.option("--again", is_flag=True, help="Score also studies that this model has scored already.")
@json_option
@click.pass_context
def score(context: click.Context, route: str | None, run_id: str | None, again: bool, as_json: bool) -> None:
    """Score the studies that have no finding of the current model yet, and flag the unusual ones."""
    from pipeline.stages.score import detectors_to_run
    from pipeline.stages.score import score as run

    settings = settings_of(context)
    reports = []
    for trained in detectors_to_run(settings, route, run_id):
        with progress_bar("Scoring", quiet=as_json) as update:
            reports.append(run(trained, settings, again=again, on_progress=update).to_json())
    print_rows(reports, as_json, "No model is registered for any route. Train one: nightread train CONFIG")


@click.command(
    epilog="""\b
Example:
  nightread evaluate                    (the labelled develop set, as often as you like)
  nightread evaluate --open-test "final table of the frozen choice" """
)
@click.option("--route", help="Only this route.")
@click.option("--run", "run_id", help="Evaluate this training run instead of the champion.")
@click.option(
    "--open-test", "purpose", help="Read the test set, for this stated purpose; every opening is recorded and printed."
)
@json_option
@click.pass_context
def evaluate(context: click.Context, route: str | None, run_id: str | None, purpose: str | None, as_json: bool) -> None:
    """Measure detectors on labelled scans: AUROC, AP, Dice with intervals, beside the trivial controls."""
    from pipeline.stages.evaluate import evaluate as run
    from pipeline.stages.score import detectors_to_run

    settings = settings_of(context)
    reports = [run(trained, settings, open_test=purpose) for trained in detectors_to_run(settings, route, run_id)]
    if as_json:
        print_json([report.to_json() for report in reports])
        return
    for report in reports:
        click.echo(report.to_markdown())
    if not reports:
        click.echo("No model is registered for any route. Train one: nightread train CONFIG")


@click.command(epilog="Example: nightread nightly /data/inbox --config configs/runs/demo-ct.yaml")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-c", "--config", "configs", multiple=True, type=click.Path(path_type=Path), help="Run configurations, one a route."
)
@click.option(
    "-l", "--labels", multiple=True, type=click.Path(path_type=Path), help="Label files to import after the ingest."
)
@json_option
@click.pass_context
def nightly(
    context: click.Context, paths: tuple[Path, ...], configs: tuple[Path, ...], labels: tuple[Path, ...], as_json: bool
) -> None:
    """Run the whole night once, as a Prefect flow: ingest, train if needed, calibrate, score, evaluate, list."""
    settings = settings_of(context)
    use_workspace(settings)
    from flows.nightly import run_nightly

    absolute = [str(path.absolute()) for path in labels]
    result: dict[str, Any] = run_nightly(
        [str(path.absolute()) for path in paths],
        [str(path.absolute()) for path in configs],
        absolute,
        str(settings.workspace),
    )
    if as_json:
        print_json(result)
        return
    click.echo(result["markdown"])


@click.group()
def benchmark() -> None:
    """Measure speed against bare loops, as ratios within one run."""


@benchmark.command("speed", epilog="Example: nightread benchmark speed --files 1000 --json")
@click.option("--files", default=1000, show_default=True, help="Phantom files of the ingest comparison.")
@click.option("--images", default=1024, show_default=True, help="Images of the training and scoring comparison.")
@json_option
def benchmark_speed(files: int, images: int, as_json: bool) -> None:
    """Compare ingest, training and scoring with bare loops over the same data."""
    from pipeline.stages.speed import speed

    print_rows(speed(files, images), as_json, "Nothing was measured.")

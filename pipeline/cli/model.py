"""Commands about models: score, evaluate, nightly, benchmark."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from pipeline.cli.benchmark import (
    FileGroup,
    benchmark_anomalib,
    benchmark_diffusion,
    benchmark_drift,
    benchmark_groups,
    benchmark_modes,
    benchmark_retrieval,
    benchmark_run,
)
from pipeline.cli.output import (
    find_shipped,
    json_option,
    print_json,
    print_markdown,
    print_rows,
    progress_bar,
    settings_of,
    use_workspace,
)
from pipeline.cli.reliability import benchmark_reliability
from pipeline.cli.simulated_nights import benchmark_nights
from pipeline.errors import DEBUG, ArtefactError, to_own_error

if TYPE_CHECKING:
    from pipeline.stages.run.score_slices import OnProgress
    from pipeline.types import RunRef

Report = TypeVar("Report")


@click.command(
    short_help="Score new studies and flag the unusual ones.", epilog="Example: nightread score --route phantom-ct"
)
@click.option("--route", help="Only this route [default: every route that has a champion].")
@click.option("--run", "run_id", help="Use the detector of this training run instead of the champion.")
@click.option("--again", is_flag=True, help="Also score studies that this model has already scored.")
@click.option(
    "--exported",
    type=click.Path(path_type=Path),
    help="Compute the scores with this export (nightread export) of the detector; needs --route or --run.",
)
@json_option
@click.pass_context
def score(
    context: click.Context, route: str | None, run_id: str | None, again: bool, exported: Path | None, as_json: bool
) -> None:
    """Score unlabelled studies that the current model has not scored yet, and flag the unusual ones.

    A detector that cannot be used is reported and does not stop the others; the exit code then reports the failure.
    """
    from pipeline.stages.detect.score import find_detectors_to_run
    from pipeline.stages.detect.score import score as run
    from pipeline.stages.operations.night_report import count_without_model, in_words

    if exported is not None and route is None and run_id is None:
        raise click.UsageError("An export is of one detector; name its route or run with --route or --run.")
    settings = settings_of(context)
    detectors = _some(find_detectors_to_run(settings, route, run_id), route)
    reports, code = _each(
        detectors, "Scoring", as_json, lambda one, update: run(one, settings, again, update, exported)
    )
    if as_json:
        print_json([report.to_json() for report in reports])
        context.exit(code)
    for report in reports:
        click.echo(report.sentence())
    if route is None and run_id is None and (waiting := in_words(count_without_model(settings))):
        click.echo(waiting)
    if reports:
        click.echo("See the list with nightread flagged")
    context.exit(code)


def _each(
    detectors: list[RunRef], label: str, quiet: bool, work: Callable[[RunRef, OnProgress], Report]
) -> tuple[list[Report], int]:
    """Do the work for each detector; return the reports and the exit code of the first failure, 0 if all succeeded."""
    reports, code = [], 0
    for detector in detectors:
        try:
            with progress_bar(label, quiet=quiet, unit="slices") as update:
                reports.append(work(detector, update))
        except Exception as error:
            if os.environ.get(DEBUG):
                raise
            failure = to_own_error(error, Path(detector.path).parents[1])  # <workspace>/runs/<run>
            click.echo(f"Error: {Path(detector.path).name}: {failure}", err=True)
            code = code or failure.exit_code
    return reports, code


def _some(detectors: list[RunRef], route: str | None) -> list[RunRef]:
    """Return the detectors; raise an error if the list is empty."""
    if detectors:
        return detectors
    which = "No route has a model" if route is None else f"The route {route!r} has no model"
    raise ArtefactError(f"{which} yet. Train one with nightread train CONFIG, or list the runs with nightread runs")


@click.command(
    short_help="Measure models on labelled scans.",
    epilog="""\b
Example:
  nightread evaluate                    (on the labelled develop set, as often as you like)
  nightread evaluate --prospective      (the model in use, from the readers' decisions)
  nightread evaluate --open-test "final table of the frozen choice" """,
)
@click.option("--route", help="Only this route.")
@click.option("--run", "run_id", help="Evaluate this training run instead of the champion.")
@click.option(
    "--open-test", "purpose", help="Open the test set for this stated purpose; every opening is recorded and printed."
)
@click.option("--prospective", is_flag=True, help="Report rates of the model in use from the readers' decisions.")
@json_option
@click.pass_context
def evaluate(
    context: click.Context,
    route: str | None,
    run_id: str | None,
    purpose: str | None,
    prospective: bool,
    as_json: bool,
) -> None:
    """Evaluate detectors on labelled scans: AUROC, AP and Dice with intervals, beside the trivial controls.

    With --prospective, it uses the scans that readers have decided. A detector that cannot be used is reported and does
    not stop the others; the exit code then reports the failure.
    """
    from pipeline.stages.detect.evaluate import evaluate as run
    from pipeline.stages.detect.prospective import estimate_prospective as run_in_use
    from pipeline.stages.detect.score import find_detectors_to_run

    if prospective and purpose is not None:
        raise click.UsageError("--prospective does not read the test set; leave out --open-test.")
    settings = settings_of(context)
    detectors = _some(find_detectors_to_run(settings, route, run_id), route)
    reports, code = _each(
        detectors,
        "Evaluating",
        as_json or prospective,
        lambda one, update: run_in_use(one, settings) if prospective else run(one, settings, purpose, update),
    )
    if as_json:
        print_json([report.model_dump(mode="json") for report in reports])
    else:
        for report in reports:
            print_markdown(report.to_markdown())
    context.exit(code)


@click.command(
    short_help="Run the whole night once.",
    epilog="Example: nightread nightly /data/inbox --config configs/runs/demo-mr.yaml",
)
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-c",
    "--config",
    "configs",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Run configurations, one per route.",
)
@click.option(
    "-l", "--labels", multiple=True, type=click.Path(path_type=Path), help="Label files to import after the ingest."
)
@click.option(
    "--date", "day", type=click.DateTime(["%Y-%m-%d"]), help="Make up for the missed night of this day (YYYY-MM-DD)."
)
@json_option
@click.pass_context
def nightly(
    context: click.Context,
    paths: tuple[Path, ...],
    configs: tuple[Path, ...],
    labels: tuple[Path, ...],
    day: datetime | None,
    as_json: bool,
) -> None:
    """Run the whole night once, as a Prefect flow: ingest, train if needed, calibrate, score, evaluate, list.

    Every night reads what earlier ones left, so one run makes up for all missed ones; --date tells the watch. Without
    PATHS and --config, the folders and configurations are those of the schedule that was served last.

    No server has to be started first. A failing part is reported and does not stop the rest; the exit code is then 1.
    """
    settings, files = settings_of(context), [str(find_shipped(path).absolute()) for path in configs]
    use_workspace(settings)
    from flows.nightly import run_nightly

    result = run_nightly(
        [str(path.absolute()) for path in paths],
        files,
        [str(path.absolute()) for path in labels],
        str(settings.workspace),
        day=f"{day:%Y-%m-%d}" if day else "",
    )
    if as_json:
        print_json(result)
    else:
        print_markdown(result["markdown"])
    if result["failures"]:
        context.exit(1)


@click.group(
    cls=FileGroup,
    short_help="Compare methods x scores x seeds, or measure speed.",
    epilog="""\b
Example:
  nightread benchmark configs/benchmarks/demo-mr.yaml --workers 2
  nightread benchmark speed --files 1000""",
)
def benchmark() -> None:
    """Compare methods, scores and seeds: `nightread benchmark FILE` is short for `nightread benchmark run FILE`.

    `speed` measures speed against bare loops, `diffusion` the cost of a diffusion model, `anomalib` both programs side
    by side: ratios within one run. `modes` counts how many of 25 Gaussians GANs find. `drift` simulates years.
    """


benchmark.add_command(benchmark_run)
benchmark.add_command(benchmark_diffusion)
benchmark.add_command(benchmark_anomalib)
benchmark.add_command(benchmark_modes)
benchmark.add_command(benchmark_retrieval)
benchmark.add_command(benchmark_drift)
benchmark.add_command(benchmark_reliability)
benchmark.add_command(benchmark_nights)
benchmark.add_command(benchmark_groups)


@benchmark.command(
    "speed",
    epilog="""\b
Example:
  nightread benchmark speed --files 2000 --json
  nightread benchmark speed --memory    (some minutes more: ingests 11 000 instances)""",
)
@click.option("--files", default=2000, show_default=True, help="Phantom files of the ingest comparison.")
@click.option("--images", default=1024, show_default=True, help="Images of the training and scoring comparison.")
@click.option("--scans", default=100, show_default=True, help="Scans to measure the flow's overhead; 0 skips it.")
@click.option("--memory", is_flag=True, help="Also compare the peak memory of ingesting 10 000 instances and 1000.")
@json_option
def benchmark_speed(files: int, images: int, scans: int, memory: bool, as_json: bool) -> None:
    """Compare ingest, training and scoring with bare loops over the same data, and the flow with its stages alone.

    A ratio above 1 means that Nightread is faster or needs less memory. Training of large networks is also compared
    with the machine's fastest matrix product or convolution: that ratio is the share of the peak.
    """
    from pipeline.stages.speed.ingest_train_score import speed

    rows = speed(files, images)
    if scans:
        from flows.overhead import measure_overhead

        rows += measure_overhead(scans)
    if memory:
        from pipeline.stages.speed.memory import measure_memory

        rows += measure_memory()
    print_rows(rows, as_json, "Nothing was measured.")

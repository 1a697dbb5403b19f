"""`nightread benchmark FILE`: methods x scores x seeds, through the Prefect flow."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from pipeline.cli.output import (
    find_shipped,
    json_option,
    print_json,
    print_markdown,
    print_rows,
    settings_of,
    use_workspace,
)


class FileGroup(click.Group):
    """Group whose first argument may be a file: `nightread benchmark FILE` means `nightread benchmark run FILE`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Insert `run` before a first argument that is not a command but ends like a configuration file."""
        is_command = args[0] in self.commands
        return super().resolve_command(
            ctx, args if is_command or not args[0].endswith((".yaml", ".yml")) else ["run", *args]
        )


@click.command(
    "run",
    short_help="Compare methods x scores x seeds.",
    epilog="""\b
Example:
  nightread benchmark run configs/benchmarks/demo-mr.yaml --workers 2
  nightread benchmark run configs/benchmarks/demo-mr.yaml --open-test "final table" """,
)
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--workers", default=1, show_default=True, help="Models trained at the same time, each in its own process."
)
@click.option(
    "--open-test",
    "purpose",
    help="Evaluate the configuration chosen on develop on test, for this stated purpose; the choice is then frozen.",
)
@json_option
@click.pass_context
def benchmark_run(context: click.Context, config: Path, workers: int, purpose: str | None, as_json: bool) -> None:
    """Train, calibrate and evaluate every unfinished cell, then write the table, the figures and leaderboard.md.

    Finished cells are never computed again, and interrupted ones are resumed. A cell that fails says why in the table
    and does not stop the others; the exit code is then 1. Every choice is made on develop. If the file has `folds`,
    every patient outside test is held out once, and the results are means over the folds.
    """
    settings, file = settings_of(context), find_shipped(config)
    use_workspace(settings)
    from pipeline.stages.benchmark.config import Benchmark

    Benchmark.read(file).check_purpose(purpose)  # report an impossible request before Prefect starts
    from flows.benchmark import run_benchmark

    typed = f"nightread benchmark {config}" + (f" --open-test {shlex.quote(purpose)}" if purpose else "")
    report = run_benchmark(str(file.absolute()), str(settings.workspace), typed, purpose, workers)
    if as_json:
        print_json(report)
    else:
        print_markdown(report["markdown"])
        click.echo(f"Table, figures and cells: {report['folder']}")
    if report["failures"]:
        context.exit(1)


@click.command(
    "diffusion",
    short_help="Measure the cost of scoring by diffusion and what reduces it.",
    epilog="""\b
Example:
  nightread benchmark diffusion lgg-flair-ddpm-0123456789ab --images 16 --json""",
)
@click.argument("run")
@click.option(
    "--images", default=16, show_default=True, help="Normals of the validate set that are scored in one batch."
)
@click.option("--rounds", default=3, show_default=True, help="Number of rounds; the median is reported.")
@click.option(
    "--compiled", is_flag=True, help="Also measure torch.compile: this needs a C++ compiler and some minutes."
)
@json_option
@click.pass_context
def benchmark_diffusion(
    context: click.Context, run: str, images: int, rounds: int, compiled: bool, as_json: bool
) -> None:
    """Compare ways to score with a trained DDPM against one forward pass: few steps, one batch, bf16, early exit."""
    from pipeline.stages.speed.diffusion import measure_diffusion_speed

    rows = measure_diffusion_speed(settings_of(context), run, images, rounds, compiled)
    print_rows(rows, as_json, "Nothing was measured.")


@click.command(
    "anomalib",
    short_help="Measure speed and AUROC beside anomalib's.",
    epilog="""\b
Example:
  python -m venv v && v/bin/pip install anomalib
  nightread benchmark anomalib lgg-flair-gated_dae-0123456789ab --python v/bin/python""",
)
@click.argument("runs", nargs=-1, required=True)
@click.option(
    "--python",
    required=True,
    type=click.Path(path_type=Path),
    help="Python of an environment with anomalib 2.7, which cannot be installed beside Nightread.",
)
@click.option(
    "--model",
    "models",
    multiple=True,
    default=("patchcore", "padim"),
    show_default=True,
    type=click.Choice(("patchcore", "padim", "stfpm")),
    help="anomalib's model; repeat it for several.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Passes over the scans; the median is reported.",
)
@json_option
@click.pass_context
def benchmark_anomalib(
    context: click.Context, runs: tuple[str, ...], python: Path, models: tuple[str, ...], rounds: int, as_json: bool
) -> None:
    """Score the labelled slices of develop with calibrated RUNS and with anomalib, on one thread: speed and AUROC of
    each.

    anomalib's models learn from the same normals as the runs, which must share them, on the backbone EfficientNet-lite0
    with the weights that Nightread uses. "With its pictures" is anomalib's default: it draws every scan.
    """
    from pipeline.stages.speed.side_by_side import measure_beside_anomalib

    rows = measure_beside_anomalib(settings_of(context), runs, python, models, rounds)
    print_rows(rows, as_json, "Nothing was measured.")


@click.command(
    "modes",
    short_help="Count how many of 25 Gaussian modes each GAN finds.",
    epilog="""\b
Example:
  nightread benchmark modes --seeds 1 --points 200000""",
)
@click.option("--points", type=click.IntRange(min=1), default=2_000_000, show_default=True, help="Points to train on.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True, help="Trainings of each GAN.")
@json_option
def benchmark_modes(points: int, seeds: int, as_json: bool) -> None:
    """Train each GAN on 25 Gaussians in the plane; count the modes that it finds and the samples near one.

    The losses, alternation and optimisers are those of the methods; only the networks are small.
    Two million points take each of the five about two CPU minutes.
    """
    from dataclasses import asdict

    from pipeline.stages.benchmark.mode_grid import measure_modes

    print_rows([asdict(row) for row in measure_modes(points, range(seeds))], as_json, "Nothing was measured.")


@click.command(
    "retrieval",
    short_help="Measure an index of a million synthetic codes.",
    epilog="""\b
Example:
  nightread benchmark retrieval --codes 100000 --kind ivf_pq""",
)
@click.option("--codes", type=click.IntRange(min=10_000), default=1_000_000, show_default=True, help="Codes to index.")
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    default=("ivf_pq", "hnsw"),
    show_default=True,
    type=click.Choice(("exact", "ivf_pq", "hnsw")),
    help="How the index is searched; repeat it for several.",
)
@json_option
def benchmark_retrieval(codes: int, kinds: tuple[str, ...], as_json: bool) -> None:
    """Build an index over synthetic codes of 64 numbers, and query it one by one.

    The table has the build time and its peak memory, the memory of an open index, the milliseconds per query, and
    recall@10 against exact search. A graph of a million codes takes some minutes to build.
    """
    from pipeline.stages.speed.million_codes import measure_codes

    print_rows(measure_codes(codes, kinds), as_json, "Nothing was measured.")


@click.command(
    "drift",
    short_help="Simulate years of nights, and compare tests of drift.",
    epilog="""\b
Example:
  nightread benchmark drift --years 50""",
)
@click.option("--years", type=click.IntRange(min=1), default=200, show_default=True, help="Years of each scenario.")
@click.option("--scans", type=click.IntRange(min=1), default=10, show_default=True, help="Scans per night.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the years.")
@json_option
def benchmark_drift(years: int, scans: int, seed: int, as_json: bool) -> None:
    """Compare tests of drift on simulated years: false alarms, and the delay after a change.

    The years have a scanner upgrade, a change of one protocol, a slow gain drift, a seasonal case mix, or no change.
    Conformal martingale and CUSUM are compared with fixed windows. 200 years of 10 scans per night take about two
    minutes.
    """
    from dataclasses import asdict

    from pipeline.stages.benchmark.drift_years import measure_drift, show_drift_table

    rows = measure_drift(years, scans, seed)
    print_rows([asdict(row) for row in rows] if as_json else show_drift_table(rows), as_json, "Nothing was measured.")


@click.command(
    "groups",
    short_help="Count false alarms of each scanner with the pooled threshold and its own.",
    epilog="""\b
Example:
  nightread benchmark groups --patients 1500""",
)
@click.option("--patients", type=click.IntRange(min=100), default=1500, show_default=True, help="Calibration normals.")
@click.option("--fresh", type=click.IntRange(min=100), default=3000, show_default=True, help="Fresh normals to test.")
@click.option(
    "--alpha", type=click.FloatRange(0.001, 0.5), default=0.05, show_default=True, help="Promised false-positive rate."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of the phantom patients.")
@json_option
def benchmark_groups(patients: int, fresh: int, alpha: float, seed: int, as_json: bool) -> None:
    """Count each scanner's false alarms on normal CT phantoms, with 95 % intervals: pooled threshold, and its own.

    With the defaults this takes about a minute.
    """
    from dataclasses import asdict

    from pipeline.stages.benchmark.group_rates import measure_group_rates, show_group_rates

    rows = measure_group_rates(patients, fresh, alpha, seed)
    print_rows([asdict(row) for row in rows] if as_json else show_group_rates(rows), as_json, "Nothing was measured.")

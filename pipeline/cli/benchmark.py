"""`nightread benchmark FILE`: methods x scores x seeds, through the Prefect flow."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from pipeline.cli.output import json_option, print_json, print_markdown, print_rows, settings_of, shipped, use_workspace


class FileGroup(click.Group):
    """A group whose first argument may be a file: `nightread benchmark FILE` means `nightread benchmark run FILE`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Put `run` before what is no command's name and ends like a configuration."""
        known = args[0] in self.commands
        return super().resolve_command(
            ctx, args if known or not args[0].endswith((".yaml", ".yml")) else ["run", *args]
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
@click.option("--workers", default=1, show_default=True, help="Models trained at once, each in a process of its own.")
@click.option(
    "--open-test", "purpose", help="Measure the choice of develop on test, for this stated purpose; it is then frozen."
)
@json_option
@click.pass_context
def benchmark_run(context: click.Context, config: Path, workers: int, purpose: str | None, as_json: bool) -> None:
    """Train, calibrate and measure every cell that is not done, then write the table, the figures and leaderboard.md.

    What is done is never done again, and what was stopped goes on. A cell that fails says why in the table and stops
    nothing else; the exit code is then 1. Every choice is made on develop. With `folds` in the file every patient
    outside test is held out once, and figures are means over the folds.
    """
    settings, file = settings_of(context), shipped(config)
    use_workspace(settings)
    from pipeline.stages.benchmark.config import Benchmark

    Benchmark.read(file).check_purpose(purpose)  # what cannot be is told before Prefect starts
    from flows.benchmark import run_benchmark

    told = f"nightread benchmark {config}" + (f" --open-test {shlex.quote(purpose)}" if purpose else "")
    report = run_benchmark(str(file.absolute()), str(settings.workspace), told, purpose, workers)
    if as_json:
        print_json(report)
    else:
        print_markdown(report["markdown"])
        click.echo(f"Table, figures and cells: {report['folder']}")
    if report["failures"]:
        context.exit(1)


@click.command(
    "diffusion",
    short_help="What scoring by diffusion costs, and what makes it cheaper.",
    epilog="""\b
Example:
  nightread benchmark diffusion lgg-flair-ddpm-0123456789ab --images 16 --json""",
)
@click.argument("run")
@click.option("--images", default=16, show_default=True, help="Validate normals that are scored at once.")
@click.option("--rounds", default=3, show_default=True, help="Rounds, of which the median counts.")
@click.option("--compiled", is_flag=True, help="Also measure torch.compile: needs a C++ compiler and some minutes.")
@json_option
@click.pass_context
def benchmark_diffusion(
    context: click.Context, run: str, images: int, rounds: int, compiled: bool, as_json: bool
) -> None:
    """Compare ways to score by a trained ddpm with one forward pass: few steps, one batch, bf16, layout, early exit."""
    from pipeline.stages.speed.diffusion import diffusion_speed

    rows = diffusion_speed(settings_of(context), run, images, rounds, compiled)
    print_rows(rows, as_json, "Nothing was measured.")

"""Commands of the generative tasks: run one, compare samplers, list the tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.output import (
    OutputFolder,
    find_shipped,
    json_option,
    print_json,
    print_markdown,
    print_rows,
    progress_bar,
    settings_of,
)
from pipeline.cli.train import set_option

if TYPE_CHECKING:
    from pipeline.stages.generate.task_report import TaskReport


@click.group(
    short_help="Draw new images from a model, and judge them.",
    epilog="""\b
Example:
  nightread generate list
  nightread generate sample configs/tasks/phantom-mr.yaml""",
)
def generate() -> None:
    """Generative tasks: new images from a model, judged against held-out real ones and beside a simple baseline.

    Every image is marked as synthetic. None of them enters a training set unless its configuration asks for it.
    """


config_argument = click.argument("config", type=click.Path(path_type=Path))


def task_command(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command what every task takes: its context, the file CONFIG, overrides, and a choice of JSON."""
    return config_argument(set_option(json_option(click.pass_context(command))))


@generate.command(
    "sample",
    short_help="Draw new images from nothing.",
    epilog="""\b
Example:
  nightread generate sample configs/tasks/phantom-mr.yaml
  nightread generate sample configs/tasks/mednist.yaml -s count=100 --out synthetic""",
)
@config_argument
@set_option
@click.option(
    "--out",
    type=OutputFolder(),
    help="Also write the images into this folder: DICOM marked as synthetic, and a PNG sheet.",
)
@json_option
@click.pass_context
def sample(context: click.Context, config: Path, overrides: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Train the task's model if necessary, draw its images, judge them, and log everything to MLflow.

    An interrupted task continues where it stopped; a finished one is judged again from the same images.
    """
    report = run_kind(context, "sample", config, overrides, as_json)
    if out is None:
        return
    from pipeline.stages.generate.sampling.write_out import write_images

    written = write_images(report.folder, report.drawings[0], out)
    click.echo(f"{written} synthetic images: {out}", err=as_json)


@generate.command(
    "denoise",
    short_help="Remove noise of a stated strength.",
    epilog="""\b
Example:
  nightread generate denoise configs/tasks/phantom-denoise.yaml
  nightread generate denoise configs/tasks/phantom-denoise.yaml -s judge.detector=phantom-mr-dae-0123456789ab""",
)
@task_command
def denoise(context: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Add noise to held-out images, remove it with a model, and compare with simple filters and the originals.

    CONFIG is the file of such a task, or of a task `sample` whose model reconstructs. With `judge.detector`, a
    calibrated run of the same route says whether lesions survive, and whether normal images are flagged more often.
    """
    run_kind(context, "denoise", config, overrides, as_json)


@generate.command(
    "retrieve",
    short_help="Find the most similar training images.",
    epilog="""\b
Example:
  nightread generate retrieve configs/tasks/phantom-retrieve.yaml
  nightread generate retrieve configs/tasks/phantom-retrieve.yaml -s index.kind=hnsw""",
)
@task_command
def retrieve(context: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Bring the indices of similar images up to date, search them with held-out images, and log how well it works.

    CONFIG is the file of such a task, or of a task `sample` whose model has codes. New slices are added to the indices,
    and slices that are gone are removed. The neighbours are never of the query's own patient; pixels and features of a
    frozen network are searched beside the model's codes.
    """
    run_kind(context, "retrieve", config, overrides, as_json)


def run_kind(context: click.Context, kind: str, config: Path, overrides: tuple[str, ...], as_json: bool) -> Any:
    """Run a task of one kind and print its report; return the report."""
    file = find_shipped(config)
    from pipeline.stages.generate.run_task import run_task
    from pipeline.stages.generate.task_config import TASKS, load_task_as

    task: Any = load_task_as(TASKS[kind], file, overrides)
    with _bar_after_training(as_json) as update:
        report: TaskReport = run_task(task, settings_of(context), progress=not as_json, on_progress=update)
    if as_json:
        print_json(report.to_json())
    else:
        print_markdown(report.table)
        click.echo(report.sentence())
    return report


@contextmanager
def _bar_after_training(quiet: bool) -> Iterator[Callable[[int, int | None], None]]:
    """Yield `update` of a bar that appears with its first call, since the training shows one of its own before."""
    started: list[Callable[[int, int | None], None]] = []
    with ExitStack() as stack:

        def update(done: int, total: int | None) -> None:
            if not started:
                started.append(stack.enter_context(progress_bar("Drawing", quiet)))
            started[0](done, total)

        yield update


@generate.command(
    "list", short_help="List the tasks that can be run, and those that were.", epilog="Example: nightread generate list"
)
@json_option
@click.pass_context
def list_tasks(context: click.Context, as_json: bool) -> None:
    """List the shipped tasks with their methods, and what the finished ones of this workspace reached."""
    from pipeline.stages.generate.task_list import list_all_tasks

    print_rows(list_all_tasks(settings_of(context)), as_json, "No task is shipped, and none was run.")


@generate.command(
    "compare",
    short_help="Compare samplers on one task.",
    epilog="""\b
Example:
  nightread generate compare configs/tasks/mednist-samplers.yaml
  nightread generate compare configs/tasks/mednist-samplers.yaml --only pca --only vae""",
)
@config_argument
@click.option("--only", multiple=True, metavar="SAMPLER", help="Run this sampler only; can be repeated.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Samplers to run at once, each in its own process.",
)
@json_option
@click.pass_context
def compare(context: click.Context, config: Path, only: tuple[str, ...], workers: int, as_json: bool) -> None:
    """Train, draw and judge every sampler of CONFIG, then write the table, the curves and leaderboard.md.

    Finished samplers are not trained again, and interrupted ones continue. With --only, the table keeps the rows that
    other samplers reached before on the same images. One that fails says why and does not stop the others; the exit
    code is then 1.
    """
    file = find_shipped(config)
    from pipeline.stages.generate.sampling.compare_samplers import compare_samplers

    say = (lambda text: None) if as_json else click.echo
    report = compare_samplers(file, settings_of(context), progress=not as_json, say=say, only=only, workers=workers)
    if as_json:
        print_json(report.to_json())
    else:
        print_markdown(report.markdown)
        click.echo(f"Table and curves: {report.folder}")
    if report.failures:
        context.exit(1)


@click.command(
    short_help="Write a page with the pictures of all generative tasks.",
    epilog="Example: nightread gallery --out gallery",
)
@click.option(
    "--out",
    type=OutputFolder(),
    default=Path("gallery"),
    show_default=True,
    help="Folder of the page and its pictures.",
)
@json_option
@click.pass_context
def gallery(context: click.Context, out: Path, as_json: bool) -> None:
    """Write one static page with the pictures, tables and verdicts of every finished task of this workspace."""
    from pipeline.stages.generate.gallery import write_gallery

    page = write_gallery(settings_of(context), out)
    if as_json:
        print_json({"page": page})
    else:
        click.echo(f"Gallery: {page}")

"""Commands that choose: compare two runs, try the score grid, choose among checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from pipeline.cli.output import json_option, print_json, print_rows, progress_bar, settings_of

if TYPE_CHECKING:
    from pipeline.stages.choose.grid_search import GridResult

SHOWN = 12  # best cells printed; the file holds all of them


@click.command(
    short_help="Compare the AUROC of two evaluated runs.",
    epilog="""\b
Example:
  nightread compare lgg-flair-dae-1f lgg-flair-ae-37 --central
  nightread compare NEW OLD --non-inferiority 0.03 --alpha 0.025""",
)
@click.argument("first")
@click.argument("second")
@click.option(
    "--set",
    "set_name",
    type=click.Choice(["develop", "test"]),
    default="develop",
    show_default=True,
    help="The set whose stored scores are compared; nothing is scored, and test is not opened.",
)
@click.option("--central", is_flag=True, help="Only the central slices.")
@click.option(
    "--non-inferiority",
    "margin",
    type=float,
    help="Test whether FIRST is non-inferior to SECOND by this margin of AUROC.",
)
@click.option(
    "--alpha", type=float, default=0.025, show_default=True, help="One-sided level of the non-inferiority test."
)
@json_option
@click.pass_context
def compare(
    context: click.Context,
    first: str,
    second: str,
    set_name: Literal["develop", "test"],
    central: bool,
    margin: float | None,
    alpha: float,
    as_json: bool,
) -> None:
    """Compare two runs on the same units: DeLong (one unit per patient) or Obuchowski, and a paired patient
    bootstrap.
    """
    from pipeline.stages.choose.compare_runs import compare_runs

    part: Literal["all", "central"] = "central" if central else "all"
    comparison = compare_runs(
        first, second, settings_of(context), set_name=set_name, part=part, margin=margin, alpha=alpha
    )
    if as_json:
        print_json(comparison.model_dump(mode="json"))
        return
    click.echo(comparison.to_text())


@click.command(
    short_help="Try every score of a trained run on develop.",
    epilog="""\b
Example:
  nightread grid lgg-flair-dae-1f
  nightread grid lgg-flair-dae-1f --criterion pixel_ap --adopt""",
)
@click.argument("run")
@click.option(
    "--criterion",
    type=click.Choice(["auroc_central", "auroc", "pixel_ap", "oracle_dice"]),
    default="auroc_central",
    show_default=True,
    help="Criterion that chooses the best cell.",
)
@click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(["l1", "l2", "signed", "ssim", "perceptual"]),
    help="Only these residuals [default: all but perceptual].",
)
@click.option(
    "--hysteresis",
    "hystereses",
    multiple=True,
    type=click.FloatRange(min=1),
    help="Ratios of hysteresis to try beside the run's own; 1 is off.",
)
@click.option(
    "--adopt",
    is_flag=True,
    help="Turn the best cell into a run of its own: the same weights, calibrated and registered.",
)
@json_option
@click.pass_context
def grid(
    context: click.Context,
    run: str,
    criterion: Literal["auroc_central", "auroc", "pixel_ap", "oracle_dice"],
    kinds: tuple[str, ...],
    hystereses: tuple[float, ...],
    adopt: bool,
    as_json: bool,
) -> None:
    """Try residuals, filters, aggregates and transforms on the develop set, computing each model output once.

    Where series have several slices, each map is tried alone and averaged over adjacent slices. Nothing is trained, and
    test is not read. Writes grid/grid.csv and grid/best.yaml into the run's folder.
    """
    from pipeline.detection.score_grid import GridConfig
    from pipeline.stages.choose.grid_search import search_grid as run_grid
    from pipeline.stages.detect.calibrate import calibrate
    from pipeline.stages.detect.rescore import rescore
    from pipeline.stages.run.run_folder import RunFolder

    settings = settings_of(context)
    folder = RunFolder.find(settings, run)
    trained = folder.read_trained()
    given = {name: values for name, values in (("kinds", kinds), ("hystereses", hystereses)) if values}
    tried = GridConfig.model_validate(given)
    with progress_bar("Trying maps", quiet=as_json) as update:
        result = run_grid(trained, settings, tried, criterion=criterion, on_progress=update)
    adopted = calibrate(rescore(trained, result.best, settings), settings) if adopt else None
    if as_json:
        print_json({**result.to_json(), "adopted": adopted.to_json() if adopted else None})
        return
    _print_grid(result)
    if adopted:
        click.echo(f"{adopted.sentence()} Run: {adopted.run.path.rpartition('/')[2]}")


def _print_grid(result: GridResult) -> None:
    best = result.table.sort_values(result.criterion, ascending=False).head(SHOWN)
    rows: Any = best.astype(object).where(best.notna(), None).to_dict("records")
    print_rows(rows, False, "The grid is empty.", title=f"Best {SHOWN} of {len(result.table)} by {result.criterion}")
    for note in result.notes:
        click.echo(note)
    click.echo(f"\n{result.snippet()}")

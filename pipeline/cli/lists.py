"""Commands that list: flagged findings, runs, and the series of the catalogue."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.output import find_shipped, json_option, print_rows, settings_of

if TYPE_CHECKING:
    from pipeline.config import Settings
    from pipeline.data.catalogue.schema import RunRow

UNSCORED = (
    "No study has been scored yet. Ingest studies that have no label, then run nightread score. Labelled studies are "
    "measured by nightread evaluate"
)


@click.command(short_help="List the flagged scans, most unusual first.", epilog="Example: nightread flagged --json")
@click.option("--run", "run_id", help="Only this scoring run.")
@click.option("--all", "everything", is_flag=True, help="Also list findings that were not flagged.")
@json_option
@click.pass_context
def flagged(context: click.Context, run_id: str | None, everything: bool, as_json: bool) -> None:
    """List the flagged scans, most unusual first; --json adds the score, the rule and the worst slice."""
    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.stages.operations.flagged_list import list_flagged

    with Catalogue.open(settings_of(context)) as catalogue:
        if run_id is not None:
            catalogue.run(run_id)  # an unknown run raises an error rather than giving an empty list
        rows = list_flagged(catalogue, run_id, None if everything else True)
        scored = len(catalogue.list_findings(run_id)) if not rows else 0
    if not as_json:
        rows = [_short(row, everything) for row in rows]
    none = f"None of the {scored} scored studies is flagged. List them all with nightread flagged --all"
    print_rows(rows, as_json, none if scored else UNSCORED)


def _short(row: dict[str, Any], everything: bool) -> dict[str, Any]:
    """Return the columns that fit a terminal of 80 characters; JSON has them all."""
    rank = row["how unusual"].removeprefix("more unusual than ")
    rank = rank.replace("normal slices (no guarantee)", "slices, no guarantee")
    short = {"study": row["study"], "route": row["route"], "more unusual than": rank, "p": row["p"]}
    return short | ({"flag": row["flagged"]} if everything else {})


@click.command(
    short_help="List the series, and why some are not trained on.",
    epilog="""\b
Example:
  nightread series --unused
  nightread series --route mr-brain --config configs/runs/mr-brain.yaml --json""",
)
@click.option("--route", help="Only series that this route reads.")
@click.option("--unused", is_flag=True, help="Only series that no set may use, with the reason.")
@click.option(
    "--config",
    "file",
    type=click.Path(path_type=Path),
    help="Judge geometry and folds as this run does (data.allow_gaps, data.fold ...).",
)
@json_option
@click.pass_context
def series(context: click.Context, route: str | None, unused: bool, file: Path | None, as_json: bool) -> None:
    """List the catalogue series by series, or stack by stack where a series has several.

    The reason says why a series is not used for training. Series that only lack a label are still scored; those that no
    route reads, or whose geometry is refused, are not.
    """
    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.data.sets.series_list import count_causes
    from pipeline.stages.run.preflight import list_as_run

    settings = settings_of(context)
    with Catalogue.open(settings) as catalogue:
        listed = list_as_run(catalogue, settings, None if file is None else find_shipped(file))
    chosen = [one for one in listed if (route is None or one.route == route) and (not unused or one.code)]
    rows = [one.to_json() for one in chosen]
    nothing = "No series is left out." if listed and unused else "No series yet. Read some with nightread ingest FOLDER"
    print_rows(rows if as_json else [_short_series(row, unused) for row in rows], as_json, nothing)
    if not as_json and chosen:
        causes = ", ".join(f"{count} {code}" for code, count in count_causes(chosen).most_common())
        used = sum(bool(one.used) for one in chosen)
        click.echo(f"{len(chosen)} series, {used} of them in a set." + (f" Not used: {causes}." if causes else ""))


def _short_series(row: dict[str, Any], unused: bool) -> dict[str, Any]:
    """Return the columns that fit a terminal; JSON has the whole pseudonyms."""
    short = {"series": row["series_id"][:12], "route": row["route"] or "-", "kind": row["kind"]}
    short |= {"stack": row["stack"], "slices": row["slices"], "label": row["label"], "set": row["set_name"] or "-"}
    return short | {"why not": row["code"]} | ({"reason": row["reason"]} if unused else {})


@click.command(short_help="List runs, and which models are champions.", epilog="Example: nightread runs --kind train")
@click.option("--kind", type=click.Choice(["train", "score", "evaluate", "generate"]), help="Only runs of this kind.")
@json_option
@click.pass_context
def runs(context: click.Context, kind: str | None, as_json: bool) -> None:
    """List training, scoring, evaluation and generation runs, newest first, and which training runs are champions."""
    from pipeline.data.catalogue.catalogue import Catalogue

    settings = settings_of(context)
    with Catalogue.open(settings) as catalogue:
        rows_of_kind = catalogue.list_runs(kind)
    models = _models({run.route for run in rows_of_kind if run.kind == "train"}, settings)
    rows = [_row(run, models, as_json) for run in rows_of_kind]
    print_rows(rows, as_json, "No runs yet. Train a model with nightread train configs/runs/demo-mr.yaml")


def _models(routes: set[str], settings: Settings) -> dict[str, str]:
    """Return run id -> version and aliases, for every model of these routes."""
    if not routes:
        return {}
    from pipeline.tracking.registry import list_registered

    return {run_id: model for route in sorted(routes) for run_id, model in list_registered(settings, route).items()}


def _row(run: RunRow, models: dict[str, str], whole: bool) -> dict[str, Any]:
    """Return one run as a line; `whole` adds what is too long for a screen."""
    shown_counts = ("studies", "flagged", "not_scored", "images_seen")
    summary = [
        f"{run.summary[name]:,} {name.replace('_', ' ')}".replace(",", " ")
        for name in shown_counts
        if name in run.summary
    ]
    forgotten = len(run.summary.get("forgotten") or {})
    summary += [f"learned from {forgotten} erased patient{'s' * (forgotten > 1)}"] if forgotten else []
    summary += ["cut short by its cap"] if run.summary.get("cut_short") else []
    auroc = next((value for name, value in run.summary.items() if name.endswith("/auroc")), None)
    summary += [f"AUROC {auroc:.3f}"] if auroc is not None else []
    return {
        "run": run.run_id,
        "kind": run.kind,
        "route": run.route,
        "state": run.state,
        "started": f"{run.started_at:%Y-%m-%d %H:%M}",
        "model": models.get(run.run_id, "") if run.kind == "train" else "",
        **({"model_sha256": run.summary.get("model_sha256", "")} if whole else {}),
        "summary": ", ".join(summary),
    }

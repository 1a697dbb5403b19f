"""Commands that list: flagged findings and runs."""

from __future__ import annotations

from typing import Any

import click

from pipeline.cli.output import json_option, print_rows, settings_of


@click.command(epilog="Example: nightread flagged --json")
@click.option("--run", "run_id", help="Only this scoring run.")
@click.option("--all", "everything", is_flag=True, help="Also list findings that were not flagged.")
@json_option
@click.pass_context
def flagged(context: click.Context, run_id: str | None, everything: bool, as_json: bool) -> None:
    """List the flagged scans, most unusual first."""
    from pipeline.data.catalogue import Catalogue
    from pipeline.stages.flagged import flagged_rows

    with Catalogue.open(settings_of(context)) as catalogue:
        rows = flagged_rows(catalogue, run_id, None if everything else True)
    print_rows(rows, as_json, "No flagged scans. Score some: nightread score")


@click.command(epilog="Example: nightread runs --kind train")
@click.option("--kind", type=click.Choice(["train", "score", "evaluate"]), help="Only runs of this kind.")
@json_option
@click.pass_context
def runs(context: click.Context, kind: str | None, as_json: bool) -> None:
    """List training, scoring and evaluation runs, newest last."""
    from pipeline.data.catalogue import Catalogue

    with Catalogue.open(settings_of(context)) as catalogue:
        rows = [_row(run) for run in catalogue.runs() if kind in (None, run.kind)]
    print_rows(rows, as_json, "No runs yet. Train a model: nightread train configs/runs/demo-ct.yaml")


def _row(run: Any) -> dict[str, Any]:
    keep = ("auroc", "ap", "studies", "flagged", "images_seen")
    summary = ", ".join(f"{k} {run.summary[k]:.4g}" for k in keep if isinstance(run.summary.get(k), (int, float)))
    return {
        "run": run.run_id,
        "kind": run.kind,
        "route": run.route,
        "state": run.state,
        "started": run.started_at.isoformat(sep=" "),
        "summary": summary,
    }

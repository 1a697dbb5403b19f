"""Commands that change which model the night uses, or refuse to, and list who did: promote, rollback, promotions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.output import find_shipped, json_option, print_json, print_rows, progress_bar, settings_of

if TYPE_CHECKING:
    from pipeline.stages.operations.promotion_move import Approval

approve_option = click.option("--approve", "who", help="Name of the person who approves; recorded for good.")
why_option = click.option("--why", help="The reason, in words; recorded for good.")


@click.command(
    short_help="Judge a run's model at the gates and make it champion.",
    epilog="""\b
Example (the run's id as listed by `nightread runs`, or its beginning):
  nightread promote phantom-mr-dae-1f                                     (measures the gates)
  nightread promote phantom-mr-dae-1f --approve "A. Meyer" --why "new scanner" """,
)
@click.argument("run")
@approve_option
@why_option
@click.option("--gates", type=click.Path(path_type=Path), help="Limits; default: configs/promotion/gates.yaml.")
@click.option("--route", help="The intended route; a run of another one is refused.")
@click.option("--override", is_flag=True, help="Promote although a gate fails; recorded as an override.")
@json_option
@click.pass_context
def promote(
    context: click.Context,
    run: str,
    who: str | None,
    why: str | None,
    gates: Path | None,
    route: str | None,
    override: bool,
    as_json: bool,
) -> None:
    """Compare a training run's model with its route's champion, and make it the champion if all gates are passed.

    Both score the gate set, and the last nights in shadow. A route's first model becomes its champion at once; every
    later one is a challenger until a person approves its promotion.
    """
    from pipeline.stages.operations.promotion import promote_run, read_gates

    limits = read_gates(None if gates is None else find_shipped(gates))
    approval = _approval(who, why)
    with progress_bar("Scoring", quiet=as_json, unit="slices") as update:
        promotion = promote_run(settings_of(context), run, approval, limits, route, override, update)
    if as_json:
        print_json(promotion.to_json())
        return
    for line in [] if promotion.report is None else promotion.report.sentences():
        click.echo(line)
    click.echo(f"{promotion.sentence()} Now: nightread score")


@click.command(
    short_help="Make the previous champion the champion again.",
    epilog='Example: nightread rollback phantom-mr --approve "A. Meyer" --why "flags every scan of scanner 2"',
)
@click.argument("route")
@approve_option
@why_option
@json_option
@click.pass_context
def rollback(context: click.Context, route: str, who: str | None, why: str | None, as_json: bool) -> None:
    """Make the previous champion of a route its champion again; the next night uses it."""
    from pipeline.stages.operations.promotion import rollback as run

    approval = _approval(who, why)
    if approval is None:
        raise click.UsageError("A rollback is recorded: give --approve NAME and --why TEXT.")
    promotion = run(settings_of(context), route, approval)
    if as_json:
        print_json(promotion.to_json())
        return
    click.echo(f"{promotion.sentence()} Now: nightread score")


@click.command(
    short_help="Record that a challenger will not become champion.",
    epilog='Example: nightread refuse phantom-mr-dae-1f --approve "A. Meyer" --why "trained before the new coil"',
)
@click.argument("run")
@approve_option
@why_option
@json_option
@click.pass_context
def refuse(context: click.Context, run: str, who: str | None, why: str | None, as_json: bool) -> None:
    """Record that a challenger will not become champion: who refused it, why, and on which gate report.

    The champion stays. The review app no longer lists the challenger as waiting; nightread promote can still promote
    it.
    """
    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.stages.operations.approvals import refuse as record_refusal

    approval, settings = _approval(who, why), settings_of(context)
    if approval is None:
        raise click.UsageError("A refusal is recorded: give --approve NAME and --why TEXT.")
    with Catalogue.open(settings) as catalogue:
        record = record_refusal(settings, catalogue, run, approval)
    if as_json:
        print_json(record.to_json())
        return
    click.echo(f"{record.champion.run}, version {record.champion.version}, is refused. The champion is as it was.")


@click.command(short_help="List who made which model champion, and why.", epilog="Example: nightread promotions --json")
@click.option("--route", help="Only this route.")
@click.option("--verify", is_flag=True, help="Also check the chain of hashes; the exit code is 13 if it was altered.")
@json_option
@click.pass_context
def promotions(context: click.Context, route: str | None, verify: bool, as_json: bool) -> None:
    """List every promotion and rollback, newest first: who, when, why, and the SHA-256 of the gate report."""
    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.data.catalogue.chain import Chain
    from pipeline.data.catalogue.promotion_records import list_promotions, verify_promotions
    from pipeline.stages.operations.promotion_move import list_outside_moves

    settings = settings_of(context)
    with Catalogue.open(settings) as catalogue:
        records = list_promotions(catalogue, route)
        verdict = verify_promotions(catalogue, Chain.open(settings, catalogue)) if verify else None
        outside = list_outside_moves(settings, catalogue)
    short = [
        {
            "at": f"{one.at:%Y-%m-%d %H:%M}",
            "route": one.route,
            "action": one.action,
            "run": one.champion.run,
            "version": one.champion.version,
            "before": None if one.before is None else one.before.version,
            "who": one.who,
            "why": one.why,
            "report": one.report_sha256[:12] or None,
        }
        for one in records
    ]
    rows = [one.to_json() for one in records] if as_json else short
    print_rows(rows, as_json, "Nobody has promoted a model yet; a route's first model is its champion at once.")
    for sentence in outside:
        click.echo(sentence, err=True)
    if verdict is not None:
        problems = "; ".join(verdict.problems)
        click.echo(problems or f"{verdict.rows} rows, unaltered. Last hash: {verdict.head or 'none'}", err=True)
        context.exit(13 if problems else 0)


@click.command(
    short_help="Train a challenger from newly arrived normals.",
    epilog="Example: nightread retrain configs/runs/mr-brain.yaml --least-new 50",
)
@click.argument("configs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--least-new", type=click.IntRange(min=0), default=20, show_default=True, help="Minimum number of new patients."
)
@click.option("--gates", type=click.Path(path_type=Path), help="Limits; default: configs/promotion/gates.yaml.")
@json_option
@click.pass_context
def retrain(
    context: click.Context, configs: tuple[Path, ...], least_new: int, gates: Path | None, as_json: bool
) -> None:
    """Train, calibrate and judge a challenger for each configuration whose route has enough new normal patients.

    New normals come from imported reports and from readers' decisions on unflagged scans; a dismissed flag does not
    turn a patient into a normal to learn from. Nothing is promoted: a person does that, with nightread promote.
    """
    from pipeline.config import load_config
    from pipeline.stages.operations.promotion import read_gates
    from pipeline.stages.operations.retraining import retrain as run
    from pipeline.stages.run.run_config import RunConfig

    settings, limits = settings_of(context), read_gates(None if gates is None else find_shipped(gates))
    files = [load_config(find_shipped(path), RunConfig) for path in configs]
    reports = [run(config, settings, limits, least_new, progress=not as_json) for config in files]
    if as_json:
        print_json([report.to_json() for report in reports])
        return
    for report in reports:
        click.echo(report.sentence())


def _approval(who: str | None, why: str | None) -> Approval | None:
    from pipeline.stages.operations.promotion_move import Approval

    if who is None and why is None:
        return None
    if who is None or why is None:
        raise click.UsageError("--approve NAME and --why TEXT belong together.")
    return Approval(who, why)

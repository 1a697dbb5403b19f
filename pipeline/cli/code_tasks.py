"""Commands of the tasks that move in the codes of a model, or sort images by them: walk, traverse, edit, codes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pipeline.cli.generate import run_kind, task_command
from pipeline.cli.output import json_option, print_rows, settings_of


@click.command(
    "walk",
    short_help="Walk from one image to another.",
    epilog="""\b
Example:
  nightread generate walk configs/tasks/phantom-walk.yaml
  nightread generate walk configs/tasks/mednist.yaml -s run.method=configs/methods/stylegan2.yaml -s pairs=8""",
)
@task_command
def walk(context: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Draw the steps from one held-out image to another, along the line between their codes, and log them to MLflow.

    CONFIG is the file of a walk, or of a task `sample` whose model has codes. The path length says how evenly the
    images change on the way (arXiv:1812.04948): shorter is smoother.
    """
    run_kind(context, "walk", config, overrides, as_json)


@click.command(
    "traverse",
    short_help="Change one dimension of an image's code at a time.",
    epilog="""\b
Example:
  nightread generate traverse configs/tasks/phantom-traverse.yaml
  nightread generate traverse configs/tasks/mednist.yaml -s "dimensions=[3, 17]" """,
)
@task_command
def traverse(context: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Draw a row of images for each dimension of a code, changing only that one, and log them to MLflow.

    CONFIG is the file of a traversal, or of a task `sample` whose model has codes. With `factors`, the mutual
    information gap (arXiv:1802.04942) says whether each of these attributes has a dimension of its own.
    """
    run_kind(context, "traverse", config, overrides, as_json)


@click.command(
    "edit",
    short_help="Change one attribute of images.",
    epilog="""\b
Example:
  nightread generate edit configs/tasks/phantom-edit.yaml
  nightread generate edit configs/tasks/lgg-edit.yaml -s "attributes=[lesion]" """,
)
@task_command
def edit(context: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Move the codes of held-out images along the direction of an attribute, and log what changed and what did not.

    CONFIG is the file of such a task, or of a task `sample` whose model edits (diff_ae, stylegan2, pca). For `lesion`
    the healthy counterfactual is also judged as a heatmap.
    """
    run_kind(context, "edit", config, overrides, as_json)


@click.command(
    "codes",
    short_help="Compare an infogan's categories with classes.",
    epilog="""\b
Example:
  nightread generate codes wrapped-infogan-0123456789ab --attribute body_part --json""",
)
@click.argument("run")
@click.option(
    "--attribute",
    "attributes",
    multiple=True,
    default=("modality", "body_part"),
    show_default=True,
    type=click.Choice(("modality", "body_part", "view", "sex", "age_band")),
    help="Attribute whose words, together with those of the others, are an image's class; repeat it for several.",
)
@json_option
@click.pass_context
def codes(context: click.Context, run: str, attributes: tuple[Any, ...], as_json: bool) -> None:
    """Sort the images of develop by the categories of RUN, an infogan, and by k-means on pixels and frozen features.

    No label is used to sort; a category is named after the most frequent class of the training images in it. Accuracy
    is the share of images with the class of their category, information the normalised mutual information of both.
    """
    from dataclasses import asdict

    from pipeline.stages.generate.codes.code_classes import measure_code_classes

    rows = measure_code_classes(settings_of(context), run, attributes)
    print_rows([asdict(row) for row in rows], as_json, "Nothing was sorted.")


CODE_TASKS = (walk, traverse, edit, codes)

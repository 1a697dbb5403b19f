"""Commands of the tasks that ask how far answers can be trusted, of the group `generate`."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.generate import run_kind, task_command


@click.command(
    "purify",
    short_help="Purify attacked images, and attack again.",
    epilog="""\b
Example:
  nightread generate purify configs/tasks/phantom-purify.yaml
  nightread generate purify configs/tasks/phantom-purify.yaml -s detector=phantom-mr-dae-0123456789ab""",
)
@task_command
def purify(context: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Attack a classifier and a detector, purify the images with a diffusion model, and log how well both still work.

    CONFIG is the file of such a task, or of a task `sample` whose model is a ddpm or rectified_flow. Every defence is
    measured without an attack, under one that does not know it, and under one that goes through it. A median filter and
    JPEG compression are beside purification. With `detector`, a calibrated run's own score is attacked, too.
    """
    run_kind(context, "purify", config, overrides, as_json)


@click.command(
    "out-of-domain",
    short_help="Check a gate against strangers.",
    epilog="""\b
Example:
  nightread generate out-of-domain configs/tasks/phantom-out-of-domain.yaml""",
)
@task_command
def out_of_domain(context: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Fit a gate for each domain of a route, show it other classes, corrupted and attacked images, and log the result.

    CONFIG is the file of such a task, or of a task `sample` whose model is a ddpm or rectified_flow: the change by its
    purification is a second opinion. The gates are saved in the task's folder, with their thresholds.
    """
    run_kind(context, "out-of-domain", config, overrides, as_json)


@click.command(
    "synthesise-training",
    short_help="Train a detector with synthetic images, too.",
    epilog="""\b
Example:
  nightread generate synthesise-training configs/tasks/phantom-synthesise-training.yaml""",
)
@task_command
def synthesise_training(context: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Train a detector with real images alone, with synthetic normals, synthetic lesions, and both, and compare.

    Each learns from shares of the patients, against plain augmentation at equal CPU time; every patient is held out
    once. The synthetic images are used only in this task, because its configuration says so, and are never ingested.
    """
    run_kind(context, "synthesise-training", config, overrides, as_json)


ROBUSTNESS = (purify, out_of_domain, synthesise_training)

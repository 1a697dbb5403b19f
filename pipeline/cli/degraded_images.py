"""Commands of the tasks whose images have originals: super-resolve, inpaint, outpaint, restore, translate, control."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.generate import run_kind, task_command


@click.command(
    "super-resolve",
    short_help="Enlarge small images.",
    epilog="""\b
Example:
  nightread generate super-resolve configs/tasks/phantom-super-resolve.yaml
  nightread generate super-resolve configs/tasks/phantom-super-resolve.yaml -s "factors=[2]" """,
)
@task_command
def super_resolve(context: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Make held-out images smaller, enlarge them with a model, and compare with bicubic and the originals.

    CONFIG is the file of such a task, or of a task `sample` whose model restores or is a ddpm. With `judge.detector`, a
    calibrated run of the same route says whether lesions survive, and whether the answers show some that are not there.
    """
    run_kind(context, "super-resolve", config, overrides, as_json)


@click.command(
    "inpaint",
    short_help="Fill holes in images.",
    epilog="""\b
Example:
  nightread generate inpaint configs/tasks/phantom-inpaint.yaml
  nightread generate inpaint configs/tasks/phantom-inpaint.yaml -s "masks=[{kind: box, edge: [0.3, 0.3]}]" """,
)
@task_command
def inpaint(context: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Hide parts of held-out images, fill them with a model, and compare with the biharmonic equation.

    Masks are strokes, a box, a border, tiles, or given rectangles. PSNR is computed in the hole, within the body.
    """
    run_kind(context, "inpaint", config, overrides, as_json)


@click.command(
    "outpaint",
    short_help="Continue images beyond their border.",
    epilog="""\b
Example:
  nightread generate outpaint configs/tasks/phantom-outpaint.yaml""",
)
@task_command
def outpaint(context: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Hide the border of held-out images, continue the rest with a model, and compare with the originals."""
    run_kind(context, "outpaint", config, overrides, as_json)


@click.command(
    "restore",
    short_help="Undo blur, noise and missing k-space.",
    epilog="""\b
Example:
  nightread generate restore configs/tasks/phantom-restore.yaml""",
)
@task_command
def restore(context: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Blur held-out images, make them noisy or leave out k-space, restore them, and compare with classical filters.

    Noise is Gaussian, Rician (MR) or Poisson (X-ray, CT); k-space is left out in lines or between spokes. The filters
    are Wiener, Richardson-Lucy, non-local means and total variation, each tuned on training images.
    """
    run_kind(context, "restore", config, overrides, as_json)


@click.command(
    "translate",
    short_help="Turn images of one scanner or modality into another's.",
    epilog="""\b
Example:
  nightread generate translate configs/tasks/phantom-scanners.yaml
  nightread generate translate configs/tasks/phantom-mr-ct.yaml -s judge.detector=phantom-ct-head-dae-0123456789ab""",
)
@task_command
def translate(context: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Translate held-out images to another domain, and compare with the same slices there and with matched histograms.

    The run's `towards` names the second domain. cycle_gan sees only one domain of each patient; methods that restore
    learn from pairs. With `judge.detector`, a calibrated run of the second domain says whether it reads translated
    images of the first domain better than untranslated ones.
    """
    run_kind(context, "translate", config, overrides, as_json)


@click.command(
    "control",
    short_help="Draw images that follow edges or the mask of a lesion.",
    epilog="""\b
Example:
  nightread generate control configs/tasks/phantom-control.yaml
  nightread generate control configs/tasks/phantom-edges.yaml""",
)
@task_command
def control(context: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Draw an image for each held-out mask of a lesion, or for the edges of each held-out image, with a controlnet.

    A segmenter trained on real images checks whether the lesion is in the mask; one trained on the drawn images shows
    what they are worth as training data, compared with flat lesions on normal images.
    """
    run_kind(context, "control", config, overrides, as_json)


RESTORATIONS = (translate, control, super_resolve, inpaint, outpaint, restore)

"""Commands of the tasks of words: text-to-image, personalise."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.generate import run_kind, task_command


@click.command(
    "text-to-image",
    short_help="Draw images from words.",
    epilog="""\b
Example:
  nightread generate text-to-image configs/tasks/phantom-words.yaml
  nightread generate text-to-image configs/tasks/phantom-words.yaml -s each=50 -s "guidance=[2]" """,
)
@task_command
def text_to_image(context: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Draw images from prompts, and judge whether they show what they should.

    A classifier trained only on real images says which words an image shows; its own accuracy is listed too.
    Combinations of words that were left out of the training are drawn too. Each value of `guidance` is a row.
    """
    run_kind(context, "text-to-image", config, overrides, as_json)


@click.command(
    "personalise",
    short_help="Learn a word for one scanner or patient.",
    epilog="""\b
Example:
  nightread generate personalise configs/tasks/phantom-personalise.yaml
  nightread generate personalise configs/tasks/phantom-personalise.yaml -s subject=patient -s images=3""",
)
@task_command
def personalise(context: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Learn a rare word for one scanner or one patient from a few images, and measure whether the word draws them.

    The model first draws images of its own and keeps learning them too, so that other prompts keep their meaning
    (DreamBooth); it is measured with and without them. The task's own model does not change.
    """
    run_kind(context, "personalise", config, overrides, as_json)


WORDS = (text_to_image, personalise)

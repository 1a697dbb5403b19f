"""Commands of the tasks on signals, of the group `generate`: discrete units, and classification by them."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.generate import run_kind, task_command


@click.command(
    "tokenise-signal",
    short_help="Write recordings in discrete units.",
    epilog="""\b
Example:
  nightread generate tokenise-signal configs/tasks/phantom-speech.yaml -s truth=phantoms/truth.csv""",
)
@task_command
def tokenise_signal(context: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Write held-out recordings in the units of a codec, and judge the units beside those of k-means.

    The truth says what each stretch of a recording is. ABX says whether units tell phonemes apart across speakers; bits
    per second, purity, and how much the units reveal about the speaker are listed too. With `method.style`, utterances
    are repeated in another speaker's style.
    """
    run_kind(context, "tokenise-signal", config, overrides, as_json)


@click.command(
    "classify-signal",
    short_help="Classify recordings by their discrete units.",
    epilog="""\b
Example:
  nightread generate classify-signal configs/tasks/phantom-ecg.yaml -s truth=phantoms/truth.csv""",
)
@task_command
def classify_signal(context: click.Context, config: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Pre-train a transformer on the units of recordings, fine-tune it to name what they show, and compare.

    The same transformer from scratch, linear models on frozen units, and the nearest recordings are compared, with a
    share of the labels and with all of them. Whole patients are held out for the test.
    """
    run_kind(context, "classify-signal", config, overrides, as_json)


SIGNALS = (tokenise_signal, classify_signal)

"""The command `export`: a calibrated detector as ONNX networks."""

from __future__ import annotations

from pathlib import Path

import click

from pipeline.cli.output import OutputFolder, json_option, print_json, settings_of


@click.command(
    short_help="Export a calibrated detector to ONNX.",
    epilog="""\b
Example:
  nightread export lgg-flair-gated_dae-1f --out lgg-onnx""",
)
@click.argument("run")
@click.option("--out", required=True, type=OutputFolder(), help="A new or empty folder.")
@click.option("--format", "kind", type=click.Choice(("onnx",)), default="onnx", show_default=True, help="File format.")
@json_option
@click.pass_context
def export(context: click.Context, run: str, out: Path, kind: str, as_json: bool) -> None:
    """Export the calibrated detector of RUN with everything that its score needs, for onnxruntime.

    Nothing is written unless raw scores of held-out normals differ by less than 1e-4 and their p-values are equal.
    """
    from pipeline.stages.detect.export_run import export_run

    report = export_run(run, settings_of(context), out)
    if as_json:
        print_json(report.to_json())
        return
    click.echo(report.sentence())

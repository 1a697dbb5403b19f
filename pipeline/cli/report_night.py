"""`nightread report`: the night as one page of HTML, and as PDF."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import click

from pipeline.cli.output import json_option, print_json, settings_of


@click.command(
    short_help="Write the report of a night as HTML and PDF.",
    epilog="""\b
Example:
  nightread report
  nightread report --date 2026-01-31 --html night.html --pdf night.pdf""",
)
@click.option("--date", "day", type=click.DateTime(["%Y-%m-%d"]), help="Day of the night (UTC) [default: the latest].")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the page into this file.")
@click.option("--pdf", type=click.Path(path_type=Path, dir_okay=False), help="Write the PDF into this file.")
@json_option
@click.pass_context
def report(context: click.Context, day: datetime | None, html: Path | None, pdf: Path | None, as_json: bool) -> None:
    """Write what arrived, was scored and refused, models, drift, alerts, timings and versions of a night into one file.

    Without --html and --pdf, both go into the workspace's reports folder, as at the end of every night. The page loads
    nothing and can be mailed: it names no patient, and leaves out what would tell the result of a scan that is still
    read blind. The PDF needs the extra nightread[pdf].
    """
    from pipeline import durable
    from pipeline.data.catalogue.catalogue import Catalogue
    from pipeline.review.night_document import write_night_document
    from pipeline.review.night_facts import read_night_facts
    from pipeline.review.night_pdf import write_pdf
    from pipeline.review.save_night import save_night

    settings, chosen = settings_of(context), None if day is None else day.date()
    written: dict[str, str] = {}
    if html is None and pdf is None:
        saved = save_night(settings, chosen)
        written = {"html": str(saved.html)} | ({"pdf": str(saved.pdf)} if saved.pdf else {})
        if saved.missing:
            click.echo(f"No PDF: {saved.missing}", err=True)
    else:
        with Catalogue.open(settings) as catalogue:
            page = write_night_document(read_night_facts(catalogue, settings, chosen))
        if html is not None:
            written["html"] = str(durable.write(html, page))
        if pdf is not None:
            written["pdf"] = str(durable.write(pdf, write_pdf(page)))
    if as_json:
        print_json(written)
    else:
        click.echo("\n".join(f"{kind.upper()}: {file}" for kind, file in written.items()))

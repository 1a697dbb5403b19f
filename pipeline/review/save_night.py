"""The report of a night in files, and in MLflow: the page, and the PDF where it can be made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pipeline import durable
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import ConfigError
from pipeline.review.night_document import name_report, write_night_document
from pipeline.review.night_facts import read_night_facts
from pipeline.review.night_pdf import write_pdf
from pipeline.tracking.experiment import NIGHTS, track

FOLDER = "reports"


@dataclass(frozen=True, slots=True)
class SavedNight:
    """Files of a report; `pdf` is None where it cannot be made, and `missing` says what to install."""

    day: date
    html: Path
    pdf: Path | None
    missing: str = ""

    def describe(self) -> str:
        """Return where the report is, in Markdown; paths are relative to the workspace."""
        files = " and ".join(f"`{FOLDER}/{file.name}`" for file in (self.html, self.pdf) if file is not None)
        lines = [
            f"# Report of the night of {self.day}",
            f"In the workspace: {files}.",
            f"In MLflow: experiment `{NIGHTS}`, run `night {self.day}`, under Artifacts.",
            f"In the reading list: *The night*, `/night?day={self.day}`, *Save as*.",
            *([f"There is no PDF. {self.missing}."] if self.missing else []),
        ]
        return "\n\n".join(lines)


def save_night(settings: Settings, day: date | None = None) -> SavedNight:
    """Write the report of a night, or of the latest one, into the workspace's `reports`, in place of an earlier one.

    Raises:
        CatalogueError: the catalogue cannot be read.
        ConfigError: the day has not come yet.
    """
    with Catalogue.open(settings) as catalogue:
        facts = read_night_facts(catalogue, settings, day)
    page, name = write_night_document(facts), name_report(facts.day)
    folder = settings.workspace / FOLDER
    html = durable.write(folder / f"{name}.html", page)
    try:
        pdf = durable.write(folder / f"{name}.pdf", write_pdf(page))
    except ConfigError as error:
        return SavedNight(facts.day, html, None, str(error))
    return SavedNight(facts.day, html, pdf)


def track_night(settings: Settings, saved: SavedNight) -> str:
    """Log a report in MLflow, as the one run of its day in the experiment of nights, and return the run's id.

    Raises:
        ConfigError: the tracking store cannot be opened.
    """
    name, about = f"night {saved.day}", f"Report of the night of {saved.day}: open it in Artifacts."
    with track(settings, NIGHTS, name, system_metrics=False, about=about, one_of_its_name=True) as tracked:
        for file in (saved.html, saved.pdf):
            if file is not None:
                tracked.log_file(file, "report")
        return tracked.run_id

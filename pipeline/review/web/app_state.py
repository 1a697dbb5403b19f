"""State of the web application: the workspace, opened once, with its services and caches."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.templating import Jinja2Templates

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow
from pipeline.data.store.pixel_store import PixelStore
from pipeline.errors import CatalogueError
from pipeline.review.display_frames import Frames
from pipeline.review.lately import Lately
from pipeline.review.looks import Looks
from pipeline.review.services import Review
from pipeline.review.slice_maps import MapMaker
from pipeline.review.stacks import StudyStacks
from pipeline.review.web.config import WebConfig
from pipeline.stages.generate.retrieval import SimilarNormals
from pipeline.stages.operations.model_card import models
from pipeline.tracking.versions import ModelVersions

HERE = Path(__file__).parent
STATIC, TEMPLATES = HERE / "static", HERE / "templates"


@dataclass(frozen=True, slots=True)
class Room:
    """The open workspace and its services; safe to share between threads. Close it, or use it as a context manager."""

    settings: Settings
    config: WebConfig
    catalogue: Catalogue
    review: Review
    stacks: StudyStacks
    frames: Frames
    maps: MapMaker
    similar: SimilarNormals
    versions: ModelVersions
    looks: Looks
    findings: Lately[int, FindingRow]
    names: Lately[str, dict[str, str]]
    templates: Jinja2Templates

    @classmethod
    def open(cls, settings: Settings, config: WebConfig) -> Self:
        """Open a workspace for readers (CatalogueError if its database cannot be opened)."""
        catalogue = Catalogue.open(settings)
        return cls(
            settings,
            config,
            catalogue,
            Review(catalogue, settings),
            StudyStacks(catalogue),
            Frames(PixelStore(settings.store)),
            MapMaker(catalogue, settings),
            SimilarNormals(catalogue, settings),
            ModelVersions(catalogue, settings),
            Looks(),
            Lately(seconds=5.0, most=256),
            Lately(seconds=30.0, most=1),
            _templates(),
        )

    def close(self) -> None:
        """Stop computing and close the database."""
        self.maps.close()
        self.similar.close()
        self.versions.close()
        self.catalogue.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def finding(self, finding_id: int) -> FindingRow:
        """Return a finding of the list, cached for some seconds: requests for pixels need it hundreds of times.

        Raises:
            UnknownFinding: it is not on the list, whether or not such a finding exists.
        """
        return self.findings.get(finding_id, self._finding)

    def model_names(self) -> dict[str, str]:
        """Return the names of all detectors by their SHA-256, cached for half a minute."""
        return self.names.get("", lambda _: {one["sha256"]: one["name"] for one in models(self.catalogue)})

    def _finding(self, finding_id: int) -> FindingRow:
        self.review.worklist.row(finding_id)
        with self.catalogue.reading() as session:
            finding = session.get(FindingRow, finding_id)
        if finding is None:
            raise CatalogueError(f"The finding {finding_id} is no longer in the catalogue. Load the list again.")
        return finding


def _templates() -> Jinja2Templates:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["values"] = lambda mapping: list(mapping.values())
    return Jinja2Templates(env=environment)

"""State of the web application: the workspace, opened once, with its services and caches."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Self

from cachetools import TTLCache, cachedmethod
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.templating import Jinja2Templates

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow
from pipeline.data.store.pixel_store import PixelStore
from pipeline.errors import CatalogueError
from pipeline.review.display_frames import Frames
from pipeline.review.services import Review
from pipeline.review.slice_maps import MapMaker
from pipeline.review.stacks import StudyStacks
from pipeline.review.web.config import WebConfig
from pipeline.stages.generate.retrieval.similar_normals import SimilarNormals
from pipeline.stages.operations.model_card import list_scored_models
from pipeline.tracking.versions import ModelVersions

HERE = Path(__file__).parent
STATIC, TEMPLATES = HERE / "static", HERE / "templates"
LOOK_S, LOOKS = 900.0, 10_000  # one view per reader and scan is noted in a quarter of an hour
FINDING_S, FINDINGS = 5.0, 256
NAMES_S = 30.0
THUMBNAILS = 500


@dataclass(frozen=True)
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
    templates: Jinja2Templates
    looks: TTLCache[tuple[str, int, str], None] = field(default_factory=lambda: TTLCache(LOOKS, LOOK_S))
    open_pages: TTLCache[tuple[str, int, str], None] = field(default_factory=lambda: TTLCache(LOOKS, LOOK_S))
    findings: TTLCache[Hashable, FindingRow] = field(default_factory=lambda: TTLCache(FINDINGS, FINDING_S))
    thumbnails: TTLCache[tuple[str, int], bytes] = field(default_factory=lambda: TTLCache(THUMBNAILS, LOOK_S))
    names: TTLCache[Hashable, dict[str, str]] = field(default_factory=lambda: TTLCache(1, NAMES_S))
    lock: threading.Lock = field(default_factory=threading.Lock)

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

    @cachedmethod(attrgetter("findings"), lock=attrgetter("lock"))
    def read_finding(self, finding_id: int) -> FindingRow:
        """Return a finding of the list, cached for some seconds: requests for pixels need it hundreds of times.

        Raises:
            UnknownFinding: it is not on the list, whether or not such a finding exists.
        """
        self.review.worklist.read_row(finding_id)
        with self.catalogue.reading() as session:
            finding = session.get(FindingRow, finding_id)
        if finding is None:
            raise CatalogueError(f"The finding {finding_id} is no longer in the catalogue. Load the list again.")
        return finding

    @cachedmethod(attrgetter("names"), lock=attrgetter("lock"))
    def model_names(self) -> dict[str, str]:
        """Return the names of all detectors by their SHA-256, as they were at most half a minute ago."""
        return {one["sha256"]: one["name"] for one in list_scored_models(self.catalogue)}

    def note_look(self, name: str, finding_id: int, what: str = "pixels") -> bool:
        """Note that a reader looks at a scan, and return whether it is the first look of this kind within the window.

        Pixels that are fetched without opening the page of the scan count as a view.
        """
        with self.lock:
            new = (name, finding_id, what) not in self.looks
            self.looks[name, finding_id, what] = None  # the window counts from the latest look
        return new

    def note_open(self, name: str, finding_id: int, opening: str) -> None:
        """Note that a reader's page of a scan is open; `opening` is its own name, given when the page was made."""
        with self.lock:
            self.open_pages[name, finding_id, opening] = None

    def note_left(self, name: str, finding_id: int, opening: str) -> bool:
        """Note that a page was left, and return whether the reader has no other page of this scan open.

        A browser says so after it has loaded the next page, which may be the same scan again; a second tab may show it,
        too. A page that was not heard of for a quarter of an hour, or that had no name, counts as closed.
        """
        with self.lock:
            self.open_pages.pop((name, finding_id, opening), None)
            return not opening or not any(key[:2] == (name, finding_id) for key in self.open_pages)


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

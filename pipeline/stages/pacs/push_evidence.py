"""Inputs of a push's objects: the run's texts and thresholds, the original files, heatmaps, a picture."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from PIL import Image

from pipeline import __version__
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.originals import header_of, open_original
from pipeline.data.catalogue.schema import FindingRow, RunRow
from pipeline.detection.facts import DetectorFacts, read_facts
from pipeline.dicom.decode.burned_in import figures_allowed
from pipeline.dicom.decode.physical import to_physical
from pipeline.dicom.export.described import Described, SourceImage, in_unicode
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.intake.sandbox import DecodeWorkers
from pipeline.errors import ArtefactError, EmptySelection, Rejected
from pipeline.evaluation.panels import Panel, draw_panels
from pipeline.stages.operations.flagged_list import in_words
from pipeline.stages.pacs.pixel_outline import pixel_outline
from pipeline.stages.run.run_folder import RunFolder

IMAGES_A_STUDY = 3  # the number that keep their heatmaps
DPI = 120


@dataclass(slots=True, repr=False)
class Evidence:
    """The originals of one finding, the most unusual first, and a picture uint8 [H, W, 3] of them. PHI.

    `study` is the start of the study's pseudonym, for `notes`.
    """

    study: str
    images: list[SourceImage] = field(default_factory=list)
    picture: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)


class Pusher:
    """An opened scoring run, its findings and their original images. A context manager."""

    def __init__(
        self,
        run: RunRow,
        detector: DetectorFacts,
        version: str,
        settings: Settings,
        catalogue: Catalogue,
        crosswalk: Crosswalk,
    ) -> None:
        self._run, self._detector, self._version = run, detector, version
        self._settings, self._catalogue, self._crosswalk = settings, catalogue, crosswalk
        self._folder = RunFolder(settings.absolute(run.folder))
        self._alpha: float | None = None
        self._threshold: float | None = None

    @classmethod
    def open(
        cls, run_id: str, settings: Settings, catalogue: Catalogue, crosswalk: Crosswalk, pixel_alpha: float | None
    ) -> Self:
        """Open a scoring run.

        Raises:
            CatalogueError: the run does not exist. ArtefactError: its detector is missing or altered.
            EmptySelection: it is not a scoring run. ConfigError: the alpha is not one of the calibrated ones.
        """
        run = catalogue.run(run_id)
        if run.kind != "score":
            raise EmptySelection(
                f"The run {run_id} is a {run.kind} run. Choose a scoring run from nightread runs --kind score"
            )
        detector = read_facts(RunFolder(settings.absolute(run.folder)).detector, sha256=run.sha256 or None)
        pusher = cls(
            run,
            detector,
            _version(RunFolder(settings.absolute(run.folder)), run.sha256),
            settings,
            catalogue,
            crosswalk,
        )
        pusher._choose_threshold(pixel_alpha)
        return pusher

    def __enter__(self) -> Self:
        """Start a decode worker for the pictures."""
        self._stack = ExitStack()
        self._workers = self._stack.enter_context(DecodeWorkers(1, self._settings.decode))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _choose_threshold(self, alpha: float | None) -> None:
        outline = pixel_outline(self._detector.calibration, self._folder, alpha)
        if outline is not None:
            self._alpha, self._threshold = outline.alpha, outline.threshold

    def describe(self, finding: FindingRow) -> Described:
        """Return a finding's texts and numbers for its objects."""
        methods = "+".join(self._detector.methods)
        return Described(
            key=f"{finding.run_id}/{finding.model_sha256}/{finding.id}",
            route=finding.route,
            score=finding.score,
            p_value=finding.p_value,
            words=in_words(finding.p_value, finding.n_calibration, finding.guarantee),
            guarantee=finding.guarantee,
            rule=finding.rule,
            model=f"{methods} on {finding.route}",
            version=self._version,
            software=__version__,
            at=finding.scored_at,
            pixel_threshold=self._threshold,
            pixel_alpha=self._alpha,
        )

    @contextmanager
    def read_evidence(self, finding: FindingRow) -> Iterator[Evidence]:
        """Read and draw the originals of a finding; unpacked files exist only within the context.

        Raises:
            Rejected: all original files are missing.
        """
        maps, evidence, panels = self._heatmaps(finding.study_id), Evidence(finding.study_id[:12]), []
        with ExitStack() as files:
            for instance_id, frame in _places(finding, maps):
                try:
                    path = files.enter_context(
                        open_original(instance_id, self._catalogue, self._crosswalk, self._settings.decode)
                    )
                    image = SourceImage(
                        in_unicode(header_of(path, self._settings.decode)), frame, maps.get(f"{instance_id}.{frame}")
                    )
                    evidence.images.append(image)
                    panels += self._panel(path, image, finding, evidence.notes)
                except Rejected as rejected:
                    evidence.notes.append(f"Study {finding.study_id[:12]}: {rejected.sentence}")
                    last = rejected
            if not evidence.images:
                raise last
            evidence.picture = _drawn(panels)
            yield evidence

    def _panel(self, path: Path, image: SourceImage, finding: FindingRow, notes: list[str]) -> list[Panel]:
        """Decode an original for the picture; return [] if the policy on burned-in text forbids it."""
        if image.heatmap is None:
            return []
        decoded = self._workers.read(path)
        if not figures_allowed(decoded.attributes, self._settings.burned_in):
            notes.append(f"Study {finding.study_id[:12]}: no picture, since its pixels may contain text.")
            return []
        pixels = to_physical(decoded.stored, decoded.attributes).pixels[image.frame]
        words = in_words(finding.p_value, finding.n_calibration, finding.guarantee).replace(" than ", "\nthan ")
        heatmap = np.asarray(image.heatmap, dtype=np.float32)
        caption = f"{words}\nscore {finding.score:.4g}\nnot for diagnosis"
        return [Panel(image=pixels, heatmap=heatmap, caption=caption, body=heatmap != 0)]

    def _heatmaps(self, study_id: str) -> dict[str, np.ndarray]:
        """Read the maps stored by scoring, by `instance.frame`; their names may be from before a key rotation."""
        folder = self._folder.path / "heatmaps"
        file = folder / f"{study_id}.npz"
        if not file.exists():
            same = (f for f in sorted(folder.glob("*.npz")) if self._crosswalk.current_id(f.stem) == study_id)
            file = next(same, file)
        if not file.exists():
            return {}
        with np.load(file, allow_pickle=False) as arrays:
            return {self._current(name): arrays[name].astype(np.float32) for name in arrays.files}

    def _current(self, name: str) -> str:
        instance_id, _, frame = name.partition(".")
        return f"{self._crosswalk.current_id(instance_id)}.{frame}"


def _places(finding: FindingRow, maps: dict[str, Any]) -> list[tuple[str, int]]:
    """Return the slices to include: those with a map, in the order of their score, else the most unusual ones."""
    places = [(str(item["instance_id"]), int(item["frame"])) for item in finding.evidence]
    mapped = [place for place in places if f"{place[0]}.{place[1]}" in maps]
    return (mapped or places)[:IMAGES_A_STUDY]


def _drawn(panels: Sequence[Panel]) -> np.ndarray | None:
    if not panels:
        return None
    buffer = io.BytesIO()
    draw_panels(panels).savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return np.asarray(Image.open(buffer).convert("RGB"))


def _version(folder: RunFolder, sha256: str) -> str:
    """Return the registered version of a detector, as its calibration noted it: to ask MLflow would take seconds."""
    try:
        noted = folder.read("calibration.json")
    except ArtefactError:
        noted = {}
    number = f"{noted['version']}, " if noted.get("version") and noted.get("sha256") == sha256 else ""
    return f"{number}sha256 {sha256[:12]}"

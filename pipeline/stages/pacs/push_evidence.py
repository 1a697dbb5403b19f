"""Inputs of a push's objects: the run's texts and thresholds, the original files, heatmaps, a picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np

from pipeline import __version__
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.originals import header_of, open_original
from pipeline.data.catalogue.schema import FindingRow, RunRow
from pipeline.data.sets.selection import select_slices
from pipeline.detection.facts import DetectorFacts, read_facts
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.burned_in import figures_allowed
from pipeline.dicom.decode.geometry import Allowed
from pipeline.dicom.decode.physical import for_display, to_physical
from pipeline.dicom.export.described import Described, SourceImage, in_unicode
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.intake.sandbox import DecodeWorkers
from pipeline.errors import ArtefactError, EmptySelection, Rejected
from pipeline.stages.operations.flagged_list import describe_rule, in_words
from pipeline.stages.pacs.finding_picture import Pane, draw_finding
from pipeline.stages.pacs.image_sides import name_of, sides_of
from pipeline.stages.pacs.map_colours import MapColours
from pipeline.stages.pacs.pixel_outline import pixel_outline
from pipeline.stages.run.run_folder import RunFolder
from pipeline.types import SliceRef

IMAGES_A_STUDY = 3  # the number that keep their heatmaps
NAMES = 45  # letters of the methods of an ensemble, at most, as the picture has room for


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
            rule=describe_rule(finding.rule),
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
        maps, evidence, panes = self._heatmaps(finding.study_id), Evidence(finding.study_id[:12]), []
        refs = self._slices(finding.study_id)
        with ExitStack() as files:
            for place in _places(finding, maps):
                try:
                    path = files.enter_context(
                        open_original(place[0], self._catalogue, self._crosswalk, self._settings.decode)
                    )
                    image = self._image(path, place, maps, refs)
                    evidence.images.append(image)
                    panes += self._pane(path, image, evidence)
                except Rejected as rejected:
                    evidence.notes.append(f"Study {finding.study_id[:12]}: {rejected.sentence}")
                    last = rejected
            if not evidence.images:
                raise last
            evidence.picture = self._drawn(panes, finding) if panes else None
            yield evidence

    def _slices(self, study_id: str) -> dict[tuple[str, int], SliceRef]:
        """Return the study's slices with their distances, by instance and frame."""
        chosen = select_slices(self._catalogue, study_ids=[study_id], allowed=Allowed(gaps=True, tilt=True))
        return {(ref.instance_id, ref.frame): ref for ref in chosen.slices}

    def _image(
        self, path: Path, place: tuple[str, int], maps: dict[str, np.ndarray], refs: dict[tuple[str, int], SliceRef]
    ) -> SourceImage:
        ref, header = refs.get(place), in_unicode(header_of(path, self._settings.decode))
        attributes = None if ref is None else InstanceAttributes.from_json(ref.attributes).of_frame(place[1])
        return SourceImage(
            header,
            place[1],
            maps.get(f"{place[0]}.{place[1]}"),
            None if attributes is None else next(iter(attributes.pixel_spacings_mm), attributes.pixel_spacing_mm),
            None if ref is None else ref.slice_mm,
        )

    def _pane(self, path: Path, image: SourceImage, evidence: Evidence) -> list[Pane]:
        """Decode an original for the picture; return [] if the policy on burned-in text forbids it."""
        if image.heatmap is None:
            return []
        decoded = self._workers.read(path)
        if not figures_allowed(decoded.attributes, self._settings.burned_in):
            evidence.notes.append(f"Study {evidence.study}: no picture, since its pixels may contain text.")
            return []
        one = slice(image.frame, image.frame + 1)
        attributes = decoded.attributes.of_frame(image.frame)
        grey = for_display(to_physical(decoded.stored[one], attributes), attributes)[0]
        at_detector = image.spacing_mm is None and attributes.imager_pixel_spacing_mm is not None
        spacing = attributes.imager_pixel_spacing_mm if at_detector else image.spacing_mm
        heatmap = np.asarray(image.heatmap, dtype=np.float32)
        return [Pane(grey, heatmap, name_of(image), sides_of(image, attributes), spacing, at_detector)]

    def _drawn(self, panes: Sequence[Pane], finding: FindingRow) -> np.ndarray:
        calibration = self._detector.calibration
        if calibration is not None and calibration.pixels is not None:
            colours = MapColours.of_normals(calibration.pixels, self._alpha)
        else:
            colours = MapColours.of_study([pane.heatmap for pane in panes])
        p_value = "" if finding.p_value is None else f"p = {finding.p_value:.2g}, "
        words = in_words(finding.p_value, finding.n_calibration, finding.guarantee)
        rule = describe_rule(finding.rule).partition(" (")[0]
        details = f"{p_value}score {finding.score:.4g}, flagged at {rule}; "
        number, _, digest = self._version.rpartition(", ")
        details += f"{_named(self._detector.methods)} on {finding.route}, {f'version {number}' if number else digest}"
        return draw_finding(panes, f"Nightread: {words}", details, colours, self._threshold)

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


def _version(folder: RunFolder, sha256: str) -> str:
    """Return the registered version of a detector, as its calibration noted it: to ask MLflow would take seconds."""
    try:
        noted = folder.read("calibration.json")
    except ArtefactError:
        noted = {}
    number = f"{noted['version']}, " if noted.get("version") and noted.get("sha256") == sha256 else ""
    return f"{number}sha256 {sha256[:12]}"


def _named(methods: Sequence[str]) -> str:
    """Return the names of a detector's methods; of a large ensemble the first, and how many more there are."""
    names = "+".join(methods)
    return names if len(names) <= NAMES else f"{methods[0]} and {len(methods) - 1} others"

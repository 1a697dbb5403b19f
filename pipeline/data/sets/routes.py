"""Routes: which detector, if any, reads a series. A series that no route takes is "not scored", with a reason.

Patterns are shell patterns (`B*`), compared without regard to case. Where a file names no body part or view, an equal
token of its description counts. When several routes take a series, the one with the highest precedence wins, then the
most specific one; two routes that are equal on both are a configuration error, reported when they are loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from itertools import combinations
from math import inf
from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from pipeline.config import Config, load_config
from pipeline.data.sets.series_kind import SeriesKind, kind_of
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.terms import is_body_part, is_view
from pipeline.errors import ConfigError

Patterns = tuple[str, ...]
_CRITERIA = ("body_part", "view", "kernel", "manufacturer", "scanner", "site")


class NotScoredCode(StrEnum):
    """Reason why a series is on no route. The value is stored in the catalogue and is never renamed."""

    LOCALISER = "localiser"
    DOSE_REPORT = "dose-report"
    SECONDARY_CAPTURE = "secondary-capture"
    DERIVED_IMAGE = "derived-image"
    QUALITY_CONTROL = "quality-control-phantom"
    FOR_PROCESSING = "for-processing"
    SPECTRAL_MAP = "spectral-map"
    PHASE_IMAGE = "phase-image"
    QUANTITY_MAP = "quantity-map"
    MOSAIC = "mosaic"
    NOT_HOUNSFIELD = "not-hounsfield"
    MIXED_CONTENT = "mixed-content"
    AMBIGUOUS = "ambiguous-route"
    NO_ROUTE = "no-route"


_KIND_CODES = {
    SeriesKind.LOCALISER: (NotScoredCode.LOCALISER, "The series is a localiser"),
    SeriesKind.DOSE: (NotScoredCode.DOSE_REPORT, "The series is a dose report"),
    SeriesKind.SECONDARY: (NotScoredCode.SECONDARY_CAPTURE, "The series is a secondary capture"),
    SeriesKind.DERIVED: (NotScoredCode.DERIVED_IMAGE, "The series is derived from other images"),
    SeriesKind.PHANTOM: (NotScoredCode.QUALITY_CONTROL, "The series is a quality-control phantom"),
    SeriesKind.FOR_PROCESSING: (NotScoredCode.FOR_PROCESSING, "The series is unprocessed detector data"),
    SeriesKind.MATERIAL: (NotScoredCode.SPECTRAL_MAP, "The series is a material or other map of a spectral CT"),
    SeriesKind.PHASE: (NotScoredCode.PHASE_IMAGE, "The series shows the phase, or another part, of a complex signal"),
    SeriesKind.MAP: (NotScoredCode.QUANTITY_MAP, "The series is a map of a computed quantity"),
    SeriesKind.MOSAIC: (NotScoredCode.MOSAIC, "The images of the series are mosaics of slices"),
    SeriesKind.UNSCALED: (
        NotScoredCode.NOT_HOUNSFIELD,
        "The CT values have no rescale to Hounsfield units, or one that no scanner writes",
    ),
    SeriesKind.MIXED: (NotScoredCode.MIXED_CONTENT, "The series mixes images of different meaning"),
}


@dataclass(frozen=True, slots=True)
class NotScoredReason:
    """The reason why no route takes a series: a stable code, and a sentence without identity."""

    code: str
    sentence: str


class Route(Config):
    """Criteria for the series that a detector reads; all given criteria must hold."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$", description="name of the route, and of its file")
    modality: Patterns = Field(min_length=1, description="DICOM modalities")
    body_part: Patterns = Field((), description="BodyPartExamined")
    view: Patterns = Field((), description="ViewPosition")
    kernel: Patterns = Field((), description="ConvolutionKernel")
    manufacturer: Patterns = Field((), description="Manufacturer")
    scanner: Patterns = Field((), description="ManufacturerModelName")
    site: Patterns = Field((), description="site where the scan was made")
    description: Patterns = Field((), description="tokens that the description must all contain")
    exclude_description: Patterns = Field((), description="tokens of which the description may contain none")
    image_type: Patterns = Field((), description="values that ImageType must all contain")
    exclude_image_type: Patterns = Field((), description="values of which ImageType may contain none")
    min_rows: int = Field(0, ge=0, description="smallest number of Rows")
    max_rows: int | None = Field(None, ge=1, description="largest number of Rows")
    kinds: tuple[SeriesKind, ...] = Field(
        (SeriesKind.PRIMARY,),
        min_length=1,
        description="kinds of series; localisers, dose reports and mixed ones are never read",
    )
    precedence: int = Field(0, description="a route with a higher one wins over all routes with a lower one")

    @field_validator("modality", *_CRITERIA, "description", "exclude_description", "image_type", "exclude_image_type")
    @classmethod
    def _upper(cls, patterns: Patterns) -> Patterns:
        return tuple(pattern.upper() for pattern in patterns)

    @field_validator("body_part", "view")
    @classmethod
    def _recorded(cls, patterns: Patterns, info: ValidationInfo) -> Patterns:
        enters = is_body_part if info.field_name == "body_part" else is_view
        never = [one for one in patterns if not set(one) & set("*?[") and not enters(one)]
        if never:
            raise ValueError(
                f"{', '.join(never)} never matches: the catalogue holds only words of anatomy and projections here, as "
                "another word may be a name. Leave it out, and choose the series by `description`, `scanner` or `site`"
            )
        return patterns

    @field_validator("kinds")
    @classmethod
    def _readable(cls, kinds: tuple[SeriesKind, ...]) -> tuple[SeriesKind, ...]:
        if {SeriesKind.LOCALISER, SeriesKind.DOSE, SeriesKind.MIXED} & set(kinds):
            raise ValueError("no detector reads localisers, dose reports and mixed series: remove them from kinds")
        return kinds

    @property
    def rank(self) -> tuple[int, int]:
        """Precedence, then the number of criteria given."""
        given = sum(bool(getattr(self, name)) for name in (*_CRITERIA, "min_rows", "max_rows"))
        return self.precedence, given + len(self.description) + len(self.image_type)

    def takes(self, attributes: InstanceAttributes, kind: SeriesKind | None = None) -> bool:
        """Return whether this route takes a series with these (shared) attributes; `kind` is theirs, if it is known."""
        return (kind_of(attributes) if kind is None else kind) in self.kinds and self.fits(attributes)

    def fits(self, attributes: InstanceAttributes) -> bool:
        """Return whether all criteria hold, apart from the kind of series."""
        if not (_any((attributes.modality,), self.modality) and self._sized(attributes.rows)):
            return False  # most routes end here
        tokens = _upper_all(attributes.description)
        types = _upper_all(attributes.image_type)
        return (
            all(_any(_values(attributes, name), getattr(self, name)) for name in _CRITERIA if getattr(self, name))
            and all(_any(tokens, (word,)) for word in self.description)
            and all(_any(types, (word,)) for word in self.image_type)
            and not _any(tokens, self.exclude_description)
            and not _any(types, self.exclude_image_type)
        )

    def _sized(self, rows: int) -> bool:
        """Return whether images with this number of rows fit; several sizes (0) only fit without limits."""
        return self.min_rows <= rows and (self.max_rows is None or 0 < rows <= self.max_rows)


def _values(attributes: InstanceAttributes, name: str) -> tuple[str, ...]:
    value = getattr(attributes, name)
    if not value and name in ("body_part", "view"):
        return attributes.description
    return (value,)


def _upper_all(values: Sequence[str]) -> tuple[str, ...]:
    return tuple(value.upper() for value in values)


def _any(values: Sequence[str], patterns: Patterns) -> bool:
    return any(fnmatchcase(value.upper(), pattern) for value in values for pattern in patterns)


def load_routes(folder: str | Path) -> list[Route]:
    """Read every `*.yaml` of a folder; the file's name is the name of the route.

    Raises:
        ConfigError: there are no routes, a file is not valid, or two routes could take the same series equally well.
    """
    files = sorted(Path(folder).glob("*.yaml"))
    if not files:
        raise ConfigError(f"There is no route in {folder}. Add a YAML file per route, as in configs/routes.")
    routes = [load_config(file, Route) for file in files]
    for file, route in zip(files, routes, strict=True):
        if file.stem != route.name:
            raise ConfigError(
                f"The file {file.name} holds the route {route.name!r}. Rename the file to {route.name}.yaml."
            )
    check_unambiguous(routes)
    return routes


def check_unambiguous(routes: Sequence[Route]) -> None:
    """Refuse routes of equal rank if one series could satisfy both.

    Raises:
        ConfigError: with the names of both routes.
    """
    for one, other in combinations(routes, 2):
        if one.name == other.name:
            raise ConfigError(f"Two routes have the name {one.name!r}; names must be unique. Rename one.")
        if one.rank == other.rank and _may_meet(one, other):
            raise _ambiguous(one, other)


def _ambiguous(one: Route, other: Route) -> ConfigError:
    return ConfigError(
        f"The routes {one.name!r} and {other.name!r} can take the same series, and neither is more specific "
        f"({one.rank[1]} criteria each). Make one narrower, or give one a higher `precedence`."
    )


def _may_meet(one: Route, other: Route) -> bool:
    """Return whether some series could fit both; True where the patterns leave it open."""
    shared = (_overlap(getattr(one, name), getattr(other, name)) for name in ("modality", *_CRITERIA))
    excluded = any(_any(one.description, other.exclude_description) for one, other in ((one, other), (other, one)))
    untyped = any(_any(one.image_type, other.exclude_image_type) for one, other in ((one, other), (other, one)))
    sizes = max(one.min_rows, other.min_rows) <= min(one.max_rows or inf, other.max_rows or inf)
    return all(shared) and sizes and bool(set(one.kinds) & set(other.kinds)) and not excluded and not untyped


def _overlap(one: Patterns, other: Patterns) -> bool:
    if not one or not other:
        return True
    return any(_meets(a, b) for a in one for b in other)


def _meets(one: str, other: str) -> bool:
    wild = [any(mark in pattern for mark in "*?[") for pattern in (one, other)]
    if all(wild):
        # Two patterns certainly exclude each other only if their fixed beginnings differ.
        heads = [pattern[: min(pattern.find(mark) for mark in "*?[" if mark in pattern)] for pattern in (one, other)]
        return heads[0].startswith(heads[1]) or heads[1].startswith(heads[0])
    return fnmatchcase(one, other) or fnmatchcase(other, one)


def route_of(attributes: InstanceAttributes, routes: Sequence[Route]) -> Route | NotScoredReason:
    """Return the route that reads a series, or the reason why no route does.

    A series that two routes of equal rank take is not scored. `check_unambiguous` only detects what patterns reveal; a
    description may still name both chest and abdomen, and that must not stop a night.
    """
    kind = kind_of(attributes)  # once: it reads every word of the description, and a site has dozens of routes
    taken = (route for route in routes if route.takes(attributes, kind))
    taking = sorted(taken, key=lambda route: route.rank, reverse=True)
    if not taking:
        return _reason(attributes)
    if len(taking) > 1 and taking[0].rank == taking[1].rank:
        code, names = NotScoredCode.AMBIGUOUS.value, f"{taking[0].name} and {taking[1].name}"
        sentence = f"The routes {names} both take this series ({_shown(attributes)}) equally well. Narrow one of them."
        return NotScoredReason(code, sentence)
    return taking[0]


def _reason(attributes: InstanceAttributes) -> NotScoredReason:
    series, kind = _shown(attributes), kind_of(attributes)
    if kind in _KIND_CODES:
        code, what = _KIND_CODES[kind]
        return NotScoredReason(code.value, f"{what} ({series}), and no route reads those. No action is needed.")
    return NotScoredReason(
        NotScoredCode.NO_ROUTE.value, f"No route takes this series ({series}). Add one to configs/routes if it should."
    )


def _shown(attributes: InstanceAttributes) -> str:
    words = {
        "modality": attributes.modality,
        "body part": attributes.body_part,
        "view": attributes.view,
        "description": " ".join(attributes.description),
    }
    return ", ".join(f"{name} {value or 'not given'}" for name, value in words.items())

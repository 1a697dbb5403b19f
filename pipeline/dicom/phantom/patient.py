"""Phantom patients as arrays: deterministic by seed, and fast enough to make thousands in a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from pipeline.dicom.phantom.abdomen import Abdomen
from pipeline.dicom.phantom.brain import Brain, Rendered
from pipeline.dicom.phantom.breast import Breast, behind
from pipeline.dicom.phantom.chest import Chest
from pipeline.dicom.phantom.drawing import Field
from pipeline.dicom.phantom.phantom_lesions import FULL_CONTRAST, Lesion, LesionKind, apply_lesion, draw_lesion
from pipeline.dicom.phantom.scanner import SCANNERS, Acquisition, PhantomModality, Scanner
from pipeline.dicom.phantom.ultrasound_marks import Callipers, burn_in, choose_callipers, draw_marks
from pipeline.errors import ConfigError

Region = Literal["head", "abdomen", "chest", "breast"]
REGIONS: dict[str, tuple[Region, ...]] = {
    "CT": ("abdomen", "head"), "MR": ("head",), "CR": ("chest",), "DX": ("chest",), "US": ("breast",)
}  # fmt: skip
# part of the axis that a scan covers: single slices are drawn from it, series span all of it
COVERAGE: dict[Region, tuple[float, float]] = {"head": (0.30, 0.72), "abdomen": (0.30, 0.85), "chest": (0.5, 0.5),
                                               "breast": (0.5, 0.5)}  # fmt: skip
HEAD_CT_NOISE = 0.3  # relative to a body scan: heads get more dose, because their tissues differ by only 10 HU
AXIS_MM: dict[Region, float] = {"head": 150.0, "abdomen": 260.0, "chest": 0.0, "breast": 0.0}
FLAT: tuple[Region, ...] = ("chest", "breast")  # one view instead of slices


class Anatomy(Protocol):
    """Anatomy of a person, rendered slice by slice."""

    def facts(self) -> dict[str, float]: ...
    def slice(self, z: float, size: int) -> Rendered: ...


@dataclass(frozen=True, slots=True)
class PhantomPatient:
    """One examination of one phantom patient.

    Attributes:
        stored: integers [F, S, S] as a scanner would store them (MONOCHROME1 scanners store inverted values).
        masks: bool [F, S, S], True where the lesion has at least half of its effect.
        body: bool [F, S, S], True inside the patient.
        marks: float32 [F, S, S] in [0, 1], coverage of what was burned into the pixels (ultrasound only).
        rgb: uint8 [F, S, S, 3], of which `stored` is the luminance; None where the scanner stores grey values.
        facts: known values that the image is drawn from (sizes, contrasts, age factor, noise, gain).
        positions: position of each slice along the patient's axis, 0..1.
    """

    seed: int
    modality: PhantomModality
    region: Region
    stored: np.ndarray
    masks: np.ndarray
    body: np.ndarray
    marks: np.ndarray
    rgb: np.ndarray | None
    scanner: Scanner
    age: int
    sex: Literal["F", "M"]
    facts: dict[str, float]
    positions: tuple[float, ...]
    lesion: Lesion | None

    @property
    def physical(self) -> np.ndarray:
        """float32 [F, S, S] of `stored` in HU (CT) or as stored, with MONOCHROME1 inverted back; padding remains."""
        values = self.stored.astype(np.float32)
        if self.scanner.photometric == "MONOCHROME1":
            values = self.scanner.limits[1] - values
        return values * np.float32(self.scanner.slope) + np.float32(self.scanner.intercept)

    @property
    def pixel_spacing_mm(self) -> float:
        """Side of a pixel."""
        return self.scanner.field_of_view_mm / self.stored.shape[-1]

    @property
    def slice_spacing_mm(self) -> float:
        """Distance between neighbouring slices; 5 mm for a single slice."""
        if len(self.positions) < 2:
            return 5.0
        return round((self.positions[1] - self.positions[0]) * AXIS_MM[self.region], 4)


def make_patient(
    seed: int,
    modality: PhantomModality,
    lesion: LesionKind | None = None,
    size: int = 128,
    slices: int = 1,
    *,
    grade: int | None = None,
    region: Region | None = None,
    callipers: Callipers = "some",
) -> PhantomPatient:
    """Make one phantom patient.

    Lesions have a random stream of their own: the same seed with `lesion=None` is the healthy twin, which differs only
    in pixels that the lesion touches.

    Args:
        seed: number of the patient; equal arguments give equal patients on every machine with the same NumPy.
        modality: CT (HU), MR (FLAIR-like), CR or DX (radiograph, one slice), US (breast ultrasound, one image).
        lesion: None for a normal patient.
        size: pixels per side, at least 16.
        slices: axial slices, evenly spaced.
        grade: 1 (subtle) .. 3 (obvious); None draws it.
        region: "abdomen" (default) or "head" for CT.
        callipers: ultrasound with measuring marks: some of all, none, or exactly the abnormal ones (a confounder).

    Raises:
        ConfigError: a modality, region, grade or count that phantoms do not offer.
    """
    region = check_phantom(modality, region, grade, size, slices)
    rng = stream_of(seed, modality, region, 0)
    age_factor, draw = rng.random(2).tolist()
    anatomy = _anatomy(rng, modality, region, age_factor)
    scanner = SCANNERS[modality][int(rng.random() * len(SCANNERS[modality]))]
    acquisition = Acquisition.draw(rng, scanner, HEAD_CT_NOISE if (modality, region) == ("CT", "head") else 1.0)
    positions = draw_positions(rng, region, slices)
    rendered = [anatomy.slice(z, size) for z in positions]
    full, lesion_rng = FULL_CONTRAST[modality, region], stream_of(seed, modality, region, 1)
    placed = place_lesion(lesion_rng, lesion, grade, full, rendered, positions) if lesion else None
    images, masks = put_lesion(placed, rendered, positions)
    made = None if placed is None else placed.lesion
    stored = np.stack([acquisition.stored(rng, image, z) for image, z in zip(images, positions, strict=True)])
    marks = _marks(seed, scanner, stored.shape, callipers, made)
    stored, rgb = burn_in(stored, marks, scanner.colour) if marks.any() else (stored, None)
    return PhantomPatient(
        seed=seed,
        modality=modality,
        region=region,
        stored=stored,
        masks=np.stack(masks),
        body=np.stack([item.body >= 0.5 for item in rendered]),
        marks=marks,
        rgb=rgb,
        scanner=scanner,
        age=round(18 + 72 * age_factor),
        sex="F" if draw < 0.5 else "M",
        facts={"age_factor": age_factor, "noise": acquisition.noise, "gain": acquisition.gain, **anatomy.facts()},
        positions=positions,
        lesion=made,
    )


def check_phantom(modality: str, region: Region | None, grade: int | None, size: int, slices: int) -> Region:
    """Return the region, by default the modality's first (ConfigError: there is no such phantom)."""
    if modality not in REGIONS:
        raise ConfigError(f"There are no phantoms of modality {modality!r}. Choose one of {', '.join(REGIONS)}.")
    region = region or REGIONS[modality][0]
    if region not in REGIONS[modality]:
        offered = ", ".join(REGIONS[modality])
        raise ConfigError(f"There are no {modality} phantoms of region {region!r}. Choose one of {offered}.")
    if grade not in (None, 1, 2, 3):
        raise ConfigError(f"Lesion grade {grade!r} does not exist; choose 1, 2 or 3, or leave it out to draw one.")
    if size < 16 or slices < 1 or (region in FLAT and slices != 1):
        raise ConfigError(
            f"A {region} phantom of {slices} slices at {size} px cannot be made: at least 16 px, one view."
        )
    return region


def stream_of(seed: int, modality: str, region: Region, number: int) -> np.random.Generator:
    """Return one of the independent random streams of a patient."""
    code = list(REGIONS).index(modality) * 8 + REGIONS[modality].index(region)
    return np.random.Generator(np.random.PCG64([seed, code, number]))


def _anatomy(rng: np.random.Generator, modality: str, region: Region, age_factor: float) -> Anatomy:
    if region == "head":
        return Brain(rng, age_factor, ct=modality == "CT")
    anatomies: dict[str, type[Abdomen | Chest | Breast]] = {"abdomen": Abdomen, "chest": Chest, "breast": Breast}
    return anatomies[region](rng, age_factor)


def _marks(
    seed: int, scanner: Scanner, shape: tuple[int, ...], callipers: Callipers, lesion: Lesion | None
) -> np.ndarray:
    """Draw what an ultrasound scanner burns in; marks have a random stream of their own, so nothing else moves."""
    if scanner.modality != "US":
        return np.zeros(shape, np.float32)
    measured = choose_callipers(stream_of(seed, "US", "breast", 2), callipers, lesion)
    return draw_marks(shape[-1], scanner.model, round(scanner.field_of_view_mm), measured)[None]


def draw_positions(rng: np.random.Generator, region: Region, slices: int) -> tuple[float, ...]:
    """Return the positions of the slices along the patient's axis, in [0, 1]."""
    low, high = COVERAGE[region]
    part = float(rng.random())
    if slices == 1:
        return (low + (high - low) * part,)
    shift = 0.04 * (part - 0.5)
    return tuple((np.linspace(low, high, slices) + shift).tolist())


@dataclass(frozen=True, slots=True)
class PlacedLesion:
    """A lesion, and the field that makes its border irregular."""

    lesion: Lesion
    outline: Field


def place_lesion(
    rng: np.random.Generator,
    kind: LesionKind,
    grade: int | None,
    contrast: float,
    rendered: list[Rendered],
    positions: tuple[float, ...],
) -> PlacedLesion:
    """Draw a lesion about one of the slices; `contrast` is that of grade 3, and without a grade it is drawn."""
    grade = grade or int(rng.integers(1, 4))
    where = int(rng.integers(len(positions)))
    pitch = positions[1] - positions[0] if len(positions) > 1 else 0.0
    lesion = draw_lesion(rng, LesionKind(kind), grade, contrast, rendered[where], positions[where], pitch)
    return PlacedLesion(lesion, Field(rng, 12))


def put_lesion(
    placed: PlacedLesion | None, rendered: list[Rendered], positions: tuple[float, ...]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the slices with the lesion, and its masks; as they are without one."""
    images = [item.image for item in rendered]
    if placed is None:
        return images, [np.zeros(image.shape, bool) for image in images]
    lesion, size = placed.lesion, images[0].shape[0]
    alphas = [lesion.alpha(z, size, placed.outline) for z in positions]
    pairs = [apply_lesion(item.image, item.organ, lesion, alpha) for item, alpha in zip(rendered, alphas, strict=True)]
    images = [
        behind(image, item.body, lesion, alpha) if item.echo else image
        for (image, _), item, alpha in zip(pairs, rendered, alphas, strict=True)
    ]
    return images, [pair[1] for pair in pairs]

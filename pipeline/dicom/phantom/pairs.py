"""The same phantom head scanned twice: as MR and as CT, or on two MR scanners that show it differently.

No public set has the truth of a translation between scanners or modalities for every pixel; phantoms do. Both scans
show one person at the same positions, with one lesion of one outline; noise, gain and shading are each scan's own. What
is bright in FLAIR (oedema, most tumours) is dark in CT, so a lesion's contrast changes sign between the two.

Scanner B differs from A in its point spread function, noise, bias field, gain and gamma. A gamma is one curve of grey
values, which matching histograms undoes; the other three are not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pipeline.dicom.phantom.brain import Brain, Rendered
from pipeline.dicom.phantom.patient import (
    HEAD_CT_NOISE,
    PhantomPatient,
    PlacedLesion,
    check_phantom,
    draw_positions,
    place_lesion,
    put_lesion,
    stream_of,
)
from pipeline.dicom.phantom.phantom_lesions import FULL_CONTRAST, LesionKind
from pipeline.dicom.phantom.scanner import SCANNERS, Acquisition, PhantomModality, Scanner
from pipeline.errors import ConfigError

PairKind = Literal["modalities", "scanners"]
SCANNER_A = Scanner("Lyra 1.5T", "MR", 0.020, 0.4, gain=1200.0, bias=0.10, field_of_view_mm=230)
SCANNER_B = Scanner("Mensa 3T", "MR", 0.035, 0.7, gain=520.0, bias=0.30, spread=0.010, gamma=0.65, field_of_view_mm=230)
OPPOSITE = {LesionKind.BRIGHTER: LesionKind.DARKER, LesionKind.DARKER: LesionKind.BRIGHTER}


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two scans of a pair: its modality, and its scanners, one of which is drawn."""

    name: str
    modality: PhantomModality
    scanners: tuple[Scanner, ...]

    def turned(self, placed: PlacedLesion) -> PlacedLesion:
        """Return a lesion of an MR head as this side shows it."""
        if self.modality == "MR":
            return placed
        scale = FULL_CONTRAST[self.modality, "head"] / FULL_CONTRAST["MR", "head"]
        kind = OPPOSITE.get(placed.lesion.kind, placed.lesion.kind)
        return replace(placed, lesion=replace(placed.lesion, kind=kind, contrast=-scale * placed.lesion.contrast))


SIDES: dict[PairKind, tuple[Side, Side]] = {
    "modalities": (Side("mr", "MR", SCANNERS["MR"]), Side("ct", "CT", SCANNERS["CT"])),
    "scanners": (Side("a", "MR", (SCANNER_A,)), Side("b", "MR", (SCANNER_B,))),
}


@dataclass(frozen=True, slots=True)
class Head:
    """A person's head, and where it is scanned."""

    seed: int
    age_factor: float
    sex: Literal["F", "M"]
    positions: tuple[float, ...]
    size: int

    def brain(self, modality: PhantomModality) -> Brain:
        """Return the anatomy, for which the same is drawn whatever shows it."""
        return Brain(stream_of(self.seed, "MR", "head", 5), self.age_factor, ct=modality == "CT")

    def render(self, modality: PhantomModality) -> list[Rendered]:
        """Return the noise-free slices."""
        brain = self.brain(modality)
        return [brain.slice(z, self.size) for z in self.positions]

    def scan(self, number: int, side: Side, placed: PlacedLesion | None) -> PhantomPatient:
        """Return the head as one side of its pair shows it, with a lesion given as MR shows it."""
        rng, rendered = stream_of(self.seed, "MR", "head", 6 + number), self.render(side.modality)
        turned = None if placed is None else side.turned(placed)
        images, masks = put_lesion(turned, rendered, self.positions)
        scanner = side.scanners[int(rng.random() * len(side.scanners))]
        acquired = Acquisition.draw(rng, scanner, HEAD_CT_NOISE if side.modality == "CT" else 1.0)
        stored = np.stack([acquired.stored(rng, image, z) for image, z in zip(images, self.positions, strict=True)])
        drawn = {"age_factor": self.age_factor, "noise": acquired.noise, "gain": acquired.gain}
        return PhantomPatient(
            seed=self.seed,
            modality=side.modality,
            region="head",
            stored=stored,
            masks=np.stack(masks),
            body=np.stack([item.body >= 0.5 for item in rendered]),
            marks=np.zeros(stored.shape, np.float32),
            rgb=None,
            scanner=scanner,
            age=round(18 + 72 * self.age_factor),
            sex=self.sex,
            facts=drawn | self.brain(side.modality).facts(),
            positions=self.positions,
            lesion=None if turned is None else turned.lesion,
        )


def make_pair(
    seed: int,
    kind: PairKind,
    lesion: LesionKind | None = None,
    size: int = 64,
    slices: int = 1,
    *,
    grade: int | None = None,
) -> tuple[PhantomPatient, PhantomPatient]:
    """Make one phantom head as both sides of a pair show it, with equal positions, bodies and masks.

    Args:
        seed: number of the patient; equal arguments give equal pairs.
        kind: "modalities" (MR, CT) or "scanners" (A, B).
        lesion: as MR shows it; None for a normal patient, who is the healthy twin of the same seed with a lesion.
        size: pixels per side, at least 16.
        slices: axial slices, evenly spaced.
        grade: 1 (subtle) .. 3 (obvious); None draws it.

    Raises:
        ConfigError: a kind, grade or count that phantoms do not offer.
    """
    if kind not in SIDES:
        raise ConfigError(f"There are no phantom pairs of the kind {kind!r}. Choose one of {', '.join(SIDES)}.")
    check_phantom("MR", "head", grade, size, slices)
    person = stream_of(seed, "MR", "head", 3)
    age_factor, draw = person.random(2).tolist()
    head = Head(seed, age_factor, "F" if draw < 0.5 else "M", draw_positions(person, "head", slices), size)
    full, rng = FULL_CONTRAST["MR", "head"], stream_of(seed, "MR", "head", 4)
    placed = place_lesion(rng, lesion, grade, full, head.render("MR"), head.positions) if lesion else None
    first, second = SIDES[kind]
    return head.scan(0, first, placed), head.scan(1, second, placed)

"""Folders of phantom pairs: every patient has one study from each side, under one patient id."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.dicom.phantom.folder import (
    SEEDS_PER_FOLDER,
    PhantomManifest,
    PhantomStudy,
    plan_lesions,
    write_study,
)
from pipeline.dicom.phantom.objects import SYNTAXES, Visit
from pipeline.dicom.phantom.pairs import SIDES, PairKind, Side, make_pair
from pipeline.dicom.phantom.patient import PhantomPatient
from pipeline.dicom.phantom.phantom_lesions import LesionKind


def write_pairs(
    folder: Path,
    n_patients: int,
    kind: PairKind,
    abnormal_fraction: float,
    seed: int,
    *,
    size: int = 64,
    slices: int = 1,
    kinds: Sequence[LesionKind] = (LesionKind.BRIGHTER, LesionKind.DARKER),
    grades: Sequence[int] = (3, 2, 1),
    family: str = "PHANTOM",
) -> PhantomManifest:
    """Write two studies for each of `n_patients` phantom heads, one per side, and return them, sides in turn.

    Patients, lesions and syntaxes rotate as in `write_phantoms`; the sides are in folders of their own. Writing again
    with the same arguments writes the same bytes.

    Raises:
        ConfigError: a count or fraction is out of range, or there is no such pair.
    """

    def studies() -> Iterator[PhantomStudy]:
        """Write them in order."""
        plan = plan_lesions(n_patients, abnormal_fraction, seed, size, kinds, grades)
        for index, (lesion, grade) in enumerate(plan):
            pair = make_pair(seed * SEEDS_PER_FOLDER + index, kind, lesion, size, slices, grade=grade)
            for side, patient in zip(SIDES[kind], pair, strict=True):
                visit = _visit(family, kind, side, patient, index)
                study = write_study(folder / side.name, patient, visit, index, SYNTAXES[index % len(SYNTAXES)])
                yield replace(study, kind=lesion)  # as the first side shows it

    return PhantomManifest(folder, tuple(studies()))


def _visit(family: str, kind: PairKind, side: Side, patient: PhantomPatient, index: int) -> Visit:
    code = f"{kind[:3].upper()}{patient.seed:09d}"
    number = f"{patient.seed % 10**9:09d}{side.name.upper()}"
    content = f"{side.name}/{patient.stored.shape}/{patient.lesion}"
    return Visit.plan(family, code, index, woman=patient.sex == "F", number=number, content=content)

"""Folders of phantom studies as DICOM files, with label table and masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom import Dataset

from pipeline.dicom.phantom.objects import SYNTAXES, Visit, datasets, encode
from pipeline.dicom.phantom.patient import PhantomPatient, Region, make_patient
from pipeline.dicom.phantom.phantom_lesions import LesionKind
from pipeline.dicom.phantom.scanner import PhantomModality
from pipeline.dicom.phantom.ultrasound_marks import Callipers
from pipeline.dicom.wrap.label_table import LabelTableRow, write_label_table
from pipeline.errors import ConfigError
from pipeline.types import Label

SEEDS_PER_FOLDER = 1_000_000
SMALLEST = 32  # pixels per side that JPEG 2000 needs for its usual number of resolution levels


@dataclass(frozen=True, slots=True)
class PhantomFile:
    """One written file. `mask` is bool [S, S], None where the slice has no lesion. `repr` hides the identity."""

    path: Path = field(repr=False)
    sop_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    slice_index: int
    relative_position: float
    label: Label
    mask: np.ndarray | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class PhantomStudy:
    """One written study: one patient, one series. It does not store the pixels. `repr` hides the identity."""

    patient_seed: int
    modality: PhantomModality
    region: Region
    patient_id: str = field(repr=False)
    study_uid: str = field(repr=False)
    accession_number: str = field(repr=False)
    study_date: date = field(repr=False)
    label: Label
    kind: LesionKind | None
    grade: int | None
    scanner: str
    age: int
    sex: str
    facts: dict[str, float] = field(repr=False)
    files: tuple[PhantomFile, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class PhantomManifest:
    """Studies written to `folder`."""

    folder: Path
    studies: tuple[PhantomStudy, ...]

    @property
    def files(self) -> tuple[PhantomFile, ...]:
        """Every file, in the order of writing."""
        return tuple(file for study in self.studies for file in study.files)


def write_phantoms(
    folder: Path,
    n_patients: int,
    modality: PhantomModality,
    abnormal_fraction: float,
    seed: int,
    *,
    size: int = 64,
    slices: int = 1,
    kinds: Sequence[LesionKind] = tuple(LesionKind),
    grades: Sequence[int] = (1, 2, 3),
    region: Region | None = None,
    syntaxes: Sequence[str] = SYNTAXES,
    family: str = "PHANTOM",
    callipers: Callipers = "some",
) -> PhantomManifest:
    """Write one study for each of `n_patients` phantom patients, each in its own folder, and return them.

    Exactly `round(n_patients * abnormal_fraction)` patients, chosen by `seed`, have a lesion. Kinds and grades rotate
    among them, transfer syntaxes among all. Writing again with the same arguments writes the same bytes.

    Args:
        callipers: of ultrasound, as for `make_patient`.
        family: prefix of every invented name and id, so that searching for it reveals leaks.

    Raises:
        ConfigError: a count or fraction is out of range, or the phantom does not exist.
    """
    studies = []
    for index, (kind, grade) in enumerate(plan_lesions(n_patients, abnormal_fraction, seed, size, kinds, grades)):
        patient = make_patient(
            seed * SEEDS_PER_FOLDER + index, modality, kind, size, slices, grade=grade, region=region,
            callipers=callipers,
        )  # fmt: skip
        visit = _visit(family, patient, index)
        studies.append(write_study(folder, patient, visit, index, syntaxes[index % len(syntaxes)]))
    return PhantomManifest(folder, tuple(studies))


def plan_lesions(
    n_patients: int,
    abnormal_fraction: float,
    seed: int,
    size: int,
    kinds: Sequence[LesionKind],
    grades: Sequence[int],
) -> list[tuple[LesionKind, int] | tuple[None, None]]:
    """Return the kind and grade of each patient's lesion, or two times None.

    Raises:
        ConfigError: a count, size, fraction or seed is out of range.
    """
    sensible = n_patients >= 0 and 0 <= abnormal_fraction <= 1 and 0 <= seed < SEEDS_PER_FOLDER
    if not sensible or size < SMALLEST:
        raise ConfigError(
            f"Cannot write {n_patients} phantoms of {size} px, {abnormal_fraction} of them abnormal, seed {seed}: "
            f"the count must be 0 or more, the size at least {SMALLEST} px, the share in 0..1 and the seed in "
            f"0..{SEEDS_PER_FOLDER - 1}."
        )
    turns = map(choose_sick(n_patients, abnormal_fraction, seed).get, range(n_patients))
    return [
        (None, None) if turn is None else (kinds[turn % len(kinds)], grades[turn // len(kinds) % len(grades)])
        for turn in turns
    ]


def choose_sick(n_patients: int, fraction: float, seed: int) -> dict[int, int]:
    """Return the patients with a lesion, each with its turn 0, 1, 2 ..."""
    order = np.random.default_rng([seed, 7]).permutation(n_patients)[: round(n_patients * fraction)]
    return {int(index): turn for turn, index in enumerate(sorted(order))}


def _visit(family: str, patient: PhantomPatient, index: int) -> Visit:
    code = f"{patient.modality}{patient.seed:09d}"
    number = f"{patient.seed % 10**9:09d}{patient.modality}"
    content = f"{patient.region}/{patient.stored.shape}/{patient.lesion}"
    return Visit.plan(family, code, index, woman=patient.sex == "F", number=number, content=content)


def write_study(folder: Path, patient: PhantomPatient, visit: Visit, index: int, syntax: str) -> PhantomStudy:
    """Write one examination into a folder of its own below `folder`."""
    place = folder / f"{patient.modality.lower()}{index:05d}"
    place.mkdir(parents=True, exist_ok=True)
    files = tuple(_write_files(place, datasets(patient, visit), patient, syntax))
    return PhantomStudy(
        patient_seed=patient.seed,
        modality=patient.modality,
        region=patient.region,
        patient_id=visit.patient_id,
        study_uid=visit.uid("study"),
        accession_number=visit.accession_number,
        study_date=visit.study_date,
        label="normal" if patient.lesion is None else "abnormal",
        kind=patient.lesion.kind if patient.lesion else None,
        grade=patient.lesion.grade if patient.lesion else None,
        scanner=patient.scanner.model,
        age=patient.age,
        sex=patient.sex,
        facts=patient.facts,
        files=files,
    )


def _write_files(place: Path, slices: Iterable[Dataset], patient: PhantomPatient, syntax: str) -> Iterator[PhantomFile]:
    last = len(patient.positions) - 1
    for index, ds in enumerate(slices):
        path, mask = place / f"im{index:04d}.dcm", patient.masks[index]
        path.write_bytes(encode(ds, syntax))
        yield PhantomFile(
            path=path,
            sop_uid=str(ds.SOPInstanceUID),
            series_uid=str(ds.SeriesInstanceUID),
            slice_index=index,
            relative_position=index / last if last else 0.5,
            label="abnormal" if mask.any() else "normal",
            mask=mask if mask.any() else None,
        )


def write_labels(studies: Iterable[PhantomStudy], folder: Path, *, reader: str = "phantom maker") -> Path:
    """Write `labels.csv` (a `label_table`) and `masks/*.png` (255 = lesion) into `folder`; return the table's path.

    One row per study. Abnormal studies also get one row per slice, with its mask; slices without lesion are normal.
    """
    masks = folder / "masks"
    masks.mkdir(parents=True, exist_ok=True)
    rows: list[LabelTableRow] = []
    for study in studies:
        origin = {"source": "phantom", "reader": reader, "date": (study.study_date + timedelta(days=1)).isoformat()}
        rows.append(LabelTableRow(study.label, StudyInstanceUID=study.study_uid, **origin))
        if study.label == "abnormal":
            rows += [_slice_row(study, file, folder, len(rows) + n, origin) for n, file in enumerate(study.files)]
    return write_label_table(folder / "labels.csv", rows)


def _slice_row(
    study: PhantomStudy, file: PhantomFile, folder: Path, number: int, origin: dict[str, str]
) -> LabelTableRow:
    mask = ""
    if file.mask is not None:
        mask = f"masks/{number:06d}.png"
        Image.fromarray(file.mask.astype(np.uint8) * 255).save(folder / mask)
    return LabelTableRow(file.label, StudyInstanceUID=study.study_uid, SOPInstanceUID=file.sop_uid, mask=mask, **origin)

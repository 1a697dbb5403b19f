"""Demo folder like the inbox of a hospital's research archive: one main modality, some others, and broken files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pipeline.dicom.phantom.broken import write_broken
from pipeline.dicom.phantom.folder import PhantomManifest, PhantomStudy, write_labels, write_phantoms
from pipeline.dicom.phantom.phantom_lesions import LesionKind
from pipeline.dicom.phantom.scanner import PhantomModality
from pipeline.errors import RejectionCode

# Conspicuous lesions are the most frequent; smoother and displaced ones are the hard tail.
KINDS = (
    LesionKind.BRIGHTER, LesionKind.DARKER, LesionKind.BRIGHTER, LesionKind.DARKER,
    LesionKind.BRIGHTER, LesionKind.DISPLACED, LesionKind.DARKER, LesionKind.SMOOTHER,
)  # fmt: skip
GRADES = (3, 2, 3, 1)
# Family name of all invented patients: searching the output for it reveals leaks of identity.
FAMILY = "PLANTED"


@dataclass(frozen=True, slots=True)
class DemoFolder:
    """Result of `write_demo`.

    Attributes:
        inbox: the folder to ingest.
        labels_csv: label table of every study, with the masks (the column `mask` of its instance rows).
        broken: file name in `inbox/broken` -> the code that it must be rejected with.
        main, others: studies of the main modality, and studies for another route or no route.
    """

    inbox: Path
    labels_csv: Path
    broken: dict[str, RejectionCode]
    main: PhantomManifest = field(repr=False)
    others: tuple[PhantomManifest, ...] = field(repr=False)

    @property
    def studies(self) -> tuple[PhantomStudy, ...]:
        """Every study in the inbox."""
        return (*self.main.studies, *(study for manifest in self.others for study in manifest.studies))


def write_demo(
    folder: Path,
    seed: int,
    n_normal: int,
    n_abnormal: int,
    *,
    modality: PhantomModality = "MR",
    size: int = 64,
    slices: int = 3,
    n_other: int = 6,
) -> DemoFolder:
    """Write `inbox/` (DICOM and broken files), `labels.csv` and `masks/` into `folder`.

    Args:
        n_normal, n_abnormal: patients of the main modality.
        n_other: patients of each other modality, a sixth of them abnormal.
        size, slices: for the main modality; radiographs always have one image, twice as large.
    """
    total = n_normal + n_abnormal
    inbox = folder / "inbox"
    main = write_phantoms(
        inbox, total, modality, n_abnormal / total if total else 0.0, seed, size=_size(modality, size),
        slices=_slices(modality, slices), kinds=KINDS, grades=GRADES, family=FAMILY,
    )  # fmt: skip
    others = tuple(
        write_phantoms(inbox, n_other, other, 1 / 6, seed, size=_size(other, size), slices=_slices(other, slices),
                       family=FAMILY)
        for other in ("CT", "MR", "CR", "DX") if other != modality
    )  # fmt: skip
    broken = write_broken(inbox / "broken", seed)
    labels = write_labels([study for manifest in (main, *others) for study in manifest.studies], folder)
    return DemoFolder(inbox, labels, broken, main, others)


def _slices(modality: str, slices: int) -> int:
    return slices if modality in ("CT", "MR") else 1


def _size(modality: str, size: int) -> int:
    return size if modality in ("CT", "MR") else 2 * size

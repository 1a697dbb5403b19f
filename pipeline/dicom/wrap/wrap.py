"""Wrap public data sets as DICOM, so that they are ingested in the same way as hospital scans.

`<out>/dicom/` receives Secondary Capture files (ingest that folder), `<out>/labels.csv` a label table with the masks in
`<out>/masks/`, and `<out>/rejected.csv` the rows that were not wrapped. No geometry and no acquisition attribute is
invented: only NIfTI volumes get millimetres, from their affine.
"""

from __future__ import annotations

import csv
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.config import DecodeLimits
from pipeline.dicom.wrap.label_table import LabelTableRow, write_label_table
from pipeline.dicom.wrap.wrap_manifest import ManifestRow, RowRejection, bad_row, read_manifest
from pipeline.dicom.wrap.wrap_npz import read_npz_rows
from pipeline.dicom.wrap.wrap_objects import Place, content_hash, make_secondary_capture, place, to_stored
from pipeline.dicom.wrap.wrap_pictures import Picture
from pipeline.dicom.wrap.wrap_sources import Address, read_picture
from pipeline.errors import Rejected, RejectionCode

Progress = Callable[[int, int], None]
# An image in two official sets stays in the one whose leakage would do most harm.
_KEPT_IN = ("test", "validate", "train", "")
_FILES_PER_FOLDER = 1000


@dataclass(frozen=True, slots=True)
class WrapReport:
    """Result of `wrap`.

    Attributes:
        rows: number of lines in the manifest.
        instances, patients, studies: numbers written.
        image_is_subject: instances without a patient_id, each a subject of its own.
        patients_across_splits: patients with images in several official sets (assignment must decide for one).
        labels: number of instances per label.
        rejected: rows that were not wrapped.
        labels_csv: the label table; `dicom` is the folder to ingest.
    """

    rows: int
    instances: int
    patients: int
    studies: int
    image_is_subject: int
    patients_across_splits: int
    labels: dict[str, int]
    rejected: tuple[RowRejection, ...]
    dicom: Path
    labels_csv: Path
    seconds: float

    @property
    def rejected_by_code(self) -> dict[str, int]:
        """Number of rejected rows per code."""
        return dict(sorted(Counter(item.code.value for item in self.rejected).items()))

    def to_json(self) -> dict[str, Any]:
        """Return the counts as a plain dictionary; rejected rows by number."""
        names = ("rows", "instances", "patients", "studies", "image_is_subject", "patients_across_splits", "labels")
        rows = [{"row": item.number, "code": item.code.value, "sentence": item.sentence} for item in self.rejected]
        paths = {"dicom": str(self.dicom), "labels_csv": str(self.labels_csv)}
        return {name: getattr(self, name) for name in names} | {"seconds": self.seconds, "rejected": rows} | paths

    def sentence(self) -> str:
        """Return the report as a few lines for a person."""
        lines = [
            f"{self.rows} rows: {self.instances} images of {self.patients} patients in {self.studies} studies wrapped, "
            f"{len(self.rejected)} rejected ({self.seconds:.1f} s)."
        ]
        if self.image_is_subject:
            lines.append(
                f"{self.image_is_subject} images have no patient_id: each counts as a subject of its own (image level)."
            )
        if self.patients_across_splits:
            lines.append(f"{self.patients_across_splits} patients have images in more than one official set.")
        lines += [f"  {count:6d}  {code}" for code, count in self.rejected_by_code.items()]
        lines += [f"  row {item.number}: {item.sentence}" for item in self.rejected[:5]]
        return "\n".join([*lines, f"Next: nightread ingest {self.dicom}; nightread labels import {self.labels_csv}"])


def wrap(
    manifest: Path,
    out_folder: Path,
    *,
    modality: str = "OT",
    normal: Sequence[int] = (0,),
    dataset: str | None = None,
    limits: DecodeLimits | None = None,
    on_progress: Progress | None = None,
) -> WrapReport:
    """Wrap every image of a manifest; bad rows are rejected one by one, and the rest continues.

    Wrapping again writes the same bytes: UIDs are derived from the data set's name, the row and the pixels.

    Args:
        manifest: CSV as in `wrap_manifest`, or a MedMNIST-style npz.
        modality: for rows that name none.
        normal: label values of an npz that mean normal; all others mean abnormal.
        dataset: name of the data set, part of every UID; default: names of the manifest's folder and file.
        limits: size limits of one file.
        on_progress: called with (images done, images in all).

    Raises:
        ConfigError: the manifest itself cannot be used, or the modality is not a valid code.
    """
    started = time.monotonic()
    job = _Job(
        manifest.absolute().parent,
        out_folder,
        dataset or f"{manifest.absolute().parent.name}/{manifest.stem}",
        limits or DecodeLimits(),
    )
    is_npz = manifest.suffix.lower() == ".npz"
    lines = list(read_npz_rows(manifest, modality, normal) if is_npz else read_manifest(manifest, modality))
    rows = [line for line in lines if isinstance(line, ManifestRow)]
    job.rejected += [line for line in lines if isinstance(line, RowRejection)]
    job.write(job.unique(rows), on_progress)
    return job.report(len(lines), round(time.monotonic() - started, 3))


@dataclass(slots=True)
class _Job:
    """One run of `wrap`: its folders and what it has done so far."""

    source: Path
    out: Path
    dataset: str
    limits: DecodeLimits
    rejected: list[RowRejection] = field(default_factory=list)
    table: list[LabelTableRow] = field(default_factory=list)

    @property
    def dicom(self) -> Path:
        return self.out / "dicom"

    def read(self, text: str) -> Picture:
        return read_picture(Address.parse(text, self.source), self.limits)

    def refuse(self, row: ManifestRow, error: Rejected) -> None:
        self.rejected.append(RowRejection(row.number, error.code, error.sentence))

    def unique(self, rows: Sequence[ManifestRow]) -> list[ManifestRow]:
        """Return the rows to write: no image twice, no slice position twice, no image in two official sets."""
        once = self._first(rows, self._address, RejectionCode.MANIFEST_ROW, "names the same image")
        placed = [row for row in once if row.patient_id and row.slice_index is not None]
        taken = self._first(
            placed, lambda row: (row.patient_id, row.study_id, row.slice_index), RejectionCode.DUPLICATE_SLICES,
            "has the same slice_index in the same series",
        )  # fmt: skip
        refused = {row.number for row in placed} - {row.number for row in taken}
        accepted = [row for row in once if row.number not in refused]
        return self._in_one_set(accepted) if len({row.split for row in accepted} - {""}) > 1 else accepted

    def _address(self, row: ManifestRow) -> str:
        """Return the image that a row names, however its path is spelled."""
        return os.path.normpath(self.source / row.file)

    def _first(
        self, rows: Iterable[ManifestRow], key: Callable[[ManifestRow], object], code: RejectionCode, what: str
    ) -> list[ManifestRow]:
        first: dict[object, ManifestRow] = {}
        for row in rows:
            other = first.setdefault(key(row), row)
            if other is not row:
                sentence = f"The row {what} as row {other.number}, which is used. Remove one of the two."
                self.refuse(row, Rejected(code, sentence))
        return list(first.values())

    def _in_one_set(self, rows: Sequence[ManifestRow]) -> list[ManifestRow]:
        """Read every image once and refuse copies of an image that is in several official sets."""
        groups: dict[str, list[ManifestRow]] = defaultdict(list)
        bad: set[int] = set()
        for row in rows:
            try:
                groups[content_hash(to_stored(self.read(row.file).frames))].append(row)
            except Rejected as error:
                self.refuse(row, error)
                bad.add(row.number)
        for copies in groups.values():
            bad |= self._refuse_copies(copies)
        return [row for row in rows if row.number not in bad]

    def _refuse_copies(self, copies: Sequence[ManifestRow]) -> set[int]:
        keeper = min((row.split for row in copies), key=_KEPT_IN.index)
        others = [row for row in copies if row.split not in (keeper, "")]
        for row in others:
            sentence = (
                f"The same image, pixel for pixel, is in the official sets {row.split} and {keeper}; {keeper} keeps it."
                " No action is needed."
            )
            self.refuse(row, Rejected(RejectionCode.DUPLICATE_ACROSS_SETS, sentence))
        return {row.number for row in others}

    def write(self, rows: Sequence[ManifestRow], on_progress: Progress | None) -> None:
        """Write the object and mask of every row, then the tables."""
        self.dicom.mkdir(parents=True, exist_ok=True)
        for done, row in enumerate(rows, start=1):
            try:
                self.table.append(self._write_row(row))
            except Rejected as error:
                self.refuse(row, error)
            if on_progress is not None:
                on_progress(done, len(rows))
        write_label_table(self.out / "labels.csv", self.table)
        self.rejected.sort(key=lambda item: item.number)
        with (self.out / "rejected.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(("row", "code", "sentence"))
            writer.writerows((item.number, item.code.value, item.sentence) for item in self.rejected)

    def _write_row(self, row: ManifestRow) -> LabelTableRow:
        picture = self.read(row.file)
        mask = self._mask(row, picture) if row.mask else None
        stored = to_stored(picture.frames)
        where = place(row, self.dataset, content_hash(stored))
        folder = self.dicom / f"{row.number // _FILES_PER_FOLDER:04d}"
        folder.mkdir(exist_ok=True)
        (folder / f"{row.number:07d}.dcm").write_bytes(make_secondary_capture(row, picture, stored, where))
        return self._label(row, where, "" if mask is None else self._write_mask(row, mask))

    def _mask(self, row: ManifestRow, picture: Picture) -> np.ndarray:
        mask = self.read(row.mask).frames != 0
        if mask.shape != picture.frames.shape:
            raise Rejected(
                RejectionCode.MIXED_SIZES, "The mask and the image differ in size. Name the mask of this image."
            )
        if row.label == "normal" and mask.any():
            raise bad_row("The row is labelled normal, but its mask is not empty. Correct one of the two.")
        return mask

    def _write_mask(self, row: ManifestRow, mask: np.ndarray) -> str:
        (self.out / "masks").mkdir(exist_ok=True)
        name = f"masks/{row.number:07d}.{'png' if len(mask) == 1 else 'npz'}"
        if len(mask) == 1:
            Image.fromarray(mask[0].astype(np.uint8) * 255).save(self.out / name)
        else:
            np.savez_compressed(self.out / name, mask=mask)
        return name

    def _label(self, row: ManifestRow, where: Place, mask: str) -> LabelTableRow:
        return LabelTableRow(
            row.label,
            StudyInstanceUID=where.study_uid,
            SOPInstanceUID=where.sop_uid,
            PatientID=where.patient_id,
            source=self.dataset[:64],
            official_set=row.split,
            relative_position=row.relative_position,
            mask=mask,
            image_is_subject="" if row.patient_id else "1",
        )

    def report(self, rows: int, seconds: float) -> WrapReport:
        """Summarise the run."""
        sets: dict[str, set[str]] = defaultdict(set)
        for row in self.table:
            sets[row.PatientID].add(row.official_set)
        return WrapReport(
            rows=rows,
            instances=len(self.table),
            patients=len(sets),
            studies=len({row.StudyInstanceUID for row in self.table}),
            image_is_subject=sum(bool(row.image_is_subject) for row in self.table),
            patients_across_splits=sum(len(names) > 1 for names in sets.values()),
            labels=dict(sorted(Counter(row.label for row in self.table).items())),
            rejected=tuple(self.rejected),
            dicom=self.dicom,
            labels_csv=self.out / "labels.csv",
            seconds=seconds,
        )

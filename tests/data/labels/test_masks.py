"""Lesion masks go into the pixel store when they fit their instance; otherwise the line is reported."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import LabelRow
from pipeline.data.labels.labels import import_labels
from pipeline.data.labels.masks import MaskRefused, read_mask
from pipeline.data.store.pixel_store import PixelStore
from pipeline.dicom.identity.pseudonyms import Ids

Write = Callable[..., Path]
LESION = np.zeros((4, 6), np.uint8)
LESION[1:3, 2:4] = 255


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "table"
    (folder / "masks").mkdir(parents=True)
    return folder


def _import(settings: Settings, write: Write, mask: str, sop: str = "2.1.1.1", label: str = "abnormal") -> list[str]:
    report = import_labels(write("SOPInstanceUID,label,mask", f"{sop},{label},{mask}"), settings)
    assert report.added + len(report.problems) == 1
    return [problem.reason for problem in report.problems]


def test_a_png_mask_is_stored_exactly(
    settings: Settings, catalogue: Catalogue, scans: dict[str, Ids], write: Write, folder: Path
) -> None:
    Image.fromarray(LESION).save(folder / "masks" / "m.png")
    assert _import(settings, write, "masks/m.png") == []
    with catalogue.reading() as session:
        key = session.scalars(select(LabelRow.mask_key)).one()
    stored = PixelStore(settings.store).get(key)
    assert stored.dtype == bool and np.array_equal(stored, (LESION > 0)[np.newaxis])
    assert import_labels(folder / "labels.csv", settings).unchanged == 1


def test_a_multi_frame_mask_comes_from_npz(
    settings: Settings, catalogue: Catalogue, scans: dict[str, Ids], write: Write, folder: Path
) -> None:
    frames = np.stack([LESION * 0, LESION, LESION.T.reshape(4, 6)])
    np.savez_compressed(folder / "m.npz", mask=frames, other=np.ones(2))
    assert _import(settings, write, "m.npz", sop="3.1.1.1") == []
    with catalogue.reading() as session:
        key = session.scalars(select(LabelRow.mask_key)).one()
    assert np.array_equal(PixelStore(settings.store).get(key), frames > 0)


@pytest.mark.parametrize("kind", ["1", "L", "P", "I;16"])
def test_png_modes(folder: Path, kind: str) -> None:
    image = Image.fromarray((LESION > 0).astype(np.uint16) * 700) if kind == "I;16" else Image.fromarray(LESION)
    (image if kind == "I;16" else image.convert(kind)).save(folder / "m.png")
    assert np.array_equal(read_mask(folder / "labels.csv", "m.png", (1, 4, 6))[0], LESION > 0)


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_in_both_memory_orders(folder: Path, order: str) -> None:
    np.save(folder / "m.npy", np.asarray(LESION, order=order))
    assert np.array_equal(read_mask(folder / "t.csv", "m.npy", (1, 4, 6))[0], LESION > 0)


def _bomb(path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (1, 1_000_000, 1_000_000)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mask.npy", header.getvalue())


def _make(folder: Path, kind: str) -> str:
    name = {"text": "m.txt", "damaged": "m.png", "npz": "m.npz"}.get(kind, "m.png")
    if kind == "size":
        Image.fromarray(LESION.T.copy()).save(folder / name)
    elif kind == "colour":
        Image.fromarray(np.stack([LESION] * 3, -1)).save(folder / name)
    elif kind == "damaged":
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    elif kind == "text":
        (folder / name).write_text("mask")
    elif kind == "bomb":
        name = "m.npz"
        _bomb(folder / name)
    elif kind == "objects":
        name = "m.npy"
        np.save(folder / name, np.array([[None]]), allow_pickle=True)
    elif kind == "members":
        name = "m.npz"
        np.savez(folder / name, a=LESION, b=LESION)
    elif kind == "short":
        name = "m.npy"
        np.save(folder / name, LESION)
        (folder / name).write_bytes((folder / name).read_bytes()[:-5])
    return name


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("size", r"\[1, 6, 4\].*\[1, 4, 6\]"),
        ("colour", r"\bRGB\b"),
        ("damaged", r"\(\w+\)"),
        ("text", "PNG"),
        ("bomb", r"\[1, 1000000, 1000000\]"),
        ("objects", "numbers"),
        ("members", "`mask`"),
        ("short", r"\(\w+\)"),
        ("missing", "exist"),
    ],
)
def test_masks_that_are_refused(folder: Path, kind: str, reason: str) -> None:
    name = _make(folder, kind)
    with pytest.raises(MaskRefused, match=reason) as caught:
        read_mask(folder / "labels.csv", name, (1, 4, 6))
    assert str(folder) not in str(caught.value) and name not in str(caught.value)


def test_a_mask_outside_the_folder_is_refused(folder: Path) -> None:
    Image.fromarray(LESION).save(folder.parent / "outside.png")
    (folder / "link.png").symlink_to(folder.parent / "outside.png")
    for name in ("../outside.png", str(folder.parent / "outside.png"), "link.png", "masks/../../outside.png"):
        with pytest.raises(MaskRefused, match="outside"):
            read_mask(folder / "labels.csv", name, (1, 4, 6))


def test_a_refused_mask_adds_no_label(
    settings: Settings, catalogue: Catalogue, scans: dict[str, Ids], write: Write, folder: Path
) -> None:
    Image.fromarray(LESION).save(folder / "m.png")
    assert "its instance [3, 4, 6]" in _import(settings, write, "m.png", sop="3.1.1.1")[0]
    assert "marks a lesion" in _import(settings, write, "m.png", label="normal")[0]
    report = import_labels(write("StudyInstanceUID,label,mask", "2.1,abnormal,m.png"), settings)
    assert "add the SOPInstanceUID" in report.problems[0].reason and report.added == 0
    with catalogue.reading() as session:
        assert session.scalars(select(LabelRow)).all() == []

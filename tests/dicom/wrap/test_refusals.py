"""Bad rows are rejected one by one, with a code and a sentence that contains no path and no identity."""

from __future__ import annotations

import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config import DecodeLimits
from pipeline.dicom.wrap.wrap import wrap
from pipeline.dicom.wrap.wrap_sources import Address, read_picture
from pipeline.errors import ConfigError, Rejected, RejectionCode

RNG = np.random.default_rng(2)
GOOD = RNG.integers(0, 256, (8, 9), np.uint8)


def _png16_colour(path: Path) -> None:
    """A 1 x 1 PNG of 16-bit RGB, made by hand: Pillow cannot write one and reads it as 8 bit."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    body = zlib.compress(b"\x00" + bytes(6))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


@pytest.fixture
def files(data: Path) -> Path:
    """A folder of good and bad files."""
    import nibabel

    Image.fromarray(GOOD).save(data / "good.png")
    (data / "text.png").write_text("no picture")
    (data / "cut.png").write_bytes((data / "good.png").read_bytes()[:60])
    (data / "empty.png").touch()
    (data / "movie.mp4").write_bytes(b"x" * 50)
    _png16_colour(data / "deep.png")
    Image.fromarray(np.full((8, 9, 4), 100, np.uint8)).save(data / "glass.png")
    np.savez(
        data / "a.npz", nan=np.full((4, 4), np.nan), stack=np.zeros((2, 4, 4, 5)), text=np.array(["a"]), none=GOOD[:0]
    )
    np.save(data / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 2, 2, 3), np.float32), np.eye(4)), data / "four.nii")
    (data / "bad.nii").write_bytes(b"\0" * 400)
    flat = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
    nibabel.save(flat, data / "flat.nii")
    header = bytearray((data / "flat.nii").read_bytes())
    header[252:256], header[280:328] = struct.pack("<hh", 0, 1), bytes(48)  # sform alone, and all of it zero
    (data / "flat.nii").write_bytes(header)
    Image.fromarray(GOOD).save(data.parent / "private.png")
    return data


BAD = [
    ({"file": ""}, RejectionCode.MANIFEST_ROW),
    ({"file": "absent.png"}, RejectionCode.UNREADABLE),
    ({"file": "text.png"}, RejectionCode.DECODE_FAILED),
    ({"file": "cut.png"}, RejectionCode.DECODE_FAILED),
    ({"file": "empty.png"}, RejectionCode.DECODE_FAILED),
    ({"file": "movie.mp4"}, RejectionCode.UNSUPPORTED_PIXELS),
    ({"file": "deep.png"}, RejectionCode.UNSUPPORTED_PIXELS),
    ({"file": "glass.png"}, RejectionCode.UNSUPPORTED_PIXELS),
    ({"file": "good.png[0]"}, RejectionCode.MANIFEST_ROW),
    ({"file": "a.npz::absent"}, RejectionCode.MANIFEST_ROW),
    ({"file": "a.npz"}, RejectionCode.MANIFEST_ROW),
    ({"file": "a.npz::nan"}, RejectionCode.NON_FINITE),
    ({"file": "a.npz::nan[9]"}, RejectionCode.MANIFEST_ROW),
    ({"file": "a.npz::stack"}, RejectionCode.UNSUPPORTED_PIXELS),
    ({"file": "a.npz::text"}, RejectionCode.UNSUPPORTED_PIXELS),
    ({"file": "a.npz::none"}, RejectionCode.UNSUPPORTED_PIXELS),
    ({"file": "pickle.npy"}, RejectionCode.DECODE_FAILED),
    ({"file": "four.nii"}, RejectionCode.UNSUPPORTED_PIXELS),
    ({"file": "bad.nii"}, RejectionCode.DECODE_FAILED),
    ({"file": "flat.nii"}, RejectionCode.NO_GEOMETRY),
    ({"file": "../private.png"}, RejectionCode.MANIFEST_ROW),
    ({"file": "sub/../../private.png"}, RejectionCode.MANIFEST_ROW),
    ({"file": "/etc/passwd.png"}, RejectionCode.MANIFEST_ROW),
    ({"file": "good.png", "mask": "../private.png"}, RejectionCode.MANIFEST_ROW),
    ({"file": "good.png", "label": "ill"}, RejectionCode.MANIFEST_ROW),
    ({"file": "good.png", "split": "holdout"}, RejectionCode.MANIFEST_ROW),
    ({"file": "good.png", "slice_index": "-1"}, RejectionCode.MANIFEST_ROW),
    ({"file": "good.png", "slice_index": "1.5"}, RejectionCode.MANIFEST_ROW),
    ({"file": "good.png", "relative_position": "2"}, RejectionCode.MANIFEST_ROW),
    ({"file": "good.png", "relative_position": "nan"}, RejectionCode.MANIFEST_ROW),
    ({"file": "good.png", "age": "old"}, RejectionCode.MANIFEST_ROW),
    ({"file": "good.png", "sex": "x"}, RejectionCode.MANIFEST_ROW),
    ({"file": "good.png", "modality": "M/R"}, RejectionCode.MANIFEST_ROW),
    ({"file": "good.png", "patient_id": "x" * 65}, RejectionCode.MANIFEST_ROW),
    ({"file": "good.png", "patient_id": "a\\b"}, RejectionCode.MANIFEST_ROW),
    ({"file": "good.png", "mask": "absent.png"}, RejectionCode.UNREADABLE),
    ({"file": "good.png", "mask": "a.npz::nan"}, RejectionCode.NON_FINITE),
    ({"file": "good.png", "label": "normal", "mask": "good.png"}, RejectionCode.MANIFEST_ROW),
]


@pytest.mark.parametrize(("row", "code"), BAD, ids=[" ".join(map(str, row.values())) or "empty" for row, _ in BAD])
def test_a_bad_row_is_refused_and_the_others_are_wrapped(
    row: dict[str, str], code: RejectionCode, files: Path, manifest: Callable, tmp_path: Path
) -> None:
    Image.fromarray(GOOD[::-1].copy()).save(files / "other.png")
    report = wrap(manifest([{"patient_id": "SECRET", **row}, {"file": "other.png"}]), tmp_path / "out")
    assert report.instances == 1
    (refused,) = report.rejected
    assert (refused.number, refused.code) == (2, code)
    assert refused.sentence.endswith(".")
    written = report.sentence() + (tmp_path / "out" / "rejected.csv").read_text()
    for secret in ("SECRET", "absent", ".png[", "good.png", str(files)):
        assert secret not in written


def test_mask_of_another_size(files: Path, manifest: Callable, tmp_path: Path) -> None:
    Image.fromarray(GOOD[:4].copy()).save(files / "small.png")
    report = wrap(manifest([{"file": "good.png", "label": "abnormal", "mask": "small.png"}]), tmp_path / "out")
    assert report.rejected_by_code == {"mixed-sizes": 1}


def test_pixel_identical_images_across_splits_are_refused(files: Path, manifest: Callable, tmp_path: Path) -> None:
    """test keeps the image, then validate; copies within one set, or without a set, are not leaks."""
    for number in range(7):
        Image.fromarray(GOOD if number < 5 else GOOD + np.uint8(number)).save(files / f"{number}.png")
    splits = ["train", "train", "val", "test", "", "train", "val"]
    rows = [{"file": f"{number}.png", "split": split} for number, split in enumerate(splits)]
    report = wrap(manifest(rows), tmp_path / "out")
    assert [item.number for item in report.rejected] == [2, 3, 4]
    assert report.rejected_by_code == {"duplicate-across-sets": 3}
    assert report.instances == 4


def test_other_depths_of_the_same_numbers_are_other_images(files: Path, manifest: Callable, tmp_path: Path) -> None:
    Image.fromarray(GOOD.astype(np.uint16)).save(files / "deep.tif")
    rows = [{"file": "good.png", "split": "train"}, {"file": "deep.tif", "split": "test"}]
    assert wrap(manifest(rows), tmp_path / "out").instances == 2


def test_a_row_twice_and_a_place_twice(files: Path, manifest: Callable, tmp_path: Path) -> None:
    Image.fromarray(GOOD + np.uint8(1)).save(files / "next.png")
    rows = [{"file": "good.png", "patient_id": "p", "slice_index": 3}] * 2
    rows += [{"file": "next.png", "patient_id": "p", "slice_index": 3}]
    report = wrap(manifest(rows), tmp_path / "out")
    assert report.rejected_by_code == {"bad-manifest-row": 1, "duplicate-slices": 1}
    assert "row 2" in report.rejected[0].sentence


def test_limits_hold(files: Path, manifest: Callable, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3000, 3000), np.uint8)).save(files / "big.png")
    np.savez_compressed(files / "bomb.npz", v=np.zeros((40, 500, 500), np.uint8))
    path = manifest([{"file": "big.png"}, {"file": "bomb.npz::v"}, {"file": "good.png"}])
    report = wrap(path, tmp_path / "out", limits=DecodeLimits(decoded_bytes=2**20))
    assert report.rejected_by_code == {"too-many-pixels": 2} and report.instances == 1


def test_patients_across_splits_are_counted(files: Path, manifest: Callable, tmp_path: Path) -> None:
    Image.fromarray(GOOD + np.uint8(1)).save(files / "next.png")
    rows = [{"file": "good.png", "patient_id": "p", "split": "train"}]
    rows += [{"file": "next.png", "patient_id": "p", "split": "test"}]
    assert wrap(manifest(rows), tmp_path / "out").patients_across_splits == 1


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_manifests_as_people_save_them(encoding: str, delimiter: str, files: Path, tmp_path: Path) -> None:
    """Excel writes semicolons where the comma is decimal, and a byte order mark; people write capitals and blanks."""
    rows = (["File ", "Patient ID", "LABEL", "remark"], ["good.png", "müller", "Normal", "x"], ["deep.png", "b"])
    text = "\r\n".join(delimiter.join(row) for row in rows)
    (files / "m.csv").write_bytes(text.encode(encoding))
    report = wrap(files / "m.csv", tmp_path / "out")
    assert (report.instances, report.labels, report.image_is_subject) == (1, {"normal": 1}, 0)
    (refused,) = report.rejected
    assert (refused.number, refused.code) == (3, RejectionCode.MANIFEST_ROW) and "2 fields" in refused.sentence


def test_one_image_is_one_image_however_it_is_spelled(files: Path, manifest: Callable, tmp_path: Path) -> None:
    names = ["good.png", "./good.png", "sub/../good.png", str(files / "good.png")]
    report = wrap(manifest([{"file": name} for name in names]), tmp_path / "out")
    assert report.instances == 1 and [item.number for item in report.rejected] == [3, 4, 5]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["nii", "npz", "npy", "tif", "png", "jpg"])
def test_damaged_images_are_refused_and_never_raise(kind: str, tmp_path: Path) -> None:
    """Bytes changed anywhere in the header: each underlying reader raises other errors, and none may get out."""
    import nibabel

    values, changes = GOOD.astype(np.int16), random.Random(kind)
    if kind == "nii":
        nibabel.save(nibabel.Nifti1Image(np.stack([values] * 2, -1), np.eye(4)), tmp_path / "s.nii")
    elif kind in ("npz", "npy"):
        {"npz": np.savez, "npy": np.save}[kind](tmp_path / f"s.{kind}", values)
    else:
        Image.fromarray(GOOD).save(tmp_path / f"s.{kind}")
    whole, outcomes = (tmp_path / f"s.{kind}").read_bytes(), Counter()
    for turn in range(400):
        damaged = bytearray(whole)
        for _ in range(changes.randint(1, 4)):
            damaged[changes.randrange(min(len(whole), 360))] = changes.choice((0, 1, 127, 255, changes.randrange(256)))
        del damaged[changes.randrange(len(whole)) if turn % 5 == 0 else len(whole) :]
        path = tmp_path / f"damaged.{kind}"
        path.write_bytes(damaged)
        try:
            read_picture(Address(path, "arr_0" if kind == "npz" else "", None), DecodeLimits(decoded_bytes=2**24))
            outcomes["read"] += 1
        except Rejected:
            outcomes["refused"] += 1
    assert outcomes["refused"] >= 40, outcomes


@pytest.mark.parametrize(
    "content", [b"", b"name,label\na,b\n", b"file,File\na,b\n", b'file\n"a', b"\xff\xfe\x00\xd8file", None]
)
def test_a_useless_manifest_is_an_error(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError):
        wrap(path, tmp_path / "out")


def test_progress_and_json(files: Path, manifest: Callable, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    report = wrap(
        manifest([{"file": "good.png"}, {"file": "text.png"}]), tmp_path / "out",
        on_progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(1, 2), (2, 2)]
    said = report.to_json()
    assert (said["rows"], said["instances"], len(said["rejected"])) == (2, 1, 1)

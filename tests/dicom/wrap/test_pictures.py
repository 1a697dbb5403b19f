"""Pictures come out upright and with white as the largest value, whatever their tags say, or are refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config import DecodeLimits
from pipeline.dicom.wrap.wrap_sources import Address, read_picture
from pipeline.errors import Rejected, RejectionCode

GREY = np.add.outer(np.arange(5), np.arange(4) * 7).astype(np.uint8)
DEEP = GREY.astype(np.uint16) * 300


def read(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    picture = read_picture(Address.parse(path.name, path.parent), DecodeLimits())
    return picture.frames, picture.notes


def tiff(path: Path, pages: list[np.ndarray], photometric: int, order: str = "<", orientation: int = 1) -> Path:
    """A TIFF of one strip per page (TIFF 6.0 section 2), which Pillow does not write with these tags."""
    out, at = bytearray((b"II*\0" if order == "<" else b"MM\0*") + bytes(4)), 4
    for values in pages:
        start = len(out)
        out += values.astype(values.dtype.newbyteorder(order)).tobytes()
        out += bytes(len(out) % 2)
        out[at : at + 4] = struct.pack(order + "I", len(out))
        kind = {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
        tags = {256: values.shape[1], 257: values.shape[0], 258: 8 * values.itemsize, 259: 1, 262: photometric}
        tags |= {273: start, 274: orientation, 277: 1, 278: values.shape[0], 279: values.nbytes, 339: kind}
        out += struct.pack(order + "H", len(tags))
        for tag, value in tags.items():
            out += struct.pack(order + "HHII", tag, 4, 1, value)
        at = len(out)
        out += bytes(4)
    path.write_bytes(out)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("stored", "right"),
    [(GREY, 255 - GREY), (DEEP, 65535 - DEEP), ((DEEP - 20000).astype(np.int16), 19999 - DEEP.astype(int))],
    ids=["8 bit", "16 bit", "signed"],
)
def test_white_is_zero_is_inverted(stored: np.ndarray, right: np.ndarray, order: str, tmp_path: Path) -> None:
    """A signed value v means -1 - v: the ends -32768 and 32767 change places."""
    frames, _ = read(tiff(tmp_path / "a.tif", [stored, stored], 0, order))
    np.testing.assert_array_equal(frames.astype(int), np.stack([right, right]).astype(int))
    plain, notes = read(tiff(tmp_path / "b.tif", [stored], 1, order))
    np.testing.assert_array_equal(plain[0], stored)
    assert notes == ()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint32, np.int32])
def test_values_of_32_bits_have_the_sign_that_the_file_says(dtype: type, order: str, tmp_path: Path) -> None:
    values = (GREY.astype(np.int64) * 2**26 + 3 - (2**30 if dtype is np.int32 else 0)).astype(dtype)
    np.testing.assert_array_equal(read(tiff(tmp_path / "a.tif", [values], 1, order))[0][0], values)


def test_white_is_zero_of_a_compressed_tiff(tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / "a.tif", compression="tiff_lzw", tiffinfo={262: 0})
    with Image.open(tmp_path / "a.tif") as image:
        assert image.tag_v2[262] == 0 and image.info["compression"] == "tiff_lzw"
    np.testing.assert_array_equal(read(tmp_path / "a.tif")[0][0], 65535 - DEEP)


@pytest.mark.parametrize("order", ["<", ">"])
def test_signed_values_of_8_bits_stay_signed(tmp_path: Path, order: str) -> None:
    stored = (GREY.astype(int) * 5 - 100).astype(np.int8)
    np.testing.assert_array_equal(read(tiff(tmp_path / "a.tif", [stored], 1, order))[0][0].astype(int), stored)


@pytest.mark.parametrize(
    ("stored", "photometric", "kind", "words"),
    [
        (GREY.astype(np.float64), 1, 3, "64-bit floats with PhotometricInterpretation 1"),
        (GREY.astype(np.float16), 1, 3, "16-bit floats"),
        (GREY.astype(np.uint32), 0, 1, "32-bit unsigned integers with PhotometricInterpretation 0"),
        (GREY.astype(np.int8), 0, 2, "8-bit signed integers with PhotometricInterpretation 0"),
        (DEEP, 1, 4, "16-bit SampleFormat 4"),
    ],
)
def test_a_tiff_of_unsupported_numbers_says_which(
    tmp_path: Path, stored: np.ndarray, photometric: int, kind: int, words: str
) -> None:
    path = tiff(tmp_path / "a.tif", [stored], photometric)
    tag = struct.pack("<HHI", 339, 4, 1)
    whole = path.read_bytes()
    at = whole.index(tag) + len(tag)
    path.write_bytes(whole[:at] + struct.pack("<I", kind) + whole[at + 4 :])
    with pytest.raises(Rejected, match=words) as refused:
        read(path)
    assert refused.value.code == RejectionCode.UNSUPPORTED_PIXELS and "Save it with" in refused.value.sentence


def test_a_damaged_tiff_is_still_called_damaged(tmp_path: Path) -> None:
    path = tiff(tmp_path / "a.tif", [GREY.astype(np.float64)], 1)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(Rejected, match="it is damaged"):
        read(path)


def _grey_png(path: Path, depth: int, row: bytes, width: int, transparent: int) -> Path:
    chunks = {b"IHDR": struct.pack(">IIBBBBB", width, 1, depth, 0, 0, 0, 0), b"tRNS": struct.pack(">H", transparent)}
    chunks |= {b"IDAT": zlib.compress(b"\0" + row), b"IEND": b""}
    out = b"\x89PNG\r\n\x1a\n"
    for name, data in chunks.items():
        out += struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    path.write_bytes(out)
    return path


@pytest.mark.parametrize(
    ("depth", "row", "width", "used", "unused"),
    [
        (1, b"\x00", 8, 0, 1),
        (2, b"\x19", 4, 2, 3),  # 0 1 2 1
        (4, b"\x1f", 2, 15, 2),
        (8, b"\1\2", 2, 2, 3),
        (16, b"\1\0\0\2", 2, 256, 1),
    ],
)
def test_grey_that_a_png_makes_transparent_is_refused_where_it_occurs(
    tmp_path: Path, depth: int, row: bytes, width: int, used: int, unused: int
) -> None:
    assert read(_grey_png(tmp_path / "a.png", depth, row, width, unused))[0].shape == (1, 1, width)
    with pytest.raises(Rejected, match="partly transparent"):
        read(_grey_png(tmp_path / "b.png", depth, row, width, used))


def test_white_is_zero_of_floats_has_no_range(tmp_path: Path) -> None:
    with pytest.raises(Rejected) as caught:
        read(tiff(tmp_path / "a.tif", [GREY / np.float32(7)], 0))
    assert caught.value.code == RejectionCode.UNSUPPORTED_PIXELS


TURNED = {
    1: GREY,
    2: GREY[:, ::-1],
    3: GREY[::-1, ::-1],
    4: GREY[::-1],
    5: GREY.T,
    6: np.rot90(GREY, -1),
    7: GREY[::-1, ::-1].T,
    8: np.rot90(GREY),
}


@pytest.mark.parametrize("orientation", TURNED)
def test_an_orientation_tag_is_obeyed(orientation: int, tmp_path: Path) -> None:
    """TIFF 6.0, tag 274: where row 0 and column 0 of the stored image are to be seen."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    big = np.kron(GREY, np.ones((8, 8), np.uint8))
    Image.fromarray(big).save(tmp_path / "a.jpg", quality=100, exif=exif)
    Image.fromarray(GREY).save(tmp_path / "a.png", exif=exif)
    tiff(tmp_path / "a.tif", [GREY], 1, orientation=orientation)
    tiff(tmp_path / "deep.tif", [DEEP], 0, orientation=orientation)
    right = TURNED[orientation]
    note = () if orientation == 1 else (f"turned upright (orientation {orientation})",)
    for name in ("a.png", "a.tif"):
        frames, notes = read(tmp_path / name)
        np.testing.assert_array_equal(frames[0], right)
        assert notes == note
    np.testing.assert_allclose(read(tmp_path / "a.jpg")[0][0][4::8, 4::8].astype(int), right, atol=2)
    np.testing.assert_array_equal(read(tmp_path / "deep.tif")[0][0], 65535 - right.astype(np.uint16) * 300)


def test_a_jpeg_with_previews_is_its_first_picture_and_lossy(tmp_path: Path) -> None:
    big, small = (Image.fromarray(np.kron(GREY, np.ones((size, size), np.uint8))) for size in (8, 4))
    big.save(tmp_path / "phone.jpg", format="MPO", quality=100, save_all=True, append_images=[small, big])
    picture = read_picture(Address.parse("phone.jpg", tmp_path), DecodeLimits())
    assert (len(picture.frames), picture.volume, picture.lossy_ratio is None) == (1, False, False)
    assert picture.notes == ("without 2 further pictures of the JPEG file",)
    np.testing.assert_allclose(picture.frames[0, 4::8, 4::8].astype(int), GREY, atol=2)


def test_deep_colour_is_refused_rather_than_reduced(tmp_path: Path) -> None:
    path = tmp_path / "rgb.tif"
    data = np.repeat(DEEP[..., None], 3, axis=2).astype("<u2").tobytes()
    bits = 8 + len(data)
    entries = [(256, 4, 4), (257, 4, 5), (259, 4, 1), (262, 4, 2), (273, 4, 8), (277, 4, 3), (278, 4, 5)]
    entries += [(279, 4, len(data))]
    lines = [struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries]
    lines.insert(2, struct.pack("<HHII", 258, 3, 3, bits))
    head = b"II*\0" + struct.pack("<I", bits + 6)
    path.write_bytes(
        head + data + struct.pack("<3H", 16, 16, 16) + struct.pack("<H", len(lines)) + b"".join(lines) + bytes(4)
    )
    with Image.open(path) as image:
        assert image.mode == "RGB"
    with pytest.raises(Rejected) as caught:
        read(path)
    assert caught.value.code == RejectionCode.UNSUPPORTED_PIXELS

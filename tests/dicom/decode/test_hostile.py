"""Hostile or merely broken files: each rejected with its own code, in bounded memory and time."""

from __future__ import annotations

import os
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.read import read_header, read_instance
from pipeline.errors import Rejected, RejectionCode

Make = Callable[..., Dataset]
Write = Callable[..., Path]
GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)


def _code(path: Path, limits: DecodeLimits) -> RejectionCode:
    """Read in this process; neither the sentence nor the representation may contain the path."""
    started = time.process_time()
    tracemalloc.start()
    with pytest.raises(Rejected) as caught:
        read_instance(path, limits)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - started < 10
    assert peak < 2 * limits.decoded_bytes
    assert str(path) not in str(caught.value)
    assert path.name not in str(caught.value)
    assert len(caught.value.sentence) > 20
    return caught.value.code


def test_zero_bytes(tmp_path: Path, limits: DecodeLimits) -> None:
    (tmp_path / "planted-name").touch()
    assert _code(tmp_path / "planted-name", limits) == RejectionCode.EMPTY_FILE


@pytest.mark.parametrize("content", [b"hello", b"\0" * 200, b"\x89PNG\r\n\x1a\n" + b"x" * 500])
def test_not_dicom(content: bytes, tmp_path: Path, limits: DecodeLimits) -> None:
    (tmp_path / "planted-name").write_bytes(content)
    assert _code(tmp_path / "planted-name", limits) == RejectionCode.NOT_DICOM


def test_links_folders_and_pipes(
    tmp_path: Path, limits: DecodeLimits, make_dataset: Make, write_dataset: Write
) -> None:
    path = write_dataset(make_dataset(GREY))
    (tmp_path / "secret-7").symlink_to(path)
    os.mkfifo(tmp_path / "secret-8")
    assert _code(tmp_path / "secret-7", limits) == RejectionCode.SYMLINK
    assert _code(tmp_path, limits) == RejectionCode.NOT_A_FILE
    assert _code(tmp_path / "secret-8", limits) == RejectionCode.NOT_A_FILE
    assert _code(tmp_path / "nothing", limits) == RejectionCode.UNREADABLE


def test_permission_denied(
    limits: DecodeLimits, make_dataset: Make, write_dataset: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so the system's refusal is simulated."""
    path = write_dataset(make_dataset(GREY))

    def deny(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "open", deny)
    assert _code(path, limits) == RejectionCode.PERMISSION_DENIED


def test_a_file_still_being_written(limits: DecodeLimits, make_dataset: Make, write_dataset: Write) -> None:
    path = write_dataset(make_dataset(GREY))
    settle = limits.model_copy(update={"settle_seconds": 30.0})
    assert _code(path, settle) == RejectionCode.STILL_WRITING
    os.utime(path, (time.time() - 60,) * 2)
    assert read_instance(path, settle).stored.shape == (1, 8, 8)


def test_a_file_that_changes_while_it_is_read(
    limits: DecodeLimits, make_dataset: Make, write_dataset: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_dataset(make_dataset(GREY))
    from pipeline.dicom.decode import source

    parse = source._parse

    def append_then_parse(*arguments: object) -> object:
        with path.open("ab") as file:
            file.write(b"\0\0")
        return parse(*arguments)

    monkeypatch.setattr(source, "_parse", append_then_parse)
    assert _code(path, limits) == RejectionCode.STILL_WRITING


def test_a_file_too_large(limits: DecodeLimits, make_dataset: Make, write_dataset: Write) -> None:
    path = write_dataset(make_dataset(GREY))
    assert _code(path, limits.model_copy(update={"file_bytes": 100})) == RejectionCode.FILE_TOO_LARGE


@pytest.mark.parametrize("frames", [999_999, 2, 2**31 - 1])
def test_frame_count_bomb(frames: int, limits: DecodeLimits, make_dataset: Make, write_dataset: Write) -> None:
    path = write_dataset(make_dataset(GREY, NumberOfFrames=frames))
    assert _code(path, limits) == RejectionCode.FRAME_COUNT


@pytest.mark.parametrize("frames", [999_999, 2])
def test_frame_count_bomb_in_compressed_data(
    frames: int, limits: DecodeLimits, make_dataset: Make, write_dataset: Write
) -> None:
    ds = make_dataset(GREY)
    ds.compress(RLELossless, GREY, generate_instance_uid=False)
    ds.NumberOfFrames = frames
    assert _code(write_dataset(ds, syntax=RLELossless), limits) == RejectionCode.FRAME_COUNT


@pytest.mark.parametrize("frames", [0, -1, 2**40])
def test_impossible_frame_counts(frames: int, limits: DecodeLimits, make_dataset: Make, write_dataset: Write) -> None:
    ds = make_dataset(GREY)
    ds.add_new(0x00280008, "IS", str(frames))
    assert _code(write_dataset(ds), limits) == RejectionCode.CORRUPT_HEADER


def test_more_frames_than_declared(limits: DecodeLimits, make_dataset: Make, write_dataset: Write) -> None:
    path = write_dataset(make_dataset(GREY, PixelData=GREY.tobytes() * 3))
    assert _code(path, limits) == RejectionCode.FRAME_COUNT


def test_absurd_sizes(limits: DecodeLimits, make_dataset: Make, write_dataset: Write) -> None:
    """65535 x 65535 with only 64 bytes of data is truncated; compressed, it is too many pixels."""
    path = write_dataset(make_dataset(GREY, Rows=65535, Columns=65535))
    assert _code(path, limits) == RejectionCode.TRUNCATED_PIXELS
    ds = make_dataset(GREY)
    ds.compress(RLELossless, GREY, generate_instance_uid=False)
    ds.Rows = ds.Columns = 65535
    assert _code(write_dataset(ds, syntax=RLELossless), limits) == RejectionCode.TOO_MANY_PIXELS


def test_no_rows(limits: DecodeLimits, make_dataset: Make, write_dataset: Write) -> None:
    assert _code(write_dataset(make_dataset(GREY, Rows=0)), limits) == RejectionCode.CORRUPT_HEADER


def test_truncated_pixels(limits: DecodeLimits, make_dataset: Make, write_dataset: Write) -> None:
    path = write_dataset(make_dataset(GREY))
    path.write_bytes(path.read_bytes()[:-10])
    assert _code(path, limits) == RejectionCode.TRUNCATED_PIXELS


def _jpeg2000(make_dataset: Make) -> Dataset:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)
    ds = make_dataset(noise)
    ds.compress(JPEG2000Lossless, noise, generate_instance_uid=False)
    return ds


def test_truncated_file_in_compressed_pixels(limits: DecodeLimits, make_dataset: Make, write_dataset: Write) -> None:
    path = write_dataset(_jpeg2000(make_dataset), syntax=JPEG2000Lossless)
    path.write_bytes(path.read_bytes()[:-300])
    assert _code(path, limits) == RejectionCode.TRUNCATED_PIXELS


def test_truncated_codestream_in_a_whole_file(limits: DecodeLimits, make_dataset: Make, write_dataset: Write) -> None:
    ds = _jpeg2000(make_dataset)
    start = ds.PixelData.find(b"\xff\x4f\xff\x51")
    ds.PixelData = encapsulate([ds.PixelData[start:-400]])
    ds["PixelData"].is_undefined_length = True
    assert _code(write_dataset(ds, syntax=JPEG2000Lossless), limits) == RejectionCode.TRUNCATED_PIXELS


@pytest.mark.parametrize(
    ("size", "code"), [(60_000, RejectionCode.DECOMPRESSION_BOMB), (65, RejectionCode.CORRUPT_HEADER)]
)
def test_a_codestream_larger_than_its_header(
    size: int, code: RejectionCode, limits: DecodeLimits, make_dataset: Make, write_dataset: Write
) -> None:
    ds = _jpeg2000(make_dataset)
    start = ds.PixelData.find(b"\xff\x4f\xff\x51") + 8
    wide = size.to_bytes(4, "big") * 2
    ds.PixelData = ds.PixelData[:start] + wide + ds.PixelData[start + 8 :]
    ds["PixelData"].is_undefined_length = True
    assert _code(write_dataset(ds, syntax=JPEG2000Lossless), limits) == code


def test_deflate_bomb(limits: DecodeLimits, make_dataset: Make, write_dataset: Write) -> None:
    """Less than half a megabyte that inflates to 384 MiB stops at the limit; pydicom alone would inflate it all."""
    path = write_dataset(make_dataset(GREY), syntax=DeflatedExplicitVRLittleEndian)
    data = path.read_bytes()
    start = 144 + int.from_bytes(data[140:144], "little")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(2**24)) for _ in range(24)) + packer.flush()
    path.write_bytes(data[:start] + bomb)
    assert len(bomb) < 2**21
    assert _code(path, limits) == RejectionCode.DECOMPRESSION_BOMB
    path.write_bytes(data[:-8])
    assert _code(path, limits) == RejectionCode.TRUNCATED_PIXELS


@pytest.mark.parametrize("depth", [40, 5000])
@pytest.mark.parametrize("defined", [False, True])
def test_deep_sequences(
    depth: int, defined: bool, limits: DecodeLimits, make_dataset: Make, write_dataset: Write
) -> None:
    """Nested 40 deep (the limit is 32) and 5 000 deep; defined lengths are never parsed, so they do no harm."""
    tag = b"\x08\x00\x40\x11SQ\0\0"
    inner = b""
    for _ in range(depth):
        body = b"\xfe\xff\x00\xe0" + (len(inner).to_bytes(4, "little") if defined else b"\xff" * 4) + inner
        body += b"" if defined else b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
        inner = tag + (len(body).to_bytes(4, "little") if defined else b"\xff" * 4) + body
    path = write_dataset(make_dataset(GREY))
    data = path.read_bytes()
    at = data.find(b"\x10\x00\x10\x00PN")
    path.write_bytes(data[:at] + inner + data[at:])
    if defined:
        assert read_instance(path, limits).stored.shape == (1, 8, 8)
    else:
        assert _code(path, limits) == RejectionCode.NESTED_TOO_DEEP


def test_an_element_length_beyond_the_file(limits: DecodeLimits, make_dataset: Make, write_dataset: Write) -> None:
    path = write_dataset(make_dataset(GREY))
    data = path.read_bytes()
    at = data.find(b"\x10\x00\x10\x00PN") + 6
    path.write_bytes(data[:at] + b"\xf0\xff" + data[at + 2 :])
    with pytest.raises(Rejected):
        read_instance(path, limits)


def test_encapsulated_under_a_native_syntax(limits: DecodeLimits, make_dataset: Make, write_dataset: Write) -> None:
    path = write_dataset(_jpeg2000(make_dataset), syntax=JPEG2000Lossless)
    path.write_bytes(path.read_bytes().replace(JPEG2000Lossless.encode(), ExplicitVRLittleEndian.encode() + b"\0\0\0"))
    assert _code(path, limits) == RejectionCode.CORRUPT_HEADER


def test_the_file_is_never_changed(limits: DecodeLimits, real_files: dict[str, Path]) -> None:
    for name in ("pydicom/CT_small.dcm", "pydicom/MR_truncated.dcm", "pydicom/README.txt"):
        before = (real_files[name].read_bytes(), real_files[name].stat().st_mtime_ns)
        try:
            read_instance(real_files[name], limits)
            read_header(real_files[name], limits)
        except Rejected:
            pass
        assert (real_files[name].read_bytes(), real_files[name].stat().st_mtime_ns) == before


def test_nothing_is_shown_on_the_way(
    limits: DecodeLimits, make_dataset: Make, write_dataset: Write, capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder,
) -> None:  # fmt: skip
    """pydicom would warn with the value of a malformed element, which may be a name: the warning must not get out."""
    path = write_dataset(make_dataset(GREY))
    data = path.read_bytes()
    at = data.find(b"\x20\x00\x0d\x00UI") + 8
    path.write_bytes(data[:at] + b"Anna" + data[at + 4 :])
    with pytest.raises(Rejected) as refused:
        read_instance(path, limits)
    assert refused.value.code is RejectionCode.INVALID_UID
    captured = capfd.readouterr()
    written = captured.out + captured.err + caplog.text + "".join(str(w.message) for w in recwarn)
    assert "Anna" not in written + str(refused.value)


def test_no_descriptor_is_left_open(limits: DecodeLimits, real_files: dict[str, Path]) -> None:
    descriptors = Path("/proc/self/fd")
    before = len(list(descriptors.iterdir())) if descriptors.exists() else 0
    for name in ("pydicom/MR_truncated.dcm", "pydicom/README.txt", "pydicom/CT_small.dcm") * 20:
        try:
            read_instance(real_files[name], limits)
        except Rejected:
            continue
    assert not before or len(list(descriptors.iterdir())) <= before


@pytest.mark.parametrize(
    ("keyword", "field", "read_as"),
    [
        ("RescaleType", "rescale_type", "US"),
        ("PresentationLUTShape", "presentation_lut_shape", ""),
        ("Modality", "modality", "OT"),
    ],
)
def test_a_name_in_a_code_is_not_taken_over(
    limits: DecodeLimits, make_dataset: Make, write_dataset: Write, keyword: str, field: str, read_as: str
) -> None:
    ds = make_dataset(GREY)
    setattr(ds, keyword, "ZYXW ANNA")
    attributes = read_instance(write_dataset(ds), limits).attributes
    assert getattr(attributes, field) == read_as and "ZYXW" not in str(attributes)


def test_a_class_that_is_not_a_uid_is_refused(limits: DecodeLimits, make_dataset: Make, write_dataset: Write) -> None:
    ds = make_dataset(GREY)
    path, wrong = write_dataset(ds), b"1.2.ZYXWNAME"
    data = path.read_bytes()
    at = data.rfind(b"\x08\x00\x16\x00UI") + 8
    length = int.from_bytes(data[at - 2 : at], "little")
    path.write_bytes(data[:at] + wrong.ljust(length, b"\0") + data[at + length :])
    with pytest.raises(Rejected) as refused:
        read_instance(path, limits)
    assert refused.value.code is RejectionCode.INVALID_UID and "ZYXW" not in refused.value.sentence

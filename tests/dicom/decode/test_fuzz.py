"""Mutated real files: every file gives an instance or a rejection, and the parent process survives.

Everything goes through decode workers, because a fault in a C decoder would take this process along; such a crash is
counted as what it is for a user, a rejected file with the code `decoder-crashed`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.read import DecodedInstance, read_header
from pipeline.dicom.intake.sandbox import DecodeWorkers
from pipeline.errors import Rejected, RejectionCode

SEEDS = [
    "CT_small.dcm", "MR_small.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm", "MR_small_jpeg_ls_lossless.dcm", "SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm",
    "SC_rgb_rle_2frame.dcm", "SC_rgb_small_odd_jpeg.dcm", "SC_rgb_gdcm_KY.dcm", "image_dfl.dcm", "rtdose_rle.dcm",
    "JPGExtended.dcm", "693_J2KI.dcm", "dicomdirtests/98892001/CT5N/2062", "test-SR.dcm", "rtplan.dcm",
]  # fmt: skip
EXTREMES = [0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
WORDS = [
    b"SQ", b"OW", b"UN", b"US", b"DS", b"\xfe\xff\xdd\xe0", b"\xfe\xff\x00\xe0", b"\xff\xd9", b"\x28\x00\x10\x00",
    b"1e999",
]  # fmt: skip
Mutation = Callable[[bytearray, random.Random], bytearray]


def flip(data: bytearray, draw: random.Random) -> bytearray:
    """Change up to 8 bits anywhere."""
    for _ in range(draw.randint(1, 8)):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return data


def truncate(data: bytearray, draw: random.Random) -> bytearray:
    """Cut the end off."""
    return data[: draw.randrange(len(data))]


def insert(data: bytearray, draw: random.Random) -> bytearray:
    """Put random bytes somewhere."""
    at = draw.randrange(len(data))
    return data[:at] + bytearray(draw.randbytes(draw.choice([1, 2, 4, 16, 300]))) + data[at:]


def delete(data: bytearray, draw: random.Random) -> bytearray:
    """Remove a few bytes."""
    at = draw.randrange(len(data))
    return data[:at] + data[at + draw.choice([1, 2, 8, 100]) :]


def extreme(data: bytearray, draw: random.Random) -> bytearray:
    """Overwrite two or four bytes, most likely in the header, with an extreme number."""
    width, at = draw.choice([2, 4]), _header_place(data, draw)
    data[at : at + width] = (draw.choice(EXTREMES) % 2 ** (8 * width)).to_bytes(width, draw.choice(["little", "big"]))
    return data


def word(data: bytearray, draw: random.Random) -> bytearray:
    """Overwrite bytes of the header with a delimiter, a VR, a marker or an invalid number."""
    at, token = _header_place(data, draw), draw.choice(WORDS)
    data[at : at + len(token)] = token
    return data


def swap(data: bytearray, draw: random.Random) -> bytearray:
    """Exchange two pieces: values end up under other tags."""
    size = draw.choice([2, 4, 8, 32])
    one, other = sorted((_header_place(data, draw), _header_place(data, draw)))
    if other - one >= size:
        data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]
    return data


def _header_place(data: bytearray, draw: random.Random) -> int:
    """A position after the preamble; nine of ten in the first 4 kB, where the elements are."""
    end = len(data) if draw.random() < 0.1 else min(len(data), 4096)
    return draw.randrange(min(128, end - 1), end)


MUTATIONS: list[Mutation] = [flip, truncate, insert, delete, extreme, extreme, word, swap]


def mutate(data: bytes, draw: random.Random) -> bytes:
    """Apply one to four mutations."""
    mutated = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 4])):
        if len(mutated) > 200:
            mutated = draw.choice(MUTATIONS)(mutated, draw)
    return bytes(mutated)


def check(result: DecodedInstance | Rejected) -> str:
    """Return "accepted" or the code; an accepted instance must be complete, a rejection must have a sentence."""
    if isinstance(result, Rejected):
        assert isinstance(result.code, RejectionCode)
        assert len(result.sentence) > 20
        return result.code.value
    attributes = result.attributes
    assert result.stored.shape == (attributes.frames, attributes.rows, attributes.columns)
    assert result.stored.dtype.kind in "iuf"
    assert result.stored.dtype.kind != "f" or np.isfinite(result.stored).all()
    assert attributes.photometric in ("MONOCHROME1", "MONOCHROME2")
    assert result.identity.sop_uid
    return "accepted"


@pytest.fixture(scope="module")
def fuzz_workers() -> Iterator[DecodeWorkers]:
    """Workers with tight limits, so that a hang or a bomb is cheap to find."""
    limits = DecodeLimits(decoded_bytes=64 * 2**20, memory_bytes=512 * 2**20, seconds=15.0)
    with DecodeWorkers(2, limits) as pool:
        yield pool


@pytest.fixture(scope="module")
def seeds(real_files: dict[str, Path]) -> list[bytes]:
    """The real files that are mutated."""
    return [real_files[f"pydicom/{name}"].read_bytes() for name in SEEDS]


@settings(
    max_examples=300, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(which=st.integers(0, len(SEEDS) - 1), draw=st.randoms(use_true_random=False))
def test_mutated_files(
    which: int, draw: random.Random, seeds: list[bytes], fuzz_workers: DecodeWorkers, tmp_path: Path
) -> None:
    path = tmp_path / "mutated"
    path.write_bytes(mutate(seeds[which], draw))
    try:
        check(fuzz_workers.read(path))
    except Rejected as rejected:
        check(rejected)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, len(SEEDS) - 1), draw=st.randoms(use_true_random=False))
def test_mutated_headers_here(which: int, draw: random.Random, seeds: list[bytes], tmp_path: Path) -> None:
    """Without pixels no C decoder is involved: reading a header in this very process raises nothing but `Rejected`."""
    path = tmp_path / "mutated"
    path.write_bytes(mutate(seeds[which][:20_000], draw))
    try:
        identity, _ = read_header(path, DecodeLimits())
        assert identity.sop_uid
    except Rejected as rejected:
        check(rejected)


@pytest.mark.slow
def test_many_mutated_files(
    seeds: list[bytes], fuzz_workers: DecodeWorkers, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """6 000 inputs; prints the outcomes. A crashed parent would print nothing."""
    total, draw = 6000, random.Random(20260101)

    def paths() -> Iterator[Path]:
        for index in range(total):
            path = tmp_path / f"{index % 64}"  # far more than the pool looks ahead
            path.write_bytes(mutate(draw.choice(seeds), draw))
            yield path

    counts = Counter(check(result) for _, result in fuzz_workers.read_many(paths()))
    with capsys.disabled():
        print(f"\nfuzz: {total} inputs, {counts['accepted']} accepted, crashes of the parent 0; rejected:")
        for code, count in counts.most_common():
            if code != "accepted":
                print(f"  {code}: {count}")
    assert counts.total() == total
    assert counts["accepted"] > total / 10
    assert len(counts) >= 10

"""The pixel store: returns what was stored, stores it once and whole, and Zarr itself can read it."""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from zarr.codecs import BloscCodec
from zarr.storage import MemoryStore, ZipStore

from pipeline.data.store import zarr_zip
from pipeline.data.store.pixel_store import PixelStore, content_key
from pipeline.errors import CatalogueError

DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"]
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 17), st.integers(1, 17))


@pytest.fixture
def store(tmp_path: Path) -> PixelStore:
    return PixelStore(tmp_path / "pixels")


def object_file(tmp_path: Path, key: str) -> Path:
    return tmp_path / "pixels" / key[:2] / f"{key}.zarr.zip"


@given(array=st.sampled_from(DTYPES).flatmap(lambda dtype: arrays(dtype, SHAPES)))
@settings(max_examples=60, deadline=None)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, array: np.ndarray) -> None:
    store = PixelStore(tmp_path_factory.mktemp("pixels"))
    key = store.put(array)
    back = store.get(key)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    np.testing.assert_array_equal(store.get(key, array.shape[0] - 1), array[-1])
    store.verify(key)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zarr_itself_reads_our_objects(store: PixelStore, tmp_path: Path, dtype: str) -> None:
    array = (np.arange(3 * 20 * 30).reshape(3, 20, 30) % 120).astype(dtype)
    key = store.put(array)
    opened = zarr.open_array(ZipStore(object_file(tmp_path, key), mode="r"), mode="r")
    assert opened.metadata.zarr_format == 3
    assert opened.chunks == (1, 20, 30)
    assert opened.dtype == array.dtype
    np.testing.assert_array_equal(opened[:], array)


@pytest.mark.parametrize("dtype", DTYPES)
def test_our_bytes_are_those_of_zarr_and_of_zipfile(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    array = (np.arange(3 * 20 * 30).reshape(3, 20, 30) % 120).astype(dtype)
    ours = zarr_zip.pack(array)
    objects: dict[str, Any] = {}
    codec = BloscCodec(typesize=array.itemsize, cname="zstd", clevel=1, shuffle="bitshuffle")
    options: dict[str, Any] = {"shape": array.shape, "chunks": (1, 20, 30), "dtype": dtype, "fill_value": 0}
    zarr.create_array(MemoryStore(objects), compressors=codec, **options)
    with zipfile.ZipFile(io.BytesIO(ours)) as archive:
        assert archive.testzip() is None
        assert archive.read("zarr.json") == objects["zarr.json"].to_bytes()
    monkeypatch.setattr(zarr_zip, "_LARGEST", 0)  # as if it needed Zip64: `zipfile` writes it
    assert zarr_zip.pack(array) == ours


def test_the_key_is_the_hash_of_type_shape_and_values() -> None:
    array = np.array([[[1, 2], [3, 256]]], dtype=np.uint16)
    expected = hashlib.sha256(b"uint16[1, 2, 2]" + bytes([1, 0, 2, 0, 3, 0, 0, 1])).hexdigest()
    assert content_key(array) == expected
    assert content_key(array.astype(">u2")) == expected
    assert content_key(np.asfortranarray(array)) == expected
    assert content_key(array.astype(np.int16)) != expected
    assert content_key(array.reshape(2, 1, 2)) != expected


def test_equal_content_is_written_once(store: PixelStore, tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.int16).reshape(1, 3, 4)
    key = store.put(array)
    before = object_file(tmp_path, key).stat()
    assert store.put(array.copy()) == key
    assert object_file(tmp_path, key).stat().st_mtime_ns == before.st_mtime_ns
    assert list(store.keys()) == [key]
    assert not any((tmp_path / "pixels" / ".writing").iterdir())


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.int16).reshape(1, 3, 4)
    files = []
    for name in ("one", "two"):
        key = PixelStore(tmp_path / name).put(array)
        files.append((tmp_path / name / key[:2] / f"{key}.zarr.zip").read_bytes())
    assert files[0] == files[1]


def test_empty_store_has_no_keys(store: PixelStore) -> None:
    assert list(store.keys()) == []
    assert not store.exists("0" * 64)


def test_missing_object_and_bad_key_and_bad_frame(store: PixelStore) -> None:
    with pytest.raises(CatalogueError, match="missing"):
        store.get("0" * 64)
    with pytest.raises(CatalogueError, match="64 hexadecimal digits"):
        store.get("../../etc/passwd")
    key = store.put(np.zeros((2, 3, 3), np.uint8))
    for frame in (2, -1):
        with pytest.raises(CatalogueError, match="with 2 frames"):
            store.get(key, frame)


@pytest.mark.parametrize("bad", [np.zeros((3, 3)), np.zeros((0, 3, 3)), np.zeros((1, 2, 2), complex)])
def test_arrays_that_it_cannot_hold(store: PixelStore, bad: np.ndarray) -> None:
    with pytest.raises(CatalogueError, match=re.escape(f"{bad.dtype} {list(bad.shape)}")):
        store.put(bad)


def test_any_flipped_byte_is_noticed_or_means_nothing(store: PixelStore, tmp_path: Path) -> None:
    array = np.random.default_rng(1).integers(0, 4000, (2, 8, 8)).astype(np.int16)
    key = store.put(array)
    file = object_file(tmp_path, key)
    whole, noticed = file.read_bytes(), 0
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 0xFF
        file.write_bytes(flipped)
        try:
            np.testing.assert_array_equal(store.get(key), array)
        except CatalogueError as error:
            assert "damaged" in str(error)
            noticed += 1
    assert noticed > 0.8 * len(whole)
    file.write_bytes(whole[:-30])
    store.put(array)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("length", [0, 1, 200, -1])
def test_truncated_object_is_an_error(store: PixelStore, tmp_path: Path, length: int) -> None:
    array = np.random.default_rng(1).integers(0, 4000, (2, 32, 32)).astype(np.int16)
    key = store.put(array)
    file = object_file(tmp_path, key)
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(CatalogueError, match="damaged"):
        store.get(key)
    store.put(array)
    np.testing.assert_array_equal(store.get(key), array)


def test_verify_detects_wrong_content_under_a_key(store: PixelStore, tmp_path: Path) -> None:
    one, two = (store.put(np.full((1, 4, 4), value, np.uint8)) for value in (1, 2))
    object_file(tmp_path, one).write_bytes(object_file(tmp_path, two).read_bytes())
    with pytest.raises(CatalogueError, match="damaged"):
        store.verify(one)


def test_abandoned_temporary_files_are_swept(tmp_path: Path) -> None:
    writing = tmp_path / "pixels" / ".writing"
    writing.mkdir(parents=True)
    (writing / "old.part").write_bytes(b"half")
    (writing / "fresh.part").write_bytes(b"half")
    os.utime(writing / "old.part", (1, 1))
    store = PixelStore(tmp_path / "pixels")
    key = store.put(np.ones((1, 2, 2), np.uint8))
    assert [entry.name for entry in writing.iterdir()] == ["fresh.part"]
    assert list(store.keys()) == [key]


def test_disk_full_leaves_nothing_half_written(
    store: PixelStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(CatalogueError, match="No space"):
        patch.setattr(os, "fsync", full)
        store.put(np.ones((1, 2, 2), np.uint8))
    assert list(store.keys()) == []
    assert not any(path.is_file() for path in (tmp_path / "pixels").rglob("*"))
    store.verify(store.put(np.ones((1, 2, 2), np.uint8)))


def test_store_below_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CatalogueError, match="written"):
        PixelStore(tmp_path / "file" / "pixels").put(np.ones((1, 2, 2), np.uint8))


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes where nobody may")
def test_read_only_store_is_an_error(store: PixelStore, tmp_path: Path) -> None:
    store.put(np.ones((1, 2, 2), np.uint8))
    (tmp_path / "pixels").chmod(stat.S_IRUSR | stat.S_IXUSR)
    with pytest.raises(CatalogueError, match="written"):
        store.put(np.zeros((1, 2, 2), np.uint8))

"""The pixel store at an fsspec URL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pytest

from pipeline.data.store.pixel_store import PixelStore
from pipeline.errors import CatalogueError, ConfigError


@pytest.fixture
def remote() -> Iterator[PixelStore]:
    yield PixelStore("memory://bucket/pixels")
    fsspec.filesystem("memory").rm("/bucket", recursive=True)


def test_round_trip(remote: PixelStore) -> None:
    array = np.arange(2 * 5 * 7, dtype=np.int16).reshape(2, 5, 7)
    key = remote.put(array)
    assert not remote.is_local
    assert remote.exists(key)
    assert list(remote.keys()) == [key]
    np.testing.assert_array_equal(remote.get(key), array)
    np.testing.assert_array_equal(remote.get(key, 1), array[1])
    remote.verify(key)


def test_damage_and_absence(remote: PixelStore) -> None:
    key = remote.put(np.ones((1, 4, 4), np.uint8))
    fsspec.filesystem("memory").pipe_file(f"/bucket/pixels/{key[:2]}/{key}.zarr.zip", b"PK\x03\x04 nothing")
    with pytest.raises(CatalogueError, match="damaged"):
        remote.get(key)
    with pytest.raises(CatalogueError, match="missing"):
        remote.get("0" * 64)


def test_empty_bucket_has_no_keys() -> None:
    assert list(PixelStore("memory://nowhere/at/all").keys()) == []


def test_a_driver_that_fails_is_a_catalogue_error(remote: PixelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("bucket password=hunter2")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "pipe_file", refuse)
    with pytest.raises(CatalogueError, match="RuntimeError") as caught:
        remote.put(np.zeros((1, 2, 2), np.uint8))
    assert "hunter2" not in str(caught.value)
    monkeypatch.undo()
    remote.put(np.zeros((1, 2, 2), np.uint8))


def test_file_url_is_a_folder(tmp_path: Path) -> None:
    store = PixelStore(f"file://{tmp_path}/pixels")
    key = store.put(np.ones((1, 2, 2), np.uint8))
    assert store.is_local
    assert (tmp_path / "pixels" / key[:2] / f"{key}.zarr.zip").is_file()


def test_unknown_protocol_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match="store_url"):
        PixelStore("gopher://x/y")

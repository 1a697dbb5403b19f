"""The pixel store in a bucket: moto's server on the loopback answers as S3."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli.doctor import _guarded, _store
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.ingest.ingest import ingest
from pipeline.data.store import object_storage
from pipeline.data.store.pixel_store import PixelStore
from pipeline.dicom.phantom.folder import write_phantoms
from pipeline.errors import CatalogueError

pytest.importorskip("s3fs", reason="the extra s3 is not installed")
server = pytest.importorskip("moto.server", reason="moto is not installed")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The URL of an empty bucket, with what a site would have in its environment."""
    import boto3
    import s3fs

    said = {
        "ACCESS_KEY_ID": "test",
        "SECRET_ACCESS_KEY": "test",
        "DEFAULT_REGION": "eu-west-1",
        "ENDPOINT_URL": endpoint,
    }
    for name, value in said.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"pixels-{abs(hash(request.node.name)) % 10**9}"
    boto3.client("s3").create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    return f"s3://{name}/of/site"


def requests_of(store: PixelStore, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the names of the requests that the store sends from now on."""
    system, sent = store._objects._system, []
    call = type(system)._call_s3

    async def counted(self: object, method: str, *more: object, **how: object) -> object:
        sent.append(method)
        return await call(self, method, *more, **how)

    monkeypatch.setattr(type(system), "_call_s3", counted)
    return sent


def test_round_trip_and_deletion(bucket: str) -> None:
    store, array = PixelStore(bucket), np.arange(2 * 5 * 7, dtype=np.int16).reshape(2, 5, 7)
    key = store.put(array)
    assert key == PixelStore(bucket).put(array)  # another machine writes the same
    assert list(store.keys()) == [key] and store.exists(key)
    np.testing.assert_array_equal(store.get(key), array)
    np.testing.assert_array_equal(store.get(key, 1), array[1])
    assert store.delete(key) and not store.delete(key)
    assert not store.exists(key) and list(store.keys()) == []
    with pytest.raises(CatalogueError, match="missing"):
        store.get(key)


def test_what_another_machine_writes_or_erases_is_seen_at_once(bucket: str) -> None:
    ours, key = PixelStore(bucket), PixelStore(bucket).put(np.ones((1, 4, 4), np.uint8))
    assert list(ours.keys()) == [key]  # a listing, which must not be remembered
    code = (
        "import sys, numpy as np\nfrom pipeline.data.store.pixel_store import PixelStore\n"
        "store = PixelStore(sys.argv[1])\nstore.delete(sys.argv[2])\nprint(store.put(np.zeros((1, 3, 3), np.uint8)))\n"
    )
    command = [sys.executable, "-c", code, bucket, key]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=os.environ | {"PYTHONPATH": str(root)})
    assert not ours.exists(key) and ours.exists(done.stdout.strip()), done.stderr


def test_a_slice_costs_one_request(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = PixelStore(bucket)
    key = store.put(np.arange(64 * 64, dtype=np.int16).reshape(1, 64, 64))
    sent = requests_of(store, monkeypatch)
    store.get(key, 0)
    assert sent == ["get_object"]


def test_one_frame_of_a_large_object_is_read_by_ranges(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_storage, "SMALL_BYTES", 4096)
    store = PixelStore(bucket)
    frames = np.random.default_rng(0).integers(0, 2**15, (20, 64, 64), dtype=np.int16)
    key = store.put(frames)
    np.testing.assert_array_equal(store.get(key, 13), frames[13])


def test_a_bucket_that_does_not_answer_is_no_damage(
    bucket: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PixelStore(bucket)
    key = store.put(np.ones((1, 4, 4), np.uint8))

    async def fail(*_: object, **__: object) -> None:
        raise ConnectionError("http://user:secret@bucket")

    monkeypatch.setattr(type(store._objects._system), "_call_s3", fail)
    for act in (lambda: store.get(key), lambda: store.exists(key), lambda: store.delete(key)):
        with pytest.raises(CatalogueError) as caught:
            act()
        assert "secret" not in str(caught.value) and "damaged" not in str(caught.value)
    (check,) = _guarded(_store, settings.model_copy(update={"store_url": bucket}))
    assert not check["ok"]


def test_a_folder_is_ingested_into_a_bucket(bucket: str, settings: Settings, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "in", 3, "MR", 0, 1, size=32)
    remote = settings.model_copy(update={"store_url": bucket})
    assert ingest([tmp_path / "in"], remote).added == 3
    assert not (settings.workspace / "pixels").exists()
    with Catalogue.open(remote) as catalogue, catalogue.engine.connect() as connection:
        keys = connection.exec_driver_sql("SELECT pixel_key FROM instances").scalars().all()
    assert sorted(keys) == sorted(PixelStore(bucket).keys())
    assert ingest([tmp_path / "in"], remote).added == 0

"""Indices of vectors: exact answers, codes, additions, deletions, two processes, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ArtefactError, ConfigError
from pipeline.retrieval.change_index import remove_pixels, update_index
from pipeline.retrieval.config import IndexConfig
from pipeline.retrieval.neighbours import find_neighbours
from pipeline.retrieval.segments import ROWS
from pipeline.retrieval.stored_index import MANIFEST, open_index
from pipeline.retrieval.vector_index import VectorIndex, recall

ENCODER = {"kind": "codes", "model_sha256": "a" * 64}
OTHER = {"kind": "codes", "model_sha256": "b" * 64}
WIDTH = 24
EXACT = IndexConfig(kind="exact")
CODES = IndexConfig(kind="ivf_pq", code_bytes=8, exact_below=256, probes=4)
GRAPH = IndexConfig(kind="hnsw", exact_below=256)


def draw(count: int, seed: int = 0, width: int = WIDTH) -> np.ndarray:
    """Vectors of a few clusters, as images of a few kinds have."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(20, width)) * 2
    return (centres[rng.integers(20, size=count)] + rng.normal(size=(count, width))).astype(np.float32)


def names(count: int, first: int = 0) -> list[str]:
    return [f"{number:064x}/0" for number in range(first, first + count)]


def build(folder: Path, vectors: np.ndarray, config: IndexConfig = EXACT) -> VectorIndex:
    return update_index(folder, ENCODER, config, new=[(names(len(vectors)), vectors)])


def brute_force(vectors: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    """An independent answer, in float64."""
    distance = np.square(vectors[None].astype(float) - queries[:, None].astype(float)).sum(axis=2)
    return np.argsort(distance, axis=1, kind="stable")[:, :count]


def test_exact_search_has_full_recall(tmp_path: Path) -> None:
    vectors, queries = draw(700), draw(40, seed=1)
    index = build(tmp_path, vectors)
    distances, rows = index.search(queries, 10)
    truth = brute_force(vectors, queries, 10)
    assert recall(truth, rows).tolist() == [1.0] * 40
    np.testing.assert_allclose(distances[:, 0], np.square(vectors[truth[:, 0]] - queries).sum(axis=1), rtol=1e-5)
    assert index.addresses(rows[0]) == [names(700)[row] for row in truth[0]]


@pytest.mark.parametrize("config", [CODES, GRAPH], ids=lambda one: one.kind)
def test_a_structure_comes_near_to_exact(tmp_path: Path, config: IndexConfig) -> None:
    index = build(tmp_path, draw(1500), config)
    assert index.structure is not None and len(index.structure) == 1500
    queries = draw(50, seed=2)
    truth, answer = index.search(queries, 10, exact=True)[1], index.search(queries, 10)[1]
    assert recall(truth, answer).mean() > 0.9
    codes_alone = IndexConfig(**{**config.model_dump(), "rerank": 0})
    assert recall(truth, update_index(tmp_path, ENCODER, codes_alone).search(queries, 10)[1]).mean() > 0.3
    chance = recall(truth, np.random.default_rng(0).integers(1500, size=(50, 10))).mean()
    assert chance < 0.1


def test_codes_of_a_full_codebook_are_the_vectors(tmp_path: Path) -> None:
    """With as many centroids as training vectors, each part of a vector is a centroid: nothing is lost (256 of 256)."""
    vectors = draw(256)
    config = IndexConfig(kind="ivf_pq", code_bytes=8, cells=1, probes=1, exact_below=256, rerank=0)
    index = build(tmp_path, vectors, config)
    distances, rows = index.search(vectors, 1)
    assert rows[:, 0].tolist() == list(range(256))
    np.testing.assert_allclose(distances, 0, atol=1e-4)
    assert index.structure is not None
    index.structure.index.make_direct_map()
    np.testing.assert_allclose(index.structure.index.reconstruct_n(0, 256), vectors, atol=1e-5)


@pytest.mark.parametrize("config", [EXACT, CODES, GRAPH], ids=lambda one: one.kind)
def test_deletions_are_gone_after_reload(tmp_path: Path, config: IndexConfig) -> None:
    vectors = draw(600)
    build(tmp_path, vectors, config)
    gone = names(600)[100:140]
    update_index(tmp_path, ENCODER, config, gone=[*gone, "never there/0"])
    index = open_index(tmp_path, ENCODER)
    assert len(index) == 560 and not {*gone} & {*index.list_addresses()}
    assert index.structure is None or len(index.structure) == 560
    nearest = [index.addresses(row)[0] for row in index.search(vectors[[99, 140, 599]], 1)[1]]
    assert nearest == [names(600)[number] for number in (99, 140, 599)]
    deleted = index.search(vectors[100:140], 10)[1]
    assert {name for row in deleted for name in index.addresses(row)}.isdisjoint(gone)
    content = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert all(name.encode() not in content for name in gone) and names(1)[0].encode() in content
    assert all(row.tobytes() not in content for row in vectors[100:140])


def test_a_patient_is_forgotten_by_pixels(tmp_path: Path) -> None:
    addresses = [f"{key * 64}/{frame}" for key in "abc" for frame in range(3)]
    update_index(tmp_path, ENCODER, EXACT, new=[(addresses, draw(9))])
    assert remove_pixels(tmp_path, {"b" * 64}) == 3
    assert remove_pixels(tmp_path, {"b" * 64}) == 0
    assert {address[0] for address in open_index(tmp_path, ENCODER).list_addresses()} == {"a", "c"}


@pytest.mark.parametrize("config", [EXACT, CODES, GRAPH], ids=lambda one: one.kind)
def test_nightly_additions_are_found_beside_the_old_ones(tmp_path: Path, config: IndexConfig) -> None:
    vectors = draw(900)
    build(tmp_path, vectors[:600], config)
    update_index(
        tmp_path,
        ENCODER,
        config,
        new=[(names(100, 600 + start), vectors[600 + start :][:100]) for start in (0, 100, 200)],
    )
    index = open_index(tmp_path, ENCODER)
    assert list(index.list_addresses()) == names(900)
    assert index.search(vectors[::7], 1)[1][:, 0].tolist() == list(range(0, 900, 7))
    again = update_index(tmp_path, ENCODER, config, new=[(names(900), vectors)])
    assert len(again) == 900 and len([*tmp_path.glob("segment-*")]) == 1


def test_segments_are_filled_and_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ROWS == 65_536
    monkeypatch.setattr("pipeline.retrieval.change_index.ROWS", 100)
    vectors = draw(330)
    index = update_index(tmp_path, ENCODER, EXACT, new=[(names(70), vectors[:70]), (names(260, 70), vectors[70:])])
    assert [len(part) for part in index.parts] == [100, 100, 100, 30]
    assert index.search(vectors[::11], 1)[1][:, 0].tolist() == list(range(0, 330, 11))
    np.testing.assert_array_equal(index.vectors(np.array([5, 329, 100])), vectors[[5, 329, 100]])


def test_an_index_of_another_model_is_refused(tmp_path: Path) -> None:
    build(tmp_path, draw(10))
    for refused in (lambda: open_index(tmp_path, OTHER), lambda: update_index(tmp_path, OTHER, EXACT)):
        with pytest.raises(ArtefactError) as error:
            refused()
        hashes = [json.loads((tmp_path / MANIFEST).read_text())["encoder_sha256"][:12]]
        assert all(part in str(error.value) for part in hashes)
    assert len(open_index(tmp_path, ENCODER)) == 10


def test_a_changed_byte_is_refused(tmp_path: Path) -> None:
    build(tmp_path, draw(400), CODES)
    for pattern in ("segment-*", "structure-*"):
        (file,) = tmp_path.glob(pattern)
        original = file.read_bytes()
        file.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
        with pytest.raises(ArtefactError):
            open_index(tmp_path, ENCODER)
        file.write_bytes(original)
    assert len(open_index(tmp_path, ENCODER)) == 400
    file.unlink()
    with pytest.raises(ArtefactError):
        open_index(tmp_path, ENCODER)


def test_an_empty_index_answers_nothing(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError):
        open_index(tmp_path, ENCODER)
    index = update_index(tmp_path, ENCODER, CODES)
    assert len(index) == 0 and index.search(draw(3), 5)[1].shape == (3, 0)
    assert find_neighbours(index, draw(2), [set(), set()], 3, lambda addresses: {}) == [[], []]
    build(tmp_path, draw(300), CODES)
    emptied = update_index(tmp_path, ENCODER, CODES, gone=names(300))
    assert len(emptied) == 0 and emptied.structure is None and [*tmp_path.glob("*.safetensors")] == []


@pytest.mark.parametrize(
    "vectors", [draw(3), draw(2, width=7), np.full((2, WIDTH), np.nan)], ids=["count", "width", "nan"]
)
def test_vectors_that_do_not_fit_are_refused(tmp_path: Path, vectors: np.ndarray) -> None:
    build(tmp_path, draw(5))
    with pytest.raises(ConfigError):
        update_index(tmp_path, ENCODER, EXACT, new=[(names(2, 50), vectors)])
    assert len(open_index(tmp_path, ENCODER)) == 5
    with pytest.raises(ConfigError):
        open_index(tmp_path, ENCODER).search(draw(1, width=7), 1)


def test_a_failed_change_leaves_the_index_as_it_was(tmp_path: Path) -> None:
    build(tmp_path, draw(50))

    def interrupted() -> Any:
        yield names(20, 50), draw(20)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        update_index(tmp_path, ENCODER, EXACT, new=interrupted(), gone=names(10))
    assert list(open_index(tmp_path, ENCODER).list_addresses()) == names(50)
    update_index(tmp_path, ENCODER, EXACT)
    assert len([*tmp_path.glob("*.safetensors")]) == 1


ADD = """
import sys
import time
from pathlib import Path
from tests.retrieval.test_vector_index import CODES, ENCODER, draw, names
from pipeline.retrieval.change_index import update_index
first = int(sys.argv[2])
for start in range(first, first + 400, 100):
    update_index(Path(sys.argv[1]), ENCODER, CODES, new=[(names(100, start), draw(100, seed=start))])
"""


def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    build(tmp_path, draw(300), CODES)
    root = Path(__file__).resolve().parents[2]
    writers = [subprocess.Popen([sys.executable, "-c", ADD, str(tmp_path), str(n)], cwd=root) for n in (1000, 2000)]
    sizes = []
    while any(writer.poll() is None for writer in writers):
        time.sleep(0.05)
        sizes.append(len(open_index(tmp_path, ENCODER)))  # a reader has a whole version, whatever the writers do
    assert [writer.returncode for writer in writers] == [0, 0]
    index = open_index(tmp_path, ENCODER)
    assert {*index.list_addresses()} == {*names(300), *names(400, 1000), *names(400, 2000)}
    assert index.structure is not None and len(index.structure) == 1100
    assert sizes == sorted(sizes) and {size % 100 for size in sizes} <= {0}


def test_neighbours_are_of_different_patients_and_never_the_own_or_a_deleted_one(tmp_path: Path) -> None:
    angles = np.deg2rad([0, 1, 2, 3, 40, 50])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    index = build(tmp_path, vectors)
    patients = dict(zip(names(6), [{"own"}, {"a"}, {"a"}, {"b", "own"}, {"c"}, {"d"}], strict=True))
    del patients[names(6)[4]]  # no longer in the catalogue

    def nearest(own: set[str], count: int = 3) -> list[int]:
        near = find_neighbours(index, vectors[:1], [own], count, lambda addresses: patients)[0]
        return [names(6).index(one.address) for one in near]

    assert nearest({"own"}) == [1, 5]
    assert nearest(set()) == [0, 1, 5]
    assert nearest({"own"}, 1) == [1]


def test_the_search_reaches_beyond_the_own_patient(tmp_path: Path) -> None:
    """300 slices of the query's own patient are nearer than any other patient's."""
    vectors = np.concatenate([np.linspace(0, 0.1, 300), np.linspace(1, 2, 20)])[:, None].astype(np.float32)
    index = build(tmp_path, vectors)
    patients = {name: {"own"} if place < 300 else {f"p{place}"} for place, name in enumerate(names(320))}
    near = find_neighbours(index, vectors[:1], [{"own"}], 5, lambda addresses: patients)[0]
    assert [one.address for one in near] == names(5, 300)


def test_a_penalty_moves_neighbours_back(tmp_path: Path) -> None:
    index = build(tmp_path, np.array([[0.0], [0.1], [0.2]], np.float32))
    patients = {name: {name} for name in names(3)}
    far = {names(3)[0]: 1.0}

    def penalty(_query: int, addresses: Any) -> np.ndarray:
        return np.array([far.get(one, 0.0) for one in addresses])

    near = find_neighbours(index, np.zeros((1, 1), np.float32), [set()], 3, lambda addresses: patients, penalty)[0]
    assert [one.address for one in near] == [names(3)[n] for n in (1, 2, 0)]
    assert near[-1].distance == 0

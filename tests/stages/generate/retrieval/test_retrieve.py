"""The task `retrieve`: an index that agrees with the catalogue, and neighbours beside frozen features and pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import ArtefactError, ConfigError
from pipeline.evaluation.retrieval_quality import compare_precision, share_relevant
from pipeline.methods import Model, parse_method
from pipeline.methods.stored_model import images_of
from pipeline.retrieval.config import IndexConfig
from pipeline.retrieval.encoders import code_encoder, frozen_encoder, pixel_encoder, require_code_of_image
from pipeline.retrieval.stored_index import open_index
from pipeline.stages.generate.retrieval.relevance import Relevance
from pipeline.stages.generate.retrieval.retrieve import open_ways, read_library, search
from pipeline.stages.generate.retrieval.slice_index import index_folder, patients_of_refs, read_patients, synchronise
from pipeline.stages.generate.run_task import run_task
from pipeline.stages.generate.task_config import RetrieveTask, load_task_as
from pipeline.stages.generate.task_images import choose_real
from pipeline.stages.generate.task_report import TaskReport
from pipeline.stages.generate.trained_model import TrainedModel, train_for
from pipeline.stages.run.load_slices import dataset
from pipeline.tracking.experiment import connect
from pipeline.types import SliceRef
from tests.stages.conftest import Hospital

CODES = ["run.method={name: vq_vae, widths: [8, 16], entries: 16, code_width: 4}", "run.name=tiny-codes"]
WAYS = ["pixels", "frozen features", "vq_vae codes"]


@pytest.fixture(scope="module")
def task(task_file: Path) -> RetrieveTask:
    return load_task_as(RetrieveTask, task_file, [*CODES, "classes=[]", "level=0.2", "neighbours=5", "count=20"])


@pytest.fixture(scope="module")
def report(hospital: Hospital, task: RetrieveTask) -> TaskReport:
    return run_task(task, hospital.settings)


@pytest.fixture(scope="module")
def trained(hospital: Hospital, task: RetrieveTask, report: TaskReport) -> TrainedModel:
    return train_for(task, hospital.settings, require_code_of_image)


def test_every_way_has_its_precision_and_chance_is_beside(report: TaskReport, hospital: Hospital) -> None:
    assert [row["name"] for row in report.rows] == ["drawn at random", *WAYS]
    by_chance, *ways = (row["precision"]["value"] for row in report.rows)
    assert by_chance == pytest.approx(1 / 3, abs=0.01)  # a head has three slices, each at a level of its own
    assert max(ways) > by_chance
    assert report.metrics["precision"] == ways[-1]
    assert report.folder.sheet.is_file() and any("fewer than 5000" in line for line in report.warnings)
    connect(hospital.settings)
    run = mlflow.get_run(report.folder.read("mlflow.json")["run_id"])
    assert (run.data.tags["task"], run.data.tags["synthetic"]) == ("retrieve", "no")
    assert run.data.metrics["precision"] == pytest.approx(ways[-1])


def test_neighbours_are_of_other_patients(hospital: Hospital, task: RetrieveTask, trained: TrainedModel) -> None:
    within = task.model_copy(update={"of": ("validate",)})  # whose patients are in the library, too
    library = read_library(within, trained, hospital.settings)
    patients = patients_of_refs(library.chosen.slices)
    for way in open_ways(within, trained, library, hospital.settings):
        for query, near in zip(library.queries.patients, search(way, library, within).neighbours, strict=True):
            owners = [owner for one in near for owner in patients[one.address]]
            assert len(owners) == len({*owners}) == 5 and query not in owners


def test_the_index_follows_the_catalogue(
    hospital: Hospital, task: RetrieveTask, trained: TrainedModel, tmp_path: Path
) -> None:
    config, encoder = IndexConfig(kind="exact"), code_encoder(trained.model)
    with Catalogue.open(hospital.settings) as catalogue:
        chosen = choose_real(trained.run, hospital.settings, catalogue, ("train",))
        few = replace(chosen, slices=chosen.slices[:12])
        whose = read_patients(catalogue, [ref.content_id for ref in few.slices] + ["f" * 64 + "/0"])
    assert whose == patients_of_refs(few.slices)

    def read(part: Any) -> Any:
        return dataset(part, trained.run, hospital.settings, cache="none", whole=False)

    first = synchronise(tmp_path, encoder, config, few, read)
    later = synchronise(tmp_path, encoder, config, replace(chosen, slices=chosen.slices[6:20]), read)
    assert (first.added, first.removed, later.added, later.removed) == (12, 0, 8, 6)
    assert {*later.index.list_addresses()} == {ref.content_id for ref in chosen.slices[6:20]}
    assert synchronise(tmp_path, encoder, config, chosen, read, limit=16).added == 2
    assert (
        synchronise(tmp_path, encoder, config, chosen, read, limit=16).index.version
        == open_index(tmp_path, encoder.facts).version
    )
    one = later.index.vectors(np.array([0]))
    images = read(replace(chosen, slices=chosen.slices[6:7])).batch([0]).images
    np.testing.assert_allclose(encoder.embed(images), one, rtol=1e-5, atol=1e-6)
    with pytest.raises(ArtefactError):
        synchronise(tmp_path, frozen_encoder(images_of(trained.model.normaliser, None)), config, chosen, read)


def test_each_encoder_and_configuration_has_an_index_of_its_own(hospital: Hospital, trained: TrainedModel) -> None:
    images = images_of(trained.model.normaliser, None)
    encoders = [pixel_encoder(images), frozen_encoder(images), code_encoder(trained.model), pixel_encoder({})]
    folders = {index_folder(hospital.settings, "r", one, sets, config)
               for one in encoders for sets in (("train",), ("train", "validate"))
               for config in (IndexConfig(), IndexConfig(kind="hnsw"))}  # fmt: skip
    assert len(folders) == 16
    assert encoders[2].facts["model_sha256"] == trained.sha256 != ""


def test_codes_are_entries_of_the_codebook(trained: TrainedModel) -> None:
    method: Any = trained.model.method
    x = torch.rand(3, 1, 32, 32) * 2 - 1
    by_hand = method.quantiser.codebook[method.to_tokens(x)].movedim(-1, 1)  # [3, D, 8, 8]
    cells = by_hand.reshape(3, 4, 4, 2, 4, 2).mean(dim=(3, 5)).flatten(1)
    np.testing.assert_allclose(code_encoder(trained.model).embed(x), cells.detach().numpy(), atol=1e-6)


def test_a_method_without_a_code_is_refused_before_it_is_trained(hospital: Hospital, task_file: Path) -> None:
    method = "run.method={name: knn_features, backbone: {kind: random, depths: [1, 2]}, entries: 64, projection: 8}"
    task = load_task_as(RetrieveTask, task_file, [method, "run.name=no-codes"])
    with pytest.raises(ConfigError):
        run_task(task, hospital.settings)
    assert not [*hospital.settings.runs.glob("*no-codes*")]


@pytest.mark.parametrize("name", ["vae", "stylegan2", "multiscale_vq"])
def test_other_codecs_make_vectors_too(name: str, small: dict[str, dict[str, Any]], trained: TrainedModel) -> None:
    method = parse_method({"name": name, **small.get(name, {})}).build(32)
    vectors = code_encoder(Model(method, trained.model.normaliser)).embed(torch.zeros(2, 1, 32, 32))
    assert vectors.shape[0] == 2 and vectors.dtype == np.float32 and np.isfinite(vectors).all()


def ref(key: str, patient: str, body_part: str, place: float) -> SliceRef:
    attributes = {"modality": "MR", "body_part": body_part}
    return SliceRef(f"i{key}", 0, "s", "t", patient, key, attributes, place)


def test_relevance_and_chance_by_hand() -> None:
    library = [
        ref("a", "p", "HEAD", 0.1),
        ref("b", "q", "HEAD", 0.5),
        ref("c", "q", "CHEST", 0.12),
        ref("d", "r", "HEAD", 0.2),
    ]
    queries = [ref("e", "p", "HEAD", 0.15)]
    both = Relevance.of(("body_part",), 0.1, library, queries)
    assert [both.is_relevant(0, f"{key}/0") for key in "abcd"] == [True, False, False, True]
    assert both.by_chance().tolist() == [1 / 3]  # a is of the same patient; of b, c, d only d is relevant
    with pytest.raises(ConfigError):
        Relevance.of((), None, library, queries)
    with pytest.raises(ConfigError):
        Relevance.of(("body_part",), None, library, [ref("f", "p", "KNEE", 0.1)])


def test_precision_counts_images_and_compares_within_patients() -> None:
    shares = share_relevant([[True, True], [True, False], []], 2)
    assert shares.tolist() == [1.0, 0.5, 0.0]
    rows = compare_precision({"a": shares, "b": shares - 0.25}, ["p", "p", "q"], ["a"])
    assert rows[0].precision.value == pytest.approx(0.5) and rows[0].over == {}
    gain = rows[1].over["a"]
    assert (gain.value, gain.low, gain.high) == pytest.approx((-0.25, -0.25, -0.25))

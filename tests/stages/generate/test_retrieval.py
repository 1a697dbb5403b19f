"""Retrieval of the nearest normals: truly the nearest, one per patient, and never the patient's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.sets.selection import select_slices
from pipeline.detection.stored_detector import load_detector
from pipeline.stages.generate.retrieval import NormalIndex, SimilarNormals
from pipeline.stages.run.run_folder import RunFolder


def index() -> NormalIndex:
    angles = np.deg2rad([0, 10, 20, 30, 5])
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    addresses = np.array([f"{letter * 64}/0" for letter in "abcde"])
    return NormalIndex(features, np.full(5, 0.5), addresses, np.array([0, 1, 2, 2, 3]))


def test_nearest_by_angle_and_one_per_patient() -> None:
    neighbours = index().nearest(np.array([np.cos(np.deg2rad(29)), np.sin(np.deg2rad(29))], np.float32), 0.5, set(), 3)
    assert [one.pixel_key[0] for one in neighbours] == ["d", "b", "e"]  # c is nearer than b, and of d's patient
    np.testing.assert_allclose(neighbours[0].alike, np.cos(np.deg2rad(1)), atol=1e-5)


def test_a_patient_is_not_compared_with_himself() -> None:
    neighbours = index().nearest(np.array([1, 0], np.float32), 0.5, {"a" * 64}, 2)
    assert [one.pixel_key[0] for one in neighbours] == ["e", "b"]


def test_the_same_place_in_the_body_comes_first() -> None:
    one = index()
    moved = NormalIndex(one.features, np.array([1.0, 0.5, 0.5, 0.5, 1.0]), one.addresses, one.patients)
    assert moved.nearest(np.array([1, 0], np.float32), 0.5, set(), 1)[0].pixel_key[0] == "b"


def test_neighbours_are_normals_of_train_and_validate(scored: Any) -> None:
    with Catalogue.open(scored.settings) as catalogue:
        finding = catalogue.list_findings(scored.run_id, flagged=True)[0]
        similar = SimilarNormals(catalogue, scored.settings)
        detector = load_detector(RunFolder(scored.settings.absolute(catalogue.run(finding.run_id).folder)).detector)
        series = next(iter(select_slices(catalogue, study_ids=[finding.study_id]).members.values()))
        neighbours = similar.ask(finding, detector, series, 0).result()
        normals = {ref.pixel_key for ref in select_slices(catalogue, sets=("train", "validate")).slices}
        assert len(neighbours) == 4
        assert {one.pixel_key for one in neighbours} <= normals
        refs = [similar.find_slice(one) for one in neighbours]
        assert len({ref.patient_id for ref in refs}) == 4
        assert finding.patient_id not in {ref.patient_id for ref in refs}
        similar.close()

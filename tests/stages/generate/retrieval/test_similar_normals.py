"""The nearest normals of a reading list: of the same place in the body, one per patient, never the patient's own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.sets.selection import select_slices
from pipeline.detection.stored_detector import load_detector
from pipeline.retrieval.stored_index import MANIFEST
from pipeline.stages.generate.retrieval.similar_normals import NormalCase, SimilarNormals
from pipeline.stages.generate.retrieval.slice_index import forget_pixels
from pipeline.stages.run.run_folder import RunFolder


class Reader:
    """A reader who opens the first flagged finding, in a copy of the workspace."""

    def __init__(self, settings: Settings, run_id: str) -> None:
        self.settings, self.catalogue = settings, Catalogue.open(settings)
        self.finding = self.catalogue.list_findings(run_id, flagged=True)[0]
        folder = settings.absolute(self.catalogue.run(self.finding.run_id).folder)
        self.detector = load_detector(RunFolder(folder).detector)
        self.series = next(iter(select_slices(self.catalogue, study_ids=[self.finding.study_id]).members.values()))

    def ask(self) -> list[tuple[NormalCase, Any]]:
        """The neighbours with their slices, as a new process of the web server finds them."""
        similar = SimilarNormals(self.catalogue, self.settings)
        try:
            cases = similar.ask(self.finding, self.detector, self.series, 0).result()
            return [(one, similar.find_slice(one)) for one in cases]
        finally:
            similar.close()


@pytest.fixture
def reader(scored: Any, tmp_path: Path) -> Any:
    shutil.copytree(scored.settings.workspace, tmp_path / "workspace")
    one = Reader(scored.settings.model_copy(update={"workspace": tmp_path / "workspace"}), scored.run_id)
    yield one
    one.catalogue.close()


def test_neighbours_are_normals_of_train_and_validate(reader: Reader) -> None:
    answer = reader.ask()
    normals = {ref.pixel_key: ref for ref in select_slices(reader.catalogue, sets=("train", "validate")).slices}
    assert len(answer) == 4 and {one.pixel_key for one, _ in answer} <= normals.keys()
    assert all(normals[one.pixel_key].label == "normal" for one, _ in answer)
    patients = {ref.patient_id for _, ref in answer}
    assert len(patients) == 4 and reader.finding.patient_id not in patients
    assert all(0 < one.alike <= 1 for one, _ in answer)


def test_a_forgotten_patient_is_no_neighbour_and_leaves_no_trace(reader: Reader) -> None:
    gone = reader.ask()[0][0].pixel_key
    assert forget_pixels(reader.settings, {gone}) == 1
    (manifest,) = reader.settings.indices.glob(f"*/{MANIFEST}")
    content = b"".join(file.read_bytes() for file in manifest.parent.iterdir() if file.is_file())
    assert gone.encode() not in content
    # The catalogue still has it here, so the next start enters it again; a deletion removes it there first.
    assert gone in {one.pixel_key for one, _ in reader.ask()}


def test_no_pseudonym_is_in_an_index(reader: Reader) -> None:
    reader.ask()
    content = b"".join(file.read_bytes() for file in reader.settings.indices.rglob("*") if file.is_file())
    refs = select_slices(reader.catalogue).slices
    assert content and all(ref.patient_id.encode() not in content for ref in refs)
    assert any(ref.pixel_key.encode() in content for ref in refs)


def test_the_same_place_in_the_body_comes_first() -> None:
    from pipeline.stages.generate.retrieval.similar_normals import PLACE_WEIGHT, OpenNormals

    normals = OpenNormals(Path(), None, {"a/0": 1.0, "b/0": 0.5}, None)  # type: ignore[arg-type]
    penalty = normals.penalise(0.5)(0, ["a/0", "b/0", "unknown/0"])
    np.testing.assert_allclose(penalty, PLACE_WEIGHT * np.array([0.5, 0.0, 1.5]))

"""Learning from unlabelled scans: whose scans are read, what is kept, and what a run says of it."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
from pydantic import ValidationError
from safetensors.torch import load_file
from sqlalchemy import select, update

from pipeline.config import Settings, load_config
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import Patient
from pipeline.errors import EmptySelection
from pipeline.methods.stored_model import load_model
from pipeline.stages.detect.train import train
from pipeline.stages.run.load_slices import choose, choose_unlabelled
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.run.run_folder import RunFolder
from tests.conftest import PhantomNight, TrainedWorkspace

DAE = {"name": "gated_dae", "widths": [8, 8, 8, 16, 16, 8], "pasting": {}}
LOW = {"seeds": 0.2, "regions": 0.2, "seed_area": 0.001, "area": 0.001}


@pytest.fixture(scope="module")
def hospital(trained: TrainedWorkspace, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings(workspace=tmp_path_factory.mktemp("unlabelled") / "workspace")
    shutil.copytree(trained.settings.workspace, settings.workspace)
    with Catalogue.open(settings) as catalogue, catalogue.session() as session:
        waiting = select(Patient.patient_id).where(Patient.set_name.is_(None)).order_by(Patient.patient_id).limit(3)
        session.execute(update(Patient).where(Patient.patient_id.in_(waiting)).values(set_name="train"))
    return settings


def _config(night: PhantomNight, **sections: Any) -> RunConfig:
    values = load_config(night.config, RunConfig).model_dump(mode="json")
    sections = {"method": DAE, "unlabelled": {"harvest": LOW}, **sections}
    return RunConfig.model_validate({**values, **sections})


def test_it_learns_from_what_its_teacher_finds(hospital: Settings, phantom_night: PhantomNight) -> None:
    config = _config(phantom_night)
    run = train(config, hospital)
    folder = RunFolder.open(run)
    findings = load_file(folder.path / "findings.safetensors")
    images, outlines = findings["images"], findings["outlines"]
    assert (folder.path / "findings.png").read_bytes().startswith(b"\x89PNG")
    assert images.shape == outlines.shape and images.shape[1:] == (1, 32, 32) and len(images)
    assert float(outlines.amin()) >= 0 and (outlines.flatten(1).amax(1) > 0.5).all()
    assert load_model(folder.model).method.supervision == "unlabelled"
    assert set(folder.read("data.json")) == {"train", "validate", "unlabelled"}
    (teacher,) = [one for one in hospital.runs.glob("*gated_dae*") if one != folder.path]
    assert load_model(teacher).method.supervision == "normals" and not (teacher / "findings.safetensors").exists()
    assert train(config, hospital) == run


def test_the_same_findings_are_read_again(hospital: Settings, phantom_night: PhantomNight) -> None:
    folder = RunFolder.open(train(_config(phantom_night), hospital))
    before = (folder.path / "findings.safetensors").read_bytes()
    weights = (folder.model / "weights.safetensors").read_bytes()
    shutil.rmtree(folder.model)
    shutil.rmtree(folder.training)
    train(_config(phantom_night), hospital)
    assert (folder.path / "findings.safetensors").read_bytes() == before
    assert (folder.model / "weights.safetensors").read_bytes() == weights


def test_only_patients_in_train_are_read_and_no_label(hospital: Settings, phantom_night: PhantomNight) -> None:
    config = _config(phantom_night)
    with Catalogue.open(hospital) as catalogue:
        before = choose_unlabelled(catalogue, config, hospital)
        sets = {patient: name for patient, name in _sets(catalogue)}
        (waiting,) = sorted(patient for patient, name in sets.items() if name is None)[:1]
        with catalogue.session() as session:
            session.execute(update(Patient).where(Patient.patient_id == waiting).values(set_name="train"))
        after = choose_unlabelled(catalogue, config, hospital)
        normals = choose(catalogue, config, hospital, sets=("train",))
        with catalogue.session() as session:
            session.execute(update(Patient).where(Patient.patient_id == waiting).values(set_name=None))
    assert {sets[ref.patient_id] for ref in before.slices} == {"train"}
    assert {ref.patient_id for ref in after.slices} - {ref.patient_id for ref in before.slices} == {waiting}
    assert waiting not in {ref.patient_id for ref in normals.slices}
    assert {(ref.label, ref.mask_key) for ref in after.slices} == {("unknown", None)}
    assert {(ref.label, ref.mask_key) for refs in after.members.values() for ref in refs} == {("unknown", None)}


def _sets(catalogue: Catalogue) -> list[Any]:
    with catalogue.reading() as session:
        return list(session.execute(select(Patient.patient_id, Patient.set_name)).tuples())


def test_scans_that_the_teacher_learned_as_normal_teach_nothing(
    trained: TrainedWorkspace, phantom_night: PhantomNight
) -> None:
    before = set(trained.settings.runs.iterdir())
    with pytest.raises(EmptySelection, match=r"data\.splits\.unlabelled"):
        train(_config(phantom_night), trained.settings)
    assert set(trained.settings.runs.iterdir()) == before


def test_a_teacher_that_finds_nothing_is_an_error(hospital: Settings, phantom_night: PhantomNight) -> None:
    with pytest.raises(EmptySelection, match=r"harvest\.area"):
        train(_config(phantom_night, unlabelled={"harvest": {**LOW, "area": 0.99}}), hospital)


@pytest.mark.parametrize(
    ("sections", "field"),
    [
        ({"method": {**DAE, "pasting": None}}, "pasting"),
        ({"unlabelled": None}, "unlabelled"),
        ({"unlabelled": {"teacher": {"data": {"fold": None}}}}, "sections data"),
        ({"unlabelled": {"harvest": {"seeds": 0.1, "regions": 0.01}}}, "rarer"),
        ({"method": {"name": "ensemble", "members": [{"run": "a"}, {"run": "b"}]}}, "ensemble"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    phantom_night: PhantomNight, sections: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError, match=field):
        _config(phantom_night, **sections)


def test_the_teacher_may_be_another_method(phantom_night: PhantomNight) -> None:
    given = {"teacher": {"name": "first", "method": {"name": "ae"}, "training": {"images": 32}}}
    teacher = _config(phantom_night, unlabelled=given).build_teacher_run()
    assert (teacher.name, teacher.method.name, teacher.training.images) == ("first", "ae", 32)
    assert teacher.unlabelled is None
    own = _config(phantom_night).build_teacher_run()
    assert own.method.name == "gated_dae" and own.unlabelled is None and "pasting" not in own.method.model_fields_set

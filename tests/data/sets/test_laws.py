"""Laws of the sets: a leaked patient fails, only normal slices are trained on, and merged patients stay in test."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from sqlalchemy import select

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.patients import find_merged, merge_patients
from pipeline.data.catalogue.schema import LabelRow, MergedPatient, Patient, Study
from pipeline.data.labels.labels import add_label
from pipeline.data.sets.selection import slices
from pipeline.data.sets.splits import SplitPolicy, assign_sets, check_disjoint, eligible
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.identity.pseudonyms import Ids
from pipeline.errors import CatalogueError
from pipeline.types import LABELLED_SETS, NORMAL_SETS, SliceRef

Enter = Callable[..., str]


def _slice(patient: str, set_name: str | None = "train", label: str = "normal") -> SliceRef:
    return SliceRef("i", 0, "s", "t", patient, "k", {}, 0.5, label=label, set_name=set_name)  # type: ignore[arg-type]


def test_a_leaked_patient_fails() -> None:
    sets = {"train": [_slice("a"), _slice("b")], "test": [_slice("c", "test"), _slice("d", "test")]}
    check_disjoint(sets)
    sets["test"].append(_slice("b", "test"))  # the planted leak
    with pytest.raises(CatalogueError, match=r"\b1\b.*\btest\b.*\btrain\b.*\bb\b"):
        check_disjoint(sets)


def test_slices_of_one_patient_may_stand_in_one_set_often() -> None:
    check_disjoint({"train": [_slice("a")] * 5, "validate": iter([_slice("b", "validate")]), "test": []})


def test_only_normal_slices_teach() -> None:
    for set_name, label in product((*NORMAL_SETS, *LABELLED_SETS, None), ("normal", "abnormal", "unknown")):
        expected = label == "normal" if set_name in NORMAL_SETS else set_name is not None and label != "unknown"
        assert eligible(_slice("p", set_name, label)) == expected


def _ingest(catalogue: Catalogue, people: int) -> list[Ids]:
    everyone = [Ids(*(f"{level}{number:031d}" for level in "abcd"), identified=number != 0) for number in range(people)]
    with catalogue.session() as session:
        for ids in everyone:
            catalogue.add_instance(
                session, ids, InstanceAttributes(modality="CR", rows=2, columns=2), pixel_key="0" * 64
            )
    return everyone


def test_a_later_abnormal_label_takes_slices_out_but_moves_nobody(settings: Settings) -> None:
    with Catalogue.open(settings) as catalogue:
        everyone = _ingest(catalogue, 3)
        with catalogue.session() as session:
            for ids in everyone:
                add_label(session, "study", ids.study_id, "normal", source="t")
        assign_sets(catalogue, SplitPolicy(normals={"train": 1.0}))
        assert {ref.patient_id for ref in slices(catalogue, sets=("train",))} == {i.patient_id for i in everyone[1:]}
        with catalogue.session() as session:
            add_label(session, "study", everyone[1].study_id, "abnormal", source="t")
        assign_sets(catalogue, SplitPolicy(normals={"train": 1.0}))
        assert {ref.patient_id for ref in slices(catalogue, sets=("train",))} == {everyone[2].patient_id}
        with catalogue.reading() as session:
            patient = session.get(Patient, everyone[1].patient_id)
            assert patient is not None and patient.set_name == "train"


def test_sets_made_from_the_catalogue_are_disjoint(settings: Settings) -> None:
    with Catalogue.open(settings) as catalogue:
        everyone = _ingest(catalogue, 40)
        with catalogue.session() as session:
            for number, ids in enumerate(everyone):
                add_label(session, "instance", ids.instance_id, "abnormal" if number % 4 == 0 else "normal", source="t")
        assign_sets(catalogue, SplitPolicy())
        chosen = {name: slices(catalogue, sets=(name,)) for name in (*NORMAL_SETS, *LABELLED_SETS)}
    check_disjoint(chosen)
    assert sum(len(refs) for refs in chosen.values()) == 39  # all but the unidentified one


@pytest.mark.parametrize(
    ("keep", "absorb", "joint"),
    [
        ("train", "test", "test"),
        ("test", "train", "test"),
        ("develop", "gate", "gate"),
        ("calibrate", "develop", "develop"),
        ("calibrate", "train", "train"),
        ("calibrate", "validate", "validate"),
        (None, "train", "train"),
        ("train", None, "train"),
        (None, None, None),
    ],
)
def test_test_membership_wins_a_merge(
    catalogue: Catalogue, enter: Enter, keep: str | None, absorb: str | None, joint: str | None
) -> None:
    survivor = enter(catalogue, "kept", ["normal"], set_name=keep, draw=0.25)
    gone = enter(catalogue, "gone", ["abnormal"], set_name=absorb, draw=0.75)
    enter(catalogue, "gone", ["normal"], level="patient")
    assert merge_patients(catalogue, survivor, gone) == joint
    with catalogue.reading() as session:
        patient = session.scalars(select(Patient)).one()
        assert (patient.patient_id, patient.set_name, patient.draw) == (survivor, joint, 0.25)
        assert set(session.scalars(select(Study.patient_id))) == {survivor}
        assert session.scalars(select(LabelRow.subject).where(LabelRow.level == "patient")).one() == survivor
        assert find_merged(session, gone) == survivor and find_merged(session, survivor) == survivor


def test_merges_chain_and_refuse_nonsense(catalogue: Catalogue, enter: Enter) -> None:
    a, b, c = (enter(catalogue, name, ["normal"]) for name in "abc")
    merge_patients(catalogue, b, a)
    assert merge_patients(catalogue, c, a) is None  # by a former name: it is b that is absorbed now
    with catalogue.reading() as session:
        rows = session.execute(select(MergedPatient.absorbed_id, MergedPatient.patient_id)).all()
    assert dict(rows) == {a: c, b: c}
    for keep, absorb in ((c, c), (a, b), (c, "f" * 32)):
        with pytest.raises(CatalogueError):
            merge_patients(catalogue, keep, absorb)


def test_files_of_an_absorbed_patient_go_to_the_joint_patient(settings: Settings) -> None:
    with Catalogue.open(settings) as catalogue:
        survivor, gone = _ingest(catalogue, 3)[1:]
        merge_patients(catalogue, survivor.patient_id, gone.patient_id)
        late = Ids(gone.patient_id, "b" * 32, "c" * 32, "d" * 32)
        with catalogue.session() as session:
            catalogue.add_instance(session, late, InstanceAttributes(modality="CR"), pixel_key="1" * 64)
        with catalogue.reading() as session:
            assert session.get(Study, "b" * 32).patient_id == survivor.patient_id  # type: ignore[union-attr]

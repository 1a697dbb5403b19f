"""An instance enters the catalogue once, completely, and never overwrites another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select

from pipeline.data.catalogue.admission import Arrival, Outcome, admit
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.content_hash import attributes_hash, content_hash, draw_of
from pipeline.data.catalogue.schema import Base, Instance, InstanceVersion, MergedPatient, Patient, Series, Study
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.identity.pseudonyms import Ids
from pipeline.errors import Rejected, RejectionCode

KEY, OTHER_KEY = "a" * 64, "b" * 64
MakeIds = Callable[..., Ids]


def count(catalogue: Catalogue, table: type[Base]) -> int:
    with catalogue.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def one(catalogue: Catalogue, table: type[Any]) -> Any:
    with catalogue.reading() as session:
        return session.scalars(select(table)).one()


def add(catalogue: Catalogue, ids: Ids, attributes: InstanceAttributes, key: str = KEY, **more: Any) -> Outcome:
    with catalogue.session() as session:
        return catalogue.add_instance(session, ids, attributes, pixel_key=key, **more)


def test_first_arrival_makes_every_row(catalogue: Catalogue, ids_of: MakeIds, attributes: InstanceAttributes) -> None:
    ids = ids_of()
    assert add(catalogue, ids, attributes) is Outcome.ADDED
    patient, instance = one(catalogue, Patient), one(catalogue, Instance)
    assert (patient.patient_id, patient.identified, patient.set_name) == (ids.patient_id, True, None)
    assert patient.draw == int(ids.patient_id[:13], 16) / 2**52 == draw_of(ids.patient_id)
    assert one(catalogue, Study).patient_id == ids.patient_id
    assert one(catalogue, Series).attributes == attributes.to_json()
    assert InstanceAttributes.from_json(instance.attributes) == attributes
    assert (instance.version, instance.frames, instance.pixel_key) == (1, 1, KEY)
    assert instance.content_hash == content_hash(attributes, KEY)


def test_transcoded_resend_is_the_same_object(
    catalogue: Catalogue, ids_of: MakeIds, attributes: InstanceAttributes
) -> None:
    add(catalogue, ids_of(), attributes)
    transcoded = replace(attributes, transfer_syntax_uid="1.2.840.10008.1.2.4.70", original_photometric="YBR_FULL")
    assert add(catalogue, ids_of(), transcoded) is Outcome.SAME
    assert count(catalogue, InstanceVersion) == 0
    assert one(catalogue, Instance).attributes == attributes.to_json()


@pytest.mark.parametrize("change", [{"kernel": "B70f"}, {"pixel_spacing_mm": (0.8, 0.8)}, {"positions": ()}])
def test_correction_becomes_a_version(
    catalogue: Catalogue, ids_of: MakeIds, attributes: InstanceAttributes, change: dict[str, Any]
) -> None:
    add(catalogue, ids_of(), attributes)
    corrected = replace(attributes, **change)
    assert add(catalogue, ids_of(), corrected) is Outcome.NEW_VERSION
    assert add(catalogue, ids_of(), corrected) is Outcome.SAME
    row, former = one(catalogue, Instance), one(catalogue, InstanceVersion)
    assert (row.version, row.attributes, row.pixel_key) == (2, corrected.to_json(), KEY)
    assert row.content_hash == content_hash(corrected, KEY)
    assert (former.version, former.attributes) == (1, attributes.to_json())
    assert former.attributes_hash == attributes_hash(attributes)
    assert one(catalogue, Series).attributes == corrected.to_json()


def test_a_frame_of_reference_is_filled_in_kept_and_corrected(
    catalogue: Catalogue, ids_of: MakeIds, attributes: InstanceAttributes
) -> None:
    frames = ("", "a" * 32, "", "a" * 32, "b" * 32)  # "": of an earlier version, or a sender that leaves it out
    outcomes = [add(catalogue, replace(ids_of(), frame_of_reference_id=frame), attributes) for frame in frames]
    assert outcomes == [Outcome.ADDED, Outcome.SAME, Outcome.SAME, Outcome.SAME, Outcome.NEW_VERSION]
    now, before = one(catalogue, Instance), one(catalogue, InstanceVersion)
    assert (now.frame_of_reference_id, now.version) == ("b" * 32, 2)
    assert (before.frame_of_reference_id, before.version) == ("a" * 32, 1)


@pytest.mark.parametrize(
    ("claim", "key"),
    [({}, OTHER_KEY), ({"patient": "P2"}, KEY), ({"series": "R2"}, KEY), ({"study": "S2", "series": "R2"}, KEY)],
)
def test_conflicting_duplicate_is_rejected_and_overwrites_nothing(
    catalogue: Catalogue, ids_of: MakeIds, attributes: InstanceAttributes, claim: dict[str, str], key: str
) -> None:
    add(catalogue, ids_of(), attributes)
    with pytest.raises(Rejected) as caught:
        add(catalogue, ids_of(**claim), replace(attributes, kernel="other"), key)
    assert caught.value.code is RejectionCode.CONFLICTING_DUPLICATE
    assert one(catalogue, Instance).attributes == attributes.to_json()
    assert [count(catalogue, table) for table in (Patient, Study, Series, InstanceVersion)] == [1, 1, 1, 0]


def test_new_instance_of_a_study_that_is_another_patients_is_rejected(
    catalogue: Catalogue, ids_of: MakeIds, attributes: InstanceAttributes
) -> None:
    add(catalogue, ids_of("1"), attributes)
    with pytest.raises(Rejected) as caught:
        add(catalogue, ids_of("2", patient="P2"), attributes, OTHER_KEY)
    assert caught.value.code is RejectionCode.CONFLICTING_DUPLICATE
    assert "merge" in caught.value.sentence


def test_files_of_an_absorbed_patient_go_to_the_remaining_one(
    catalogue: Catalogue, ids_of: MakeIds, attributes: InstanceAttributes
) -> None:
    add(catalogue, ids_of("1"), attributes)
    with catalogue.session() as session:
        absorbed, survivor = ids_of(patient="P2").patient_id, ids_of().patient_id
        session.add(MergedPatient(absorbed_id=absorbed, patient_id=survivor))
    assert add(catalogue, ids_of("2", patient="P2"), attributes, OTHER_KEY) is Outcome.ADDED
    assert add(catalogue, ids_of("3", patient="P2", study="S3", series="R3"), attributes, "c" * 64) is Outcome.ADDED
    assert count(catalogue, Patient) == 1
    assert count(catalogue, Study) == 2


def test_series_keep_the_attributes_that_all_instances_share(
    catalogue: Catalogue, ids_of: MakeIds, attributes: InstanceAttributes
) -> None:
    slices = [replace(attributes, positions=((0.0, 0.0, float(z)),), instance_number=z) for z in range(3)]
    with catalogue.session() as session:
        admit(session, [Arrival(ids_of(str(z)), slices[z], f"{z}" * 64) for z in range(2)])
    with catalogue.session() as session:
        admit(session, [Arrival(ids_of("2"), replace(slices[2], kernel="B70f"), "2" * 64)])
    shared = attributes.to_json()
    del shared["positions"], shared["kernel"]
    assert one(catalogue, Series).attributes == shared
    add(catalogue, ids_of("2"), slices[2], "2" * 64)  # the correction makes the kernel common again
    assert one(catalogue, Series).attributes == shared | {"kernel": "B30f"}


def test_batches_give_the_same_result_as_single_arrivals(
    catalogue: Catalogue, ids_of: MakeIds, attributes: InstanceAttributes
) -> None:
    arrivals = [
        Arrival(ids_of("1"), attributes, KEY),
        Arrival(ids_of("1"), attributes, KEY),
        Arrival(ids_of("1"), replace(attributes, kernel="x"), KEY),
        Arrival(ids_of("1"), attributes, OTHER_KEY),
        Arrival(ids_of("2", patient="P2"), attributes, KEY),
        Arrival(ids_of("2"), attributes, OTHER_KEY),
    ]
    with catalogue.session() as session:
        outcomes = admit(session, arrivals)
    codes = [o.code.value if isinstance(o, Rejected) else o.value for o in outcomes]
    conflict = "conflicting-duplicate"
    assert codes == ["added", "same", "new-version", conflict, conflict, "added"]
    assert count(catalogue, Instance) == 2
    with catalogue.reading() as session:
        rows = session.execute(select(Instance.instance_id, Instance.version, Instance.attributes)).all()
    versions = {row.instance_id: (row.version, row.attributes.get("kernel")) for row in rows}
    assert versions == {ids_of("1").instance_id: (2, "x"), ids_of("2").instance_id: (1, "B30f")}


def test_one_bad_arrival_spares_its_neighbours(
    catalogue: Catalogue, ids_of: MakeIds, attributes: InstanceAttributes
) -> None:
    bad = [
        replace(attributes, slice_thickness_mm=float("nan")),
        replace(attributes, modality="X" * 17),
        replace(attributes, rows=2**70, frames=2**70),
    ]
    arrivals = [Arrival(ids_of(str(n)), given, KEY) for n, given in enumerate([attributes, *bad, attributes])]
    with catalogue.session() as session:
        outcomes = admit(session, arrivals)
    assert [isinstance(o, Rejected) and o.code for o in outcomes] == [False, *[RejectionCode.CORRUPT_HEADER] * 3, False]
    assert count(catalogue, Instance) == 2


def test_unidentified_and_image_subject_are_noted(
    catalogue: Catalogue, ids_of: MakeIds, attributes: InstanceAttributes
) -> None:
    add(catalogue, ids_of(patient="  "), attributes, image_is_subject=True)
    patient = one(catalogue, Patient)
    assert (patient.identified, patient.image_is_subject) == (False, True)


def test_hashes_move_with_their_part_only(attributes: InstanceAttributes) -> None:
    other_geometry, other_text = replace(attributes, positions=()), replace(attributes, kernel="x")
    encoded = replace(attributes, transfer_syntax_uid="1.2.840.10008.1.2.5", bits_allocated=32)
    assert content_hash(attributes, KEY) != content_hash(attributes, OTHER_KEY)
    assert content_hash(attributes, KEY) != content_hash(other_geometry, KEY)
    assert content_hash(attributes, KEY) == content_hash(other_text, KEY) == content_hash(encoded, KEY)
    assert attributes_hash(attributes) == attributes_hash(encoded)
    assert len({attributes_hash(a) for a in (attributes, other_geometry, other_text)}) == 3


def test_draws_are_uniform(ids_of: MakeIds) -> None:
    draws = [draw_of(ids_of(patient=f"P{n}").patient_id) for n in range(4000)]
    assert all(0 <= draw < 1 for draw in draws)
    # Mean of 4000 uniforms: standard deviation 1 / sqrt(12 * 4000) = 0.0046; five of them.
    assert abs(sum(draws) / len(draws) - 0.5) < 0.023

"""Series with several stacks in the catalogue: each is chosen, ordered and routed by itself."""

from __future__ import annotations

from typing import Any

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.sets.routes import Route
from pipeline.data.sets.selection import select_slices
from pipeline.dicom.decode.geometry import Allowed
from pipeline.dicom.decode.split_series import FACTS

HEAD = Route(name="mr-head", modality=("MR",), body_part=("HEAD",))


CONTENTS = {"P": "phase", "ADC": "map"}


def add_echoes(hospital: Any, name: str, echoes: tuple[float, ...], types: tuple[str, ...] = ()) -> None:
    """A series with a stack of three slices per echo."""
    images = [(echo, z) for echo in echoes for z in (0.0, 2.0, 4.0)]
    contents = {CONTENTS.get(kind, "") for kind in types}
    content = "mixed" if len(contents) > 1 else "".join(contents)  # as ingest narrows it
    hospital.series(name, heights=(), modality="MR", image_type=(), content=content)
    for number, (echo, z) in enumerate(images):
        kind = types[echoes.index(echo)] if types else "M"
        own = hospital._attributes(
            modality="MR",
            image_type=("ORIGINAL" if kind != "ADC" else "DERIVED", "PRIMARY", kind),
            content=CONTENTS.get(kind, ""),
            positions=((0.0, 0.0, z),),
            stack_facts=(("EchoTime", (echo,)),),
        )
        hospital._add(hospital._instance(name, number, own))


def test_each_stack_is_a_series_of_its_own(hospital: Any) -> None:
    add_echoes(hospital, "e", (10.0, 90.0))
    selection = select_slices(hospital.catalogue, route="mr-head", routes=[HEAD])
    assert selection.not_scored == ()
    assert list(selection.members) == ["e/EchoTime 10 ms", "e/EchoTime 90 ms"]
    assert [ref.slice_id for ref in selection.members["e/EchoTime 90 ms"]] == ["e-3/0", "e-4/0", "e-5/0"]
    assert {ref.series_id for ref in selection.slices} == {"e"} and "EchoTime" in FACTS
    assert [ref.relative_position for ref in selection.slices] == [0.0, 0.5, 1.0] * 2


def test_a_label_of_the_series_is_a_label_of_its_stacks(hospital: Any) -> None:
    hospital.patient("p", "train")
    add_echoes(hospital, "e", (10.0, 90.0))
    hospital.label("series", "e", "normal")
    hospital.label("instance", "e-4", "abnormal")
    chosen = select_slices(hospital.catalogue, sets=["train"])
    assert {ref.slice_id for ref in chosen.slices} == {"e-0/0", "e-1/0", "e-2/0", "e-3/0", "e-5/0"}
    whole = chosen.whole()
    assert {ref.stack for ref in whole.slices} == {"EchoTime 10 ms"}
    assert [(one.series_id, one.code) for one in whole.not_scored] == [("e", "partly-normal")]


def test_a_map_among_the_stacks_is_not_read_with_the_images(hospital: Any) -> None:
    for name, kind, code in (("e", "ADC", "quantity-map"), ("f", "P", "phase-image")):
        add_echoes(hospital, name, (10.0, 90.0), types=("M", kind))
        selection = select_slices(hospital.catalogue, route="mr-head", routes=[HEAD])
        assert {ref.stack for ref in selection.slices if ref.series_id == name} == {"EchoTime 10 ms"}
        [left] = [one for one in selection.not_scored if one.series_id == name]
        assert left.code == code and left.sentence.startswith("EchoTime 90 ms: ")


def test_images_of_different_meaning_in_one_stack_are_not_read(hospital: Any) -> None:
    hospital.series("slices", modality="MR")
    hospital.series("odd", modality="MR", content="mixed")
    selection = select_slices(hospital.catalogue, route="mr-head", routes=[HEAD])
    assert {ref.series_id for ref in selection.slices} == {"slices"}
    assert [(one.series_id, one.code) for one in selection.not_scored] == [("odd", "mixed-content")]


def test_a_stack_that_is_too_small_for_a_volume_is_left_out_alone(hospital: Any, catalogue: Catalogue) -> None:
    add_echoes(hospital, "e", (10.0, 90.0))
    extra = hospital._attributes(
        modality="MR", image_type=("ORIGINAL", "PRIMARY", "M"), positions=((0.0, 0.0, 6.0),),
        stack_facts=(("EchoTime", (10.0,)),),
    )  # fmt: skip
    hospital._add(hospital._instance("e", 6, extra))
    selection = select_slices(hospital.catalogue, allowed=Allowed(volume_of=4))
    assert {ref.stack for ref in selection.slices} == {"EchoTime 10 ms"}
    assert [one.code for one in selection.not_scored] == ["too-few-slices"]


def test_frames_of_reference_in_the_catalogue_part_a_series(hospital: Any) -> None:
    hospital.series("s", heights=(), modality="MR", image_type=())
    for number in range(6):
        place = hospital._attributes(modality="MR", image_type=(), positions=((0.0, 0.0, 2.0 * number),))
        row = hospital._instance("s", number, place)
        row.frame_of_reference_id = "x" * 32 if number < 3 else "y" * 32
        hospital._add(row)
    selection = select_slices(hospital.catalogue, route="mr-head", routes=[HEAD])
    assert list(selection.members) == ["s/frame of reference 1 of 2", "s/frame of reference 2 of 2"]
    assert [ref.relative_position for ref in selection.slices] == [0.0, 0.5, 1.0] * 2

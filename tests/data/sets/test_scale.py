"""A large catalogue needs few queries, and time proportional to its size."""

from __future__ import annotations

import time
from typing import Any

import pytest
from sqlalchemy import event, insert

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import Instance, LabelRow, Patient, Series, Study
from pipeline.data.sets.selection import select_slices
from pipeline.dicom.decode.attributes import InstanceAttributes

SLICES = 50


def fill(catalogue: Catalogue, count: int) -> None:
    """`count` patients with one CT series of 50 slices each."""
    rows: dict[type, list[dict[str, Any]]] = {Patient: [], Study: [], Series: [], Instance: [], LabelRow: []}
    for p in range(count):
        name = f"{p:06d}"
        rows[Patient].append({"patient_id": name, "draw": 0.1, "set_name": "train", "identified": True})
        rows[Study].append({"study_id": name, "patient_id": name})
        shared = attributes()
        rows[Series].append({"series_id": name, "study_id": name, "modality": "CT", "attributes": shared})
        rows[LabelRow].append({"level": "study", "subject": name, "label": "normal", "source": "x"})
        for i in range(SLICES):
            values = attributes(positions=((-120.0, -110.5, 2.5 * i),), instance_number=i + 1)
            key = {"instance_id": f"{name}-{i:03d}", "series_id": name, "pixel_key": f"k{p}-{i}", "frames": 1}
            rows[Instance].append({**key, "attributes": values, "content_hash": "", "attributes_hash": ""})
    with catalogue.session() as session:
        for table, values in rows.items():
            session.execute(insert(table), values)


def attributes(**fields: Any) -> dict[str, Any]:
    return InstanceAttributes(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        modality="CT",
        body_part="HEAD",
        image_type=("ORIGINAL", "PRIMARY", "AXIAL"),
        manufacturer="MAKER",
        scanner="MODEL",
        kernel="H30s",
        rows=512,
        columns=512,
        orientation=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        pixel_spacing_mm=(0.5, 0.5),
        rescale=((1.0, -1024.0),),
        **fields,
    ).to_json()


def timed(settings: Settings, patients: int) -> tuple[float, int]:
    """Seconds of process time, and queries, of selecting everything."""
    with Catalogue.open(settings) as catalogue:
        fill(catalogue, patients)
        queries: list[str] = []
        event.listen(catalogue.engine, "before_cursor_execute", lambda *arguments: queries.append(arguments[2]))
        start = time.process_time()
        selection = select_slices(catalogue, sets=["train"])
        seconds = time.process_time() - start
    assert len(selection.slices) == patients * SLICES
    assert {ref.label for ref in selection.slices} == {"normal"}
    return seconds, len(queries)


def test_few_queries(settings: Settings) -> None:
    _, queries = timed(settings, 40)
    assert queries <= 9


@pytest.mark.slow
def test_a_hundred_thousand_instances(settings: Settings) -> None:
    seconds, queries = timed(settings, 2000)
    assert queries <= 10
    assert seconds < 60

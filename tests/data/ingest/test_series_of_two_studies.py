"""A Series Instance UID in two studies: whoever comes first does not shut the other out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from sqlalchemy import select

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.rotation import rotate
from pipeline.data.catalogue.schema import Instance, Series
from pipeline.data.ingest.ingest import ingest
from pipeline.data.labels.labels import import_labels
from pipeline.dicom.identity.crosswalk import Crosswalk

SERIES, REAL, OTHER = "1.2.3.77", "1.2.3.5", "1.2.3.6"


def series_sizes(settings: Settings) -> dict[str, int]:
    """Return images per real Study Instance UID, found through the crosswalk."""
    with Catalogue.open(settings) as catalogue, catalogue.reading() as session:
        rows = session.execute(select(Series.series_id, Instance.instance_id).join(Instance)).all()
    with Crosswalk.open(settings) as crosswalk:
        identities = [crosswalk.find_identity(row.series_id) for row in rows]
    assert {identity.series_uid for identity in identities} == {SERIES}
    return Counter(identity.study_uid for identity in identities)


@pytest.mark.parametrize("batches", [1, 2])
def test_neither_study_is_shut_out(
    in_process: ModuleType, tmp_path: Path, settings: Settings, write_file: Callable[..., Path], batches: int
) -> None:
    inbox = tmp_path / "in"
    write_file(inbox / "a.dcm", StudyInstanceUID=OTHER, SeriesInstanceUID=SERIES, SOPInstanceUID="1.9.0", PatientID="Q")
    if batches == 2:
        ingest([inbox], settings)
    for number in range(1, 4):
        name = inbox / f"b{number}.dcm"
        write_file(name, StudyInstanceUID=REAL, SeriesInstanceUID=SERIES, SOPInstanceUID=f"1.9.{number}", PatientID="P")
    report = ingest([inbox], settings)
    assert report.rejected == {} and report.added == 5 - batches
    assert series_sizes(settings) == {OTHER: 1, REAL: 3}
    assert ingest([inbox], settings).added == 0
    table = tmp_path / "labels.csv"
    table.write_text(f"SeriesInstanceUID,StudyInstanceUID,label\n{SERIES},{REAL},normal\n{SERIES},{OTHER},abnormal\n")
    assert import_labels(table, settings).problems == ()
    rotate(settings)
    assert series_sizes(settings) == {OTHER: 1, REAL: 3}

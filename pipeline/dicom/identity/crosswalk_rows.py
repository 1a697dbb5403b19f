"""Rows of the crosswalk that lead from the pseudonyms of an instance back to its identifiers."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Table

from pipeline.dicom.decode.attributes import RawIdentity
from pipeline.dicom.identity.crosswalk_tables import FrameOfReference, Instance, Person, Series, Study
from pipeline.dicom.identity.pseudonyms import Ids, trim


def rows_of(ids: Ids, identity: RawIdentity, site: str) -> Iterator[tuple[Table, dict[str, str]]]:
    """Yield the table and row of everything that an instance names, parents before children."""
    issuer = trim(identity.issuer) or site
    number = trim(identity.patient_id)
    yield (
        Person.__table__,
        {
            "person_id": ids.patient_id,
            "issuer": issuer,
            "patient_id": number,
            "unnamed_study_uid": "" if number else trim(identity.study_uid),
        },
    )
    yield (
        Study.__table__,
        {
            "study_id": ids.study_id,
            "person_id": ids.patient_id,
            "study_uid": trim(identity.study_uid),
            "accession_number": trim(identity.accession_number),
            "study_date": trim(identity.study_date),
        },
    )
    series = {"series_id": ids.series_id, "study_id": ids.study_id, "series_uid": trim(identity.series_uid)}
    yield Series.__table__, series
    instance = {"instance_id": ids.instance_id, "series_id": ids.series_id, "sop_uid": trim(identity.sop_uid)}
    yield Instance.__table__, instance
    if ids.frame_of_reference_id:
        frame = {"frame_of_reference_id": ids.frame_of_reference_id}
        yield FrameOfReference.__table__, {**frame, "frame_of_reference_uid": trim(identity.frame_of_reference_uid)}

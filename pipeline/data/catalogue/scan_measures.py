"""Measures of scored scans in the catalogue: statistics of their images, for the tests of drift."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.database import chunks
from pipeline.data.catalogue.operations_schema import ScanMeasures


def add_measures(
    catalogue: Catalogue, route: str, model_sha256: str, measures: Mapping[str, Mapping[str, float]]
) -> None:
    """Store the statistics of studies, by study; they replace those of the same route and model."""
    if measures:
        with catalogue.session() as session:
            write_measures(session, route, model_sha256, measures)


def write_measures(
    session: Session, route: str, model_sha256: str, measures: Mapping[str, Mapping[str, float]]
) -> None:
    """Store the statistics of studies within a writing transaction; see `add_measures`."""
    for part in chunks(set(measures)):
        session.execute(
            delete(ScanMeasures).where(
                ScanMeasures.study_id.in_(part),
                ScanMeasures.route == route,
                ScanMeasures.model_sha256 == model_sha256,
            )
        )
    session.add_all(
        ScanMeasures(study_id=study, route=route, model_sha256=model_sha256, measures=dict(values))
        for study, values in sorted(measures.items())
    )


def read_measures(catalogue: Catalogue, route: str, model_sha256: str) -> dict[str, dict[str, float]]:
    """Return the statistics of a route's studies by one model, by study."""
    query = select(ScanMeasures).where(ScanMeasures.route == route, ScanMeasures.model_sha256 == model_sha256)
    with catalogue.reading() as session:
        return {row.study_id: dict(row.measures) for row in session.scalars(query)}

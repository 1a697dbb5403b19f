"""Stage `push --fhir`: the flagged findings of a scoring run as FHIR R4 bundles, one file per finding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select

from pipeline import durable
from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import FindingRow, Instance, Series
from pipeline.dicom.export.fhir import ImagedStudy, StudyImage, bundle, bundle_id
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.keyfile import make_private_folder
from pipeline.errors import ConfigError, EmptySelection
from pipeline.stages.pacs.push_evidence import Pusher


@dataclass(frozen=True, slots=True)
class FhirReport:
    """Number of written bundles, and whether they hold real identifiers."""

    run_id: str
    bundles: int
    real_identifiers: bool

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def push_fhir(run_id: str, settings: Settings, folder: Path) -> FhirReport:
    """Write one bundle per flagged finding, readable by the owner only; writing it again gives the same file.

    Real identifiers are written only if the folder is outside the workspace, which is the decision of the caller.
    Inside the workspace, its pseudonyms are used.

    Raises:
        CatalogueError: the run does not exist. EmptySelection: it flagged nothing. ConfigError: the folder cannot be
            written.
    """
    real = not folder.resolve().is_relative_to(settings.workspace.resolve())
    with Catalogue.open(settings) as catalogue, Crosswalk.open(settings) as crosswalk:
        pusher = Pusher.open(run_id, settings, catalogue, crosswalk, None)
        findings = catalogue.list_findings(run_id, flagged=True)
        if not findings:
            raise EmptySelection(
                f"The run {run_id} flagged no study, so there is nothing to write. See nightread flagged --all."
            )
        for finding in findings:
            about = _about(finding, catalogue, crosswalk if real else None)
            described = pusher.describe(finding)
            _write(folder, f"{bundle_id(described)}.json", bundle(described, about))
    return FhirReport(run_id, len(findings), real)


def _about(finding: FindingRow, catalogue: Catalogue, crosswalk: Crosswalk | None) -> ImagedStudy:
    """Return the study of a finding: with real identifiers if a crosswalk is given, else with pseudonyms."""
    images = _images(catalogue, [str(item["instance_id"]) for item in finding.evidence])
    if crosswalk is None:
        return ImagedStudy(False, finding.patient_id, finding.study_id, images)
    study = crosswalk.find_identity(finding.study_id)
    named = [
        StudyImage(whose.series_uid, whose.sop_uid, image.sop_class, image.modality)
        for image in images
        for whose in [crosswalk.find_identity(image.instance)]
    ]
    return ImagedStudy(
        True, study.patient_id, study.study_uid, named, study.issuer, study.accession_number, study.study_date
    )


def _images(catalogue: Catalogue, instance_ids: Sequence[str]) -> list[StudyImage]:
    query = select(Instance, Series.modality).join(Series, Series.series_id == Instance.series_id)
    with catalogue.reading() as session:
        rows = session.execute(query.where(Instance.instance_id.in_(instance_ids))).all()
        images = {
            instance.instance_id: StudyImage(
                instance.series_id, instance.instance_id, f"urn:oid:{instance.attributes['sop_class_uid']}", modality
            )
            for instance, modality in rows
        }
    return [images[name] for name in instance_ids if name in images]


def _write(folder: Path, name: str, value: dict[str, Any]) -> None:
    try:
        make_private_folder(folder)
        durable.write(folder / name, json.dumps(value, indent=1, ensure_ascii=False) + "\n", mode=0o600)
    except OSError as error:
        raise ConfigError(f"The folder of --fhir cannot be written: {error.strerror}. Choose another folder.") from None

"""Finding in FHIR R4 (4.0.1): patient, device, imaging study, observation and diagnostic report in one Bundle.

https://hl7.org/fhir/R4. Identifiers are either real, or the workspace's pseudonyms under a system of their own. Names,
birth dates and free text of the files are never included.
"""

from __future__ import annotations

import html
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydicom.sr.coding import Code

from pipeline.dicom.decode.own_objects import MANUFACTURER
from pipeline.dicom.export.described import (
    FINDING,
    MODEL_NAME,
    NOT_FOR_DIAGNOSIS,
    P_VALUE,
    RULE,
    SCORE,
    WORDS,
    WORTH,
    Described,
)
from pipeline.dicom.identity.uids import derived_uid

PSEUDONYMS, CODES = "urn:x-nightread:pseudonym", "urn:x-nightread:codes"
_DICOM_UID, _DCM, _UCUM = "urn:dicom:uid", "http://dicom.nema.org/resources/ontology/DCM", "http://unitsofmeasure.org"
_TERMS = "http://terminology.hl7.org/CodeSystem"
_IMAGING_STUDY = {"system": "http://loinc.org", "code": "18748-4", "display": "Diagnostic imaging study"}


@dataclass(frozen=True, slots=True, repr=False)
class StudyImage:
    """One image that a finding rests on, with its own identifier and its series'."""

    series: str
    instance: str
    sop_class: str
    modality: str


@dataclass(frozen=True, slots=True, repr=False)
class ImagedStudy:
    """The study that a finding is about.

    Attributes:
        real: whether the identifiers are real; otherwise they are pseudonyms, and date and accession number are empty.
        patient: empty where the files have none.
        issuer: issuer of the patient's identifier; may be empty.
        study: Study Instance UID or pseudonym.
        accession: accession number of the order; may be empty.
        date: YYYYMMDD; may be empty.
        images: the images of the finding, the most unusual first.
    """

    real: bool
    patient: str
    study: str
    images: Sequence[StudyImage]
    issuer: str = ""
    accession: str = ""
    date: str = field(default="")


def bundle(finding: Described, about: ImagedStudy) -> dict[str, Any]:
    """Return the Bundle, a collection, as plain values; equal findings give equal bundles."""
    resources = {
        "patient": _patient(about),
        "device": _device(finding),
        "study": _study(finding, about),
        "observation": _observation(finding),
        "report": _report(finding),
    }
    entries = [{"fullUrl": _url(finding, name), "resource": value} for name, value in resources.items()]
    return {
        "resourceType": "Bundle",
        "id": bundle_id(finding),
        "type": "collection",
        "timestamp": _instant(finding),
        "entry": entries,
    }


def bundle_id(finding: Described) -> str:
    """Return the id of a finding's bundle, derived from run, model and finding, never from a patient."""
    return _url(finding, "bundle").removeprefix("urn:uuid:")


def _url(finding: Described, part: str) -> str:
    return f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, derived_uid('push', finding.key, 'fhir', part))}"


def _reference(finding: Described, part: str) -> dict[str, str]:
    return {"reference": _url(finding, part)}


def _instant(finding: Described) -> str:
    return f"{finding.at:%Y-%m-%dT%H:%M:%S}Z"


def _patient(about: ImagedStudy) -> dict[str, Any]:
    identifier: dict[str, Any] = {"value": about.patient}
    if not about.real:
        identifier["system"] = PSEUDONYMS
    elif about.issuer:
        identifier["assigner"] = {"display": about.issuer}
    return {"resourceType": "Patient"} | ({"identifier": [identifier]} if about.patient else {})


def _device(finding: Described) -> dict[str, Any]:
    return {
        "resourceType": "Device",
        "manufacturer": MANUFACTURER,
        "deviceName": [
            {"name": finding.model, "type": "model-name"},
            {"name": MODEL_NAME, "type": "manufacturer-name"},
        ],
        "version": [{"value": finding.version}, {"type": {"text": "software"}, "value": finding.software}],
        "note": [{"text": NOT_FOR_DIAGNOSIS}],
    }


def _study(finding: Described, about: ImagedStudy) -> dict[str, Any]:
    identifier: dict[str, Any] = {"system": PSEUDONYMS, "value": about.study}
    if about.real:
        identifier = {"system": _DICOM_UID, "value": f"urn:oid:{about.study}"}
    order = {"type": {"coding": [{"system": f"{_TERMS}/v2-0203", "code": "ACSN"}]}, "value": about.accession}
    modalities = list(dict.fromkeys(image.modality for image in about.images))
    return {
        "resourceType": "ImagingStudy",
        "identifier": [identifier, *([order] if about.accession else [])],
        "status": "available",
        **({"modality": [_modality(name) for name in modalities]} if modalities else {}),
        "subject": _reference(finding, "patient"),
        **({"started": f"{about.date[:4]}-{about.date[4:6]}-{about.date[6:]}"} if len(about.date) == 8 else {}),
        **({"series": _series(about.images)} if about.images else {}),
    }


def _series(images: Sequence[StudyImage]) -> list[dict[str, Any]]:
    """Return the series of the images that the finding rests on, and no other series."""
    by_uid: dict[str, dict[str, Any]] = {}
    for image in images:
        series = by_uid.setdefault(
            image.series, {"uid": image.series, "modality": _modality(image.modality), "instance": []}
        )
        instance = {"uid": image.instance, "sopClass": {"system": "urn:ietf:rfc:3986", "code": image.sop_class}}
        if instance not in series["instance"]:  # two frames of one object
            series["instance"].append(instance)
    return list(by_uid.values())


def _modality(name: str) -> dict[str, str]:
    return {"system": _DCM, "code": name}


def _code(code: Code) -> dict[str, Any]:
    return {"coding": [{"system": CODES, "code": code.value, "display": code.meaning}], "text": code.meaning}


def _number(value: float) -> dict[str, Any]:
    return {"valueQuantity": {"value": float(f"{value:.8g}"), "unit": "1", "system": _UCUM, "code": "1"}}


def _observation(finding: Described) -> dict[str, Any]:
    components = [{"code": _code(P_VALUE), **_number(finding.p_value)}] if finding.p_value is not None else []
    texts = ((WORDS, finding.words), (WORTH, finding.guarantee), (RULE, finding.rule))
    components += [{"code": _code(name), "valueString": text} for name, text in texts if text]
    return {
        "resourceType": "Observation",
        "status": "preliminary",  # no person has reviewed it
        "category": [{"coding": [{"system": f"{_TERMS}/observation-category", "code": "imaging"}]}],
        "code": _code(SCORE),
        "subject": _reference(finding, "patient"),
        "effectiveDateTime": _instant(finding),
        **_number(finding.score),
        "note": [{"text": NOT_FOR_DIAGNOSIS}],
        "method": {"text": f"{finding.model}, {finding.version}"},
        "device": _reference(finding, "device"),
        "derivedFrom": [_reference(finding, "study")],
        "component": components,
    }


def _report(finding: Described) -> dict[str, Any]:
    sentence = f"{FINDING.meaning}: {finding.words}. {NOT_FOR_DIAGNOSIS}"
    page = f'<div xmlns="http://www.w3.org/1999/xhtml"><p>{html.escape(sentence)}</p></div>'
    return {
        "resourceType": "DiagnosticReport",
        "text": {"status": "generated", "div": page},
        "status": "preliminary",
        "category": [{"coding": [{"system": f"{_TERMS}/v2-0074", "code": "RAD"}]}],
        "code": {"coding": [_IMAGING_STUDY]},
        "subject": _reference(finding, "patient"),
        "effectiveDateTime": _instant(finding),
        "issued": _instant(finding),
        "result": [_reference(finding, "observation")],
        "imagingStudy": [_reference(finding, "study")],
        "conclusion": sentence,
    }

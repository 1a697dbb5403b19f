"""Finding as a structured report: Comprehensive 3D SR (PS3.3 A.35.13) with TID 1500 (PS3.16)."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from pipeline.dicom.export.described import (
    FINDING,
    MANUFACTURER,
    MODEL_NAME,
    NOT_FOR_DIAGNOSIS,
    P_VALUE,
    RULE,
    SCHEME,
    SCORE,
    WORDS,
    WORTH,
    Described,
    SourceImage,
    finish,
    series_of,
)

_IMAGING = Code("363679005", "SCT", "Imaging")
_WARNING = Code("warning", SCHEME, "Warning")
_NO_UNITS = Code("1", "UCUM", "no units")


def structured_report(finding: Described, images: Sequence[SourceImage]) -> Dataset:
    """Return the report: score, p-value and its words, model and version, images, and "not for diagnosis".

    Args:
        finding: the finding.
        images: images of one study, the most unusual first.
    """
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=device(finding)),
        procedure_reported=CodedConcept.from_code(_IMAGING),
        imaging_measurements=[_group(finding, images)],
        title=codes.DCM.ImagingMeasurementReport,
    )
    ds = Comprehensive3DSR(
        evidence=[image.dataset for image in images],
        content=report,
        manufacturer=MANUFACTURER,
        is_complete=True,
        **series_of(finding, "sr"),
    )
    ds.ManufacturerModelName, ds.SoftwareVersions = MODEL_NAME, finding.software
    return finish(ds, finding, "sr", images[0].dataset)


def device(finding: Described) -> ObserverContext:
    """Return the observer context: the device that makes the statement."""
    attributes = DeviceObserverIdentifyingAttributes(
        uid=hd.UID(finding.uid("sr", "device")),
        name=finding.model[:64],
        manufacturer_name=MANUFACTURER,
        model_name=f"{MODEL_NAME} {finding.software}",
        serial_number=finding.version[:64],
    )
    return ObserverContext(codes.DCM.Device, attributes)


def _group(finding: Described, images: Sequence[SourceImage]) -> MeasurementsAndQualitativeEvaluations:
    numbers = [Measurement(name=SCORE, value=_decimal(finding.score), unit=_NO_UNITS)]
    if finding.p_value is not None:
        numbers.append(Measurement(name=P_VALUE, value=_decimal(finding.p_value), unit=_NO_UNITS))
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=hd.UID(finding.uid("sr", "tracking")), identifier=finding.route),
        finding_type=FINDING,
        algorithm_id=AlgorithmIdentification(finding.model, finding.version),
        measurements=numbers,
        source_images=[_reference(image) for image in images],
    )
    texts = ((WORDS, finding.words), (WORTH, finding.guarantee), (RULE, finding.rule), (_WARNING, NOT_FOR_DIAGNOSIS))
    for name, text in texts:
        if text:
            group[0].ContentSequence.append(TextContentItem(name, text, RelationshipTypeValues.CONTAINS))
    return group


def _reference(image: SourceImage) -> SourceImageForMeasurementGroup:
    several = int(image.dataset.get("NumberOfFrames", 1)) > 1
    frames = [image.frame + 1] if several else None
    return SourceImageForMeasurementGroup(image.dataset.SOPClassUID, image.dataset.SOPInstanceUID, frames)


def _decimal(value: float) -> float:
    """Round to what fits into a decimal string (PS3.5 6.2, DS: 16 characters)."""
    return float(f"{value:.8g}")

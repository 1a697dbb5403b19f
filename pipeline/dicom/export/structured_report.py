"""The finding as a structured report: Comprehensive 3D SR (PS3.3 A.35.13) by TID 1500 (PS3.16)."""

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


def structured_report(found: Described, images: Sequence[SourceImage]) -> Dataset:
    """Return the report: score, p-value and its words, model and version, the images, and "not for diagnosis".

    Args:
        found: what is said.
        images: of one study, the most unusual first.
    """
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=device(found)),
        procedure_reported=CodedConcept.from_code(_IMAGING),
        imaging_measurements=[_group(found, images)],
        title=codes.DCM.ImagingMeasurementReport,
    )
    ds = Comprehensive3DSR(
        evidence=[image.dataset for image in images],
        content=report,
        manufacturer=MANUFACTURER,
        is_complete=True,
        **series_of(found, "sr"),
    )
    ds.ManufacturerModelName, ds.SoftwareVersions = MODEL_NAME, found.software
    return finish(ds, found, "sr", images[0].dataset)


def device(found: Described) -> ObserverContext:
    """Return who says so: a device, and which."""
    attributes = DeviceObserverIdentifyingAttributes(
        uid=hd.UID(found.uid("sr", "device")),
        name=found.model[:64],
        manufacturer_name=MANUFACTURER,
        model_name=f"{MODEL_NAME} {found.software}",
        serial_number=found.version[:64],
    )
    return ObserverContext(codes.DCM.Device, attributes)


def _group(found: Described, images: Sequence[SourceImage]) -> MeasurementsAndQualitativeEvaluations:
    numbers = [Measurement(name=SCORE, value=_decimal(found.score), unit=_NO_UNITS)]
    if found.p_value is not None:
        numbers.append(Measurement(name=P_VALUE, value=_decimal(found.p_value), unit=_NO_UNITS))
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(uid=hd.UID(found.uid("sr", "tracking")), identifier=found.route),
        finding_type=FINDING,
        algorithm_id=AlgorithmIdentification(found.model, found.version),
        measurements=numbers,
        source_images=[_reference(image) for image in images],
    )
    texts = ((WORDS, found.words), (WORTH, found.guarantee), (RULE, found.rule), (_WARNING, NOT_FOR_DIAGNOSIS))
    for name, text in texts:
        if text:
            group[0].ContentSequence.append(TextContentItem(name, text, RelationshipTypeValues.CONTAINS))
    return group


def _reference(image: SourceImage) -> SourceImageForMeasurementGroup:
    several = int(image.dataset.get("NumberOfFrames", 1)) > 1
    frames = [image.frame + 1] if several else None
    return SourceImageForMeasurementGroup(image.dataset.SOPClassUID, image.dataset.SOPInstanceUID, frames)


def _decimal(value: float) -> float:
    """Round to what a decimal string can hold (PS3.5 6.2, DS: 16 characters)."""
    return float(f"{value:.8g}")

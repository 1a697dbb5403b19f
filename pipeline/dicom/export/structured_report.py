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

from pipeline.dicom.decode.own_objects import MANUFACTURER
from pipeline.dicom.export.described import (
    FINDING,
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
    decimal,
    finish,
    series_of,
)
from pipeline.dicom.export.measured_regions import measured_regions

_IMAGING = Code("363679005", "SCT", "Imaging")
_WARNING = Code("warning", SCHEME, "Warning")


def structured_report(finding: Described, images: Sequence[SourceImage], outline: Dataset | None = None) -> Dataset:
    """Return the report: score, p-value and its words, model and version, images, and "not for diagnosis".

    Args:
        finding: the finding.
        images: images of one study, the most unusual first.
        outline: segmentation of the finding; its regions are measured and referenced, so that a viewer can show them.
    """
    regions = [] if outline is None else measured_regions(finding, outline, images)
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=device(finding)),
        procedure_reported=CodedConcept.from_code(_IMAGING),
        imaging_measurements=[_group(finding, images), *regions],
        title=codes.DCM.ImagingMeasurementReport,
    )
    ds = Comprehensive3DSR(
        evidence=[*(image.dataset for image in images), *([] if outline is None else [outline])],
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
    numbers = [Measurement(name=SCORE, value=decimal(finding.score), unit=codes.UCUM.NoUnits)]
    if finding.p_value is not None:
        numbers.append(Measurement(name=P_VALUE, value=decimal(finding.p_value), unit=codes.UCUM.NoUnits))
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
    frames = [image.frame + 1] if image.several else None
    return SourceImageForMeasurementGroup(image.dataset.SOPClassUID, image.dataset.SOPInstanceUID, frames)

"""Kind of the images of a series, from their content, Image Type (PS3.3 C.7.6.1.1.2), SOP class and description."""

from __future__ import annotations

from enum import StrEnum

from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.content import Content, content_of

# PS3.4 B.5: Secondary Capture Image Storage and its multi-frame forms
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_DOSE = frozenset({"DOSE", "DOSE_INFO", "DOSE REPORT", "SCREEN SAVE DOSE"})
# PS3.3 A.26, A.27, A.28: raw detector values, before the manufacturer's processing; radiologists do not read them
_FOR_PROCESSING = frozenset(
    {
        "1.2.840.10008.5.1.4.1.1.1.1.1",  # DX
        "1.2.840.10008.5.1.4.1.1.1.2.1",  # MG
        "1.2.840.10008.5.1.4.1.1.1.3.1",  # IO
        "1.2.840.10008.5.1.4.1.1.13.1.4",  # breast projections of a tomosynthesis
        "1.2.840.10008.5.1.4.1.1.200.1",  # CT
    }
)
# Made from other images, whatever the first value of Image Type says.
_REFORMATTED = frozenset({"MPR", "MIP", "MINIP", "PROJECTION IMAGE", "REFORMATTED", "AVERAGE", "SUB", "SUBTRACTION"})
_NAMED_REFORMATTED = frozenset({"MPR", "MIP", "MINIP", "SUB", "CAPTURE"})
# "SUB 5mm" names a CT kernel or region, and "t1_mpr_sag" is how Siemens names an acquired MPRAGE.
_NOT_OF_ACQUIRED = {"CT": frozenset({"SUB"}), "MR": frozenset({"MPR"})}
# A processed radiograph ("for presentation") is DERIVED\PRIMARY: it is the image itself.
_PROCESSED_IS_PRIMARY = frozenset({"CR", "DX", "MG", "RF", "XA", "IO", "PX", "US"})


class SeriesKind(StrEnum):
    """Kinds that a route may name; localisers, dose reports and mixed series are on no route."""

    PRIMARY = "primary"
    DERIVED = "derived"
    SECONDARY = "secondary"
    PHANTOM = "phantom"
    FOR_PROCESSING = "for-processing"
    MATERIAL = "spectral-map"
    PHASE = "phase-image"
    MAP = "quantity-map"
    MOSAIC = "mosaic"
    UNSCALED = "not-hounsfield"
    LOCALISER = "localiser"
    DOSE = "dose"
    MIXED = "mixed-content"


_BY_CONTENT = {
    Content.SPECTRAL: SeriesKind.MATERIAL,
    Content.PHASE: SeriesKind.PHASE,
    Content.MAP: SeriesKind.MAP,
    Content.MOSAIC: SeriesKind.MOSAIC,
    Content.UNSCALED: SeriesKind.UNSCALED,
    Content.MIXED: SeriesKind.MIXED,
}


def kind_of(attributes: InstanceAttributes) -> SeriesKind:
    """Return the kind of a series from the attributes that its instances share.

    A secondary capture (by SOP class or Conversion Type) stays one whatever else it claims, except that a dose page is
    a dose page. "Dose" alone in the description of an image is its technique ("low dose"), not a report. A description
    with the token PHANTOM is a quality-control phantom. A radiograph "for processing" has other values than the same
    one "for presentation", so a detector for one must not read the other. CT and MR images whose values are not plain
    anatomy have kinds of their own (`pipeline.dicom.decode.content`).
    """
    types = {value.upper() for value in attributes.image_type}
    tokens = set(attributes.description)
    if attributes.modality == "SR" or types & _DOSE or {"DOSE", "REPORT"} <= tokens:
        return SeriesKind.DOSE
    if is_secondary_capture(attributes):
        return SeriesKind.DOSE if "DOSE" in tokens else SeriesKind.SECONDARY
    content = content_of(attributes)
    if content == Content.LOCALISER:
        return SeriesKind.LOCALISER
    if "PHANTOM" in tokens or "CALIBRATION" in tokens:
        return SeriesKind.PHANTOM
    if attributes.sop_class_uid in _FOR_PROCESSING:
        return SeriesKind.FOR_PROCESSING
    if content in _BY_CONTENT:
        return _BY_CONTENT[Content(content)]
    return SeriesKind.DERIVED if _is_derived(attributes, types) else SeriesKind.PRIMARY


def is_secondary_capture(attributes: InstanceAttributes) -> bool:
    """Return whether the image was converted or captured rather than acquired (PS3.3 A.8)."""
    uid = attributes.sop_class_uid
    return bool(attributes.conversion_type) or uid == _SECONDARY_CAPTURE or uid.startswith(_SECONDARY_CAPTURE + ".")


def _is_derived(attributes: InstanceAttributes, types: set[str]) -> bool:
    acquired = _NOT_OF_ACQUIRED.get(attributes.modality, frozenset()) if "ORIGINAL" in types else frozenset()
    named = _NAMED_REFORMATTED - acquired
    if types & _REFORMATTED or named & set(attributes.description):
        return True
    second = attributes.image_type[1].upper() if len(attributes.image_type) > 1 else ""
    if second == "SECONDARY":
        return True
    return "DERIVED" in types and attributes.modality not in _PROCESSED_IS_PRIMARY

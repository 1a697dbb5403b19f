"""The meaning of the pixel values of CT and MR images, where they are not plain anatomy.

A detector learns how anatomy looks in Hounsfield units or in MR magnitude. Localisers, material and quantity maps,
phase images, mosaics and CT without a rescale have the modality and the body part of such images, and other values. The
words that tell them apart are in `pipeline.dicom.decode.vendors`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from functools import lru_cache

from pydicom.dataset import Dataset

from pipeline.dicom.decode import vendors
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.dicom.decode.fields import (
    has,
    read_items,
    read_number,
    read_optional_text,
    read_private_integer,
    read_texts,
)
from pipeline.dicom.decode.frames import Groups
from pipeline.dicom.decode.quantity_units import is_hounsfield, is_quantity
from pipeline.errors import Rejected

_CROSS = frozenset({"CT", "MR"})
_HOUNSFIELD_CODES = frozenset({"[HNSF'U]", "HU", "1", ""})
_LOWEST_HU = -200.0  # a range that starts above it holds neither air nor fat, so its values are not HU
_SLOPES = (0.01, 100.0)  # HU per stored value: scanners write 1, and 0.1 to 10 for extended or finer scales
_FURTHEST_INTERCEPT = 1e5  # HU
_OFF_AXIAL = 0.5  # |z| of the normal of a plane more than 60 degrees off the axial one
_TYPE_WORD = re.compile(r"[^A-Z0-9*]+")
_TYPE_SPACE = re.compile(r"[ -]+")


class Content(StrEnum):
    """What the values are; plain anatomy has none of these. The value is stored in the catalogue, never renamed."""

    LOCALISER = "localiser"
    MOSAIC = "mosaic"
    SPECTRAL = "spectral"
    PHASE = "phase"
    MAP = "map"
    UNSCALED = "unscaled"
    MIXED = "mixed"


def content_of(attributes: InstanceAttributes) -> str:
    """Return what the values are by stored attributes alone, "" for anatomy; a content that was read before wins."""
    if attributes.content:
        return attributes.content
    return _by_words(attributes.modality, attributes.image_type, attributes.description, attributes.sop_class_uid)


def read_content(ds: Dataset, attributes: InstanceAttributes) -> str:
    """Return what the values are by all evidence of the data set, "" for anatomy, MIXED where frames differ.

    Source: PS3.3 C.7.6.1.1.2 and C.8.16.1 (Image Type, Frame Type), C.11.1.1.2 (Rescale Type), C.8.13.3.1 (complex
    component), C.7.6.16.2.11 (real-world values), and the vendors' values in `vendors`.
    """
    values = tuple(value.upper() for value in read_texts(ds, "ImageType"))  # as sent: names are not yet removed
    evidence = _by_words(attributes.modality, values, attributes.description, attributes.sop_class_uid)
    if evidence or attributes.modality not in _CROSS:
        return evidence
    groups = Groups.read(ds, attributes.frames)
    frames = {_by_words(attributes.modality, types, (), attributes.sop_class_uid) for types in _frame_types(groups)}
    return _common(frames) or _by_values(groups, attributes)


def _common(contents: set[str]) -> str:
    return contents.pop() if len(contents) == 1 else Content.MIXED if contents else ""


@lru_cache(maxsize=256)  # the images of a series say the same
def _by_words(modality: str, image_type: tuple[str, ...], tokens: tuple[str, ...], sop_class: str) -> str:
    types = {_TYPE_SPACE.sub("_", value.upper()) for value in image_type[2:]} | set(image_type[2:])
    if _names_localiser(image_type) or (modality in _CROSS and "SCOUT" in tokens):
        return Content.LOCALISER
    if sop_class == vendors.PARAMETRIC_MAP_STORAGE:
        return Content.MAP
    words = {word for value in types for word in _TYPE_WORD.split(value)}
    if modality == "CT" and ("SPECTRAL" in tokens or _names_spectral(types, words)):
        return Content.SPECTRAL
    if modality == "MR" and types & vendors.MOSAIC_TYPES:
        return Content.MOSAIC
    if modality == "MR" and _shows_phase(types, "PHASE" in tokens):
        return Content.PHASE
    enhanced = modality == "MR" and sop_class.startswith("1.2.840.10008.5.1.4.1.1.4.")
    named = _names_map(modality, types, words) or (enhanced and set(image_type[3:4]) & vendors.ENHANCED_MAP_TYPES)
    lone_adc = "ADC" in tokens and "DWI" not in tokens  # a protocol "DWI ADC" names the weighted images too
    return Content.MAP if modality in _CROSS and (named or lone_adc or "MAP" in tokens) else ""


def _names_spectral(types: set[str], words: set[str]) -> bool:
    plain = {"WATER"} if any(map(vendors.PLAIN_WATER.fullmatch, types)) else set()
    ends = any(word.endswith(vendors.SPECTRAL_END) for word in words)
    return ends or bool((types - plain) & vendors.SPECTRAL_TYPES or words & vendors.SPECTRAL_TYPE_WORDS)


def _shows_phase(types: set[str], named: bool) -> bool:
    """Return whether an MR image is a phase image; an inversion recovery with its sign is not, its phase is."""
    if "PSIR" in types:
        return False
    if types & vendors.REAL_IR:
        return _names_phase(types - vendors.REAL_TYPES)
    return named or _names_phase(types)


def _names_phase(types: set[str]) -> bool:
    return bool(types & vendors.PHASE_TYPES or (types & vendors.B0_TYPES and not types & vendors.DIFFUSION_TYPES))


def _names_map(modality: str, types: set[str], words: set[str]) -> bool:
    unspecified = {vendors.UNSPECIFIED.sub("", value) for value in types if vendors.UNSPECIFIED.search(value)}
    return bool(
        types & vendors.MAP_TYPES
        or words & vendors.MAP_TYPE_WORDS
        or any(map(vendors.MAP_TYPE_WORD.fullmatch, words))
        or unspecified & (vendors.MAP_TYPES | vendors.ENHANCED_MAP_TYPES)
        or types & vendors.STAR_MAP_TYPES
        or (modality == "CT" and types & vendors.CT_MAP_TYPES)
    )


def _names_localiser(image_type: Sequence[str]) -> bool:
    values = [value.upper() for value in image_type]
    words = {word.rstrip("0123456789") for value in values for word in _TYPE_WORD.split(value)}
    if any(map(vendors.TOPOGRAM_TYPE.fullmatch, values)):
        return True
    return bool(words & vendors.LOCALISER_WORDS) or any(
        part in value.replace(" ", "") for value in values for part in vendors.LOCALISER_PARTS
    )


def _frame_types(groups: Groups) -> Iterator[tuple[str, ...]]:
    """Yield each different Frame Type (0008,9007) of an enhanced image."""
    for name in ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence"):
        items = [item for item in groups.read_each(name) if item is not None] if groups.enhanced else []
        yield from {tuple(read_optional_text(item, "FrameType").upper().split("\\")) for item in items}


def _by_values(groups: Groups, attributes: InstanceAttributes) -> str:
    if attributes.modality == "MR":
        return _by_component(groups, attributes) or _by_units(groups, attributes)
    if _is_ct_scout(groups.ds, attributes):
        return Content.LOCALISER
    return _by_units(groups, attributes) or (Content.UNSCALED if _is_unscaled(groups, attributes) else "")


def _by_component(groups: Groups, attributes: InstanceAttributes) -> str:
    """Return PHASE or MOSAIC where private or functional elements say so (`vendors`)."""
    items = [groups.ds, *groups.read_each("MRImageFrameTypeSequence")]
    signed = vendors.REAL_IR.intersection(attributes.image_type) or "PSIR" in attributes.description
    components = {read_optional_text(item, "ComplexImageComponent").upper() for item in items if item is not None}
    number = read_private_integer(groups.ds, vendors.GE_COMPONENT)
    if components & {"PHASE", "IMAGINARY", "MIXED"} or number in (1, 3):
        return Content.PHASE
    if not signed and ("REAL" in components or number == 2):  # GE: 2 is the real part
        return Content.PHASE
    return Content.MOSAIC if (read_private_integer(groups.ds, vendors.SIEMENS_TILES) or 0) > 1 else ""


def _by_units(groups: Groups, attributes: InstanceAttributes) -> str:
    """Return SPECTRAL (CT) or MAP (MR) where the units of the values are not those of plain images."""
    units, codes = set(_units(groups)), set(_codes(groups))
    if attributes.modality == "CT":
        monochromatic = has(groups.ds, "MonoenergeticEnergyEquivalent")
        return Content.SPECTRAL if not all(map(is_hounsfield, units)) or monochromatic else ""
    return Content.MAP if any(map(is_quantity, units)) or codes & vendors.MAP_CODES else ""


def _units(groups: Groups) -> Iterator[str]:
    sources = [groups.ds, *(groups.read_each("PixelValueTransformationSequence") if groups.enhanced else [])]
    yield from (" ".join(read_optional_text(item, "RescaleType").upper().split()) for item in sources if item)
    for mapping in _mappings(groups):
        for item in _items(mapping, "MeasurementUnitsCodeSequence"):
            code = read_optional_text(item, "CodeValue").upper()
            yield "" if code in _HOUNSFIELD_CODES else code


def _codes(groups: Groups) -> Iterator[str]:
    items = [*_items(groups.ds, "DerivationCodeSequence")]
    for mapping in _mappings(groups):
        for quantity in _items(mapping, "QuantityDefinitionSequence"):
            items += _items(quantity, "ConceptCodeSequence")
    yield from (read_optional_text(item, "CodeValue") for item in items)


def _mappings(groups: Groups) -> Iterator[Dataset]:
    sources = [groups.ds, *([groups.shared] if groups.shared is not None else []), *groups.frames[:1]]
    for source in sources:
        yield from _items(source, "RealWorldValueMappingSequence")


def _items(ds: Dataset, keyword: str) -> Iterable[Dataset]:
    try:
        return read_items(ds, keyword)
    except Rejected:
        return ()


def _is_ct_scout(ds: Dataset, attributes: InstanceAttributes) -> bool:
    """Whether a CT without a description calls itself acquired, not axial, and lies upright.

    Consoles name their scouts; an upright plane with another name is a direct coronal scan or a reformatted one.
    """
    if read_optional_text(ds, "SeriesDescription").strip():
        return False
    types, cosines = [value.upper() for value in attributes.image_type], attributes.orientation
    if cosines is None or types[:1] != ["ORIGINAL"] or "AXIAL" in types:
        return False
    return abs(cosines[0] * cosines[4] - cosines[1] * cosines[3]) < _OFF_AXIAL


def _is_unscaled(groups: Groups, attributes: InstanceAttributes) -> bool:
    """Whether CT values cannot be HU: no rescale (type 1, PS3.3 C.8.2.1), a half or absurd one, or one beginning above
    air.
    """
    if attributes.modality_lut is not None:
        return False
    if not attributes.rescale or _has_half_rescale(groups):
        return True
    if any(not _is_plausible(*rescale) for rescale in attributes.rescale):
        return True
    if not has(groups.ds, "PixelRepresentation") or attributes.pixel_representation == 1:
        return False
    return all(slope > 0 and intercept > _LOWEST_HU for slope, intercept in attributes.rescale)


def _has_half_rescale(groups: Groups) -> bool:
    """Return whether only one of slope and intercept is given: the other one is not 1 or 0 but unknown."""
    sources = [groups.ds, *(groups.read_each("PixelValueTransformationSequence") if groups.enhanced else [])]
    names = "RescaleSlope", "RescaleIntercept"
    return any(sum(read_number(item, name) is None for name in names) == 1 for item in sources if item is not None)


def _is_plausible(slope: float, intercept: float) -> bool:
    return _SLOPES[0] <= abs(slope) <= _SLOPES[1] and abs(intercept) <= _FURTHEST_INTERCEPT

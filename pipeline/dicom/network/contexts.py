"""Presentation contexts that the listener offers: the classes and transfer syntaxes whose objects can be decoded."""

from __future__ import annotations

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ParametricMapStorage,
    RTDoseStorage,
    SegmentationStorage,
)
from pynetdicom import AllStoragePresentationContexts
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import EnhancedUSVolumeStorage, Verification

from pipeline.dicom.decode.pixels import PLUGINS

TRANSFER_SYNTAXES: tuple[str, ...] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    *PLUGINS,
)
# Classes with pixels whose name does not contain "Image".
_ALSO_PIXELS = (RTDoseStorage, EnhancedUSVolumeStorage, ParametricMapStorage, SegmentationStorage)


def _names_pixels(name: str) -> bool:
    return "Image Storage" in name or "Waveform Storage" in name


STORAGE_CLASSES: tuple[str, ...] = tuple(
    str(context.abstract_syntax)
    for context in AllStoragePresentationContexts
    if context.abstract_syntax is not None
    and (_names_pixels(context.abstract_syntax.name) or context.abstract_syntax in _ALSO_PIXELS)
)


def offered() -> list[PresentationContext]:
    """Return the listener's presentation contexts: storage in every syntax that can be decoded, and C-ECHO."""
    syntaxes = list(TRANSFER_SYNTAXES)
    storage = [build_context(uid, syntaxes) for uid in STORAGE_CLASSES]
    return [*storage, build_context(Verification, [ImplicitVRLittleEndian, ExplicitVRLittleEndian])]

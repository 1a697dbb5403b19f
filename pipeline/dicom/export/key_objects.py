"""Key Object Selection (PS3.3 A.35.4, TID 2010): the images of a finding to look at first."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
from pydicom import Dataset
from pydicom.sr.codedict import codes

from pipeline.dicom.decode.own_objects import MANUFACTURER
from pipeline.dicom.export.described import (
    MODEL_NAME,
    NOT_FOR_DIAGNOSIS,
    Described,
    SourceImage,
    finish,
    series_of,
)
from pipeline.dicom.export.structured_report import device


def key_objects(finding: Described, images: Sequence[SourceImage], made: Sequence[Dataset]) -> Dataset:
    """Return the selection "Of Interest" of the most unusual images and of the exported objects.

    Args:
        finding: the finding; its words are the description.
        images: the original images, the most unusual first.
        made: segmentation, picture and report, as far as they exist.
    """
    referenced = [*(image.dataset for image in images), *made]
    content = hd.ko.KeyObjectSelection(
        document_title=codes.DCM.OfInterest,
        referenced_objects=referenced,
        observer_device_context=device(finding),
        description=f"{finding.words}. {NOT_FOR_DIAGNOSIS}",
    )
    ds = hd.ko.KeyObjectSelectionDocument(
        evidence=referenced, content=content, manufacturer=MANUFACTURER, **series_of(finding, "ko")
    )
    ds.ManufacturerModelName, ds.SoftwareVersions = MODEL_NAME, finding.software
    return finish(ds, finding, "ko", images[0].dataset)

"""Where a study differs from normal, as a binary Segmentation (PS3.3 A.51) on the original images' geometry."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes

from pipeline.dicom.export.described import MANUFACTURER, REGION, Described, SourceImage, equipment, finish, series_of


def segmentation(found: Described, images: Sequence[SourceImage]) -> Dataset | None:
    """Return the segmentation of what lies above the calibrated pixel threshold, one frame an image.

    None where there is no threshold, no heatmap, or nothing above the threshold; multi-frame originals are left out.

    Raises:
        ValueError: highdicom finds that the originals do not fit together.
    """
    mapped = [image for image in images if image.heatmap is not None]
    usable = [image for image in mapped if int(image.dataset.get("NumberOfFrames", 1)) == 1]
    if found.pixel_threshold is None or not usable:
        return None
    masks = np.stack([np.asarray(image.heatmap) > found.pixel_threshold for image in usable])
    if not masks.any():
        return None
    ds = hd.seg.Segmentation(
        source_images=[image.dataset for image in usable],
        pixel_array=masks,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(found)],
        content_description=f"Above {found.pixel_threshold:.4g}: {found.pixel_alpha:g} of normal pixels are",
        content_label="UNUSUAL",
        **series_of(found, "seg"),
        **equipment(found),
    )
    if "FrameOfReferenceUID" not in usable[0].dataset:  # type 2C without a patient-related frame of reference
        ds.PatientOrientation = usable[0].dataset.get("PatientOrientation", "")
    return finish(ds, found, "seg", usable[0].dataset)


def algorithm(found: Described) -> hd.AlgorithmIdentificationSequence:
    """Return the name, version and kind of what found it."""
    family = codes.DCM.ArtificialIntelligence
    return hd.AlgorithmIdentificationSequence(found.model[:64], family, found.version[:64], source=MANUFACTURER)


def _segment(found: Described) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="Differs from normal",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=REGION,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm(found),
        tracking_uid=found.uid("seg", "tracking"),
        tracking_id=f"{found.route} unusual region",
    )

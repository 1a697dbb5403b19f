"""Regions of a study that differ from normal, as a binary Segmentation (PS3.3 A.51) on the original geometry."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes

from pipeline.dicom.decode.own_objects import MANUFACTURER
from pipeline.dicom.export.described import REGION, Described, SourceImage, equipment, finish, series_of
from pipeline.dicom.export.one_grid import fitting


def segmentation(finding: Described, images: Sequence[SourceImage]) -> Dataset | None:
    """Return the segmentation of the pixels above the calibrated pixel threshold, one frame per image.

    None without a threshold, a heatmap, or pixels above the threshold. `one_grid.left_out` reports the images it omits.

    Raises:
        ValueError: highdicom refuses the originals because they do not fit together.
    """
    usable = fitting(images)
    if finding.pixel_threshold is None or not usable:
        return None
    masks = _masks(usable, finding.pixel_threshold)
    if not masks.any():
        return None
    ds = hd.seg.Segmentation(
        source_images=[usable[0].dataset] if usable[0].several else [image.dataset for image in usable],
        pixel_array=masks,
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_segment(finding)],
        content_description=f"Above {finding.pixel_threshold:.4g}: {finding.pixel_alpha:g} of normal pixels are",
        content_label="UNUSUAL",
        **series_of(finding, "seg"),
        **equipment(finding),
    )
    if "FrameOfReferenceUID" not in usable[0].dataset:  # type 2C without a patient-related frame of reference
        ds.PatientOrientation = usable[0].dataset.get("PatientOrientation", "")
    return finish(ds, finding, "seg", usable[0].dataset)


def _masks(images: Sequence[SourceImage], threshold: float) -> np.ndarray:
    """Return bool [N, H, W]: one mask per image, or one per frame of a multi-frame original."""
    above = [np.asarray(image.heatmap) > threshold for image in images]
    if not images[0].several:
        return np.stack(above)
    masks = np.zeros((int(images[0].dataset.NumberOfFrames), *above[0].shape), dtype=bool)
    for image, mask in zip(images, above, strict=True):
        masks[image.frame] = mask
    return masks


def algorithm(finding: Described) -> hd.AlgorithmIdentificationSequence:
    """Return name, version and kind of the detector."""
    family = codes.DCM.ArtificialIntelligence
    return hd.AlgorithmIdentificationSequence(finding.model[:64], family, finding.version[:64], source=MANUFACTURER)


def _segment(finding: Described) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=1,
        segment_label="Differs from normal",
        segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
        segmented_property_type=REGION,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm(finding),
        tracking_uid=finding.uid("seg", "tracking"),
        tracking_id=f"{finding.route} unusual region",
    )

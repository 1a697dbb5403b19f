"""Regions of a study that differ from normal, as a binary Segmentation (PS3.3 A.51) on the original geometry."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes

from pipeline.dicom.export.described import MANUFACTURER, REGION, Described, SourceImage, equipment, finish, series_of

# Elements that give the positions of frames in an enhanced multi-frame object (PS3.3 C.7.6.16).
_PLACES = {"FrameOfReferenceUID", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"}


def segmentation(finding: Described, images: Sequence[SourceImage]) -> Dataset | None:
    """Return the segmentation of the pixels above the calibrated pixel threshold, one frame per image.

    None without a threshold, a heatmap, or pixels above the threshold. `left_out` reports the images it omits.

    Raises:
        ValueError: highdicom refuses the originals because they do not fit together.
    """
    usable = _outlined(images)
    if finding.pixel_threshold is None or not usable:
        return None
    masks = _masks(usable, finding.pixel_threshold)
    if not masks.any():
        return None
    ds = hd.seg.Segmentation(
        source_images=[usable[0].dataset] if _several(usable[0]) else [image.dataset for image in usable],
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


def left_out(finding: Described, images: Sequence[SourceImage]) -> str:
    """Return a sentence on which images with a heatmap the segmentation omits, and why; empty if it omits none."""
    mapped = [image for image in images if image.heatmap is not None]
    missing = len(mapped) - len(_outlined(images))
    if finding.pixel_threshold is None or not missing:
        return ""
    return (
        f"the segmentation omits {missing} of {len(mapped)} images: it covers either single-frame originals with the "
        "size and frame of reference of the most unusual one, or the frames of one multi-frame original that gives "
        "the position of each frame."
    )


def _outlined(images: Sequence[SourceImage]) -> list[SourceImage]:
    """Return the images that one segmentation can cover: single-frame ones that fit the first, or frames of one."""
    mapped = [image for image in images if image.heatmap is not None]
    single = [image for image in mapped if not _several(image)]
    single = [image for image in single if _grid(image) == _grid(single[0])]
    placed = [image for image in mapped if _several(image) and set(image.dataset.dir()) >= _PLACES]
    first = placed[0].dataset.SOPInstanceUID if placed else ""
    return single or [image for image in placed if image.dataset.SOPInstanceUID == first]


def _grid(image: SourceImage) -> tuple[int, int, str]:
    """Return what all images of one segmentation must share (PS3.3 A.51); two views of a chest rarely do."""
    ds = image.dataset
    return int(ds.Rows), int(ds.Columns), str(ds.get("FrameOfReferenceUID", ""))


def _several(image: SourceImage) -> bool:
    return int(image.dataset.get("NumberOfFrames", 1)) > 1


def _masks(images: Sequence[SourceImage], threshold: float) -> np.ndarray:
    """Return bool [N, H, W]: one mask per image, or one per frame of a multi-frame original."""
    above = [np.asarray(image.heatmap) > threshold for image in images]
    if not _several(images[0]):
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

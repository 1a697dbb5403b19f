"""Where a study differs from normal, as a binary Segmentation (PS3.3 A.51) on the original images' geometry."""

from __future__ import annotations

from collections.abc import Sequence

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes

from pipeline.dicom.export.described import MANUFACTURER, REGION, Described, SourceImage, equipment, finish, series_of

# Of an enhanced multi-frame object (PS3.3 C.7.6.16): without them, nobody knows where a frame lies.
_PLACES = {"FrameOfReferenceUID", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"}


def segmentation(found: Described, images: Sequence[SourceImage]) -> Dataset | None:
    """Return the segmentation of what lies above the calibrated pixel threshold, one frame an image.

    None where there is no threshold, no heatmap, or nothing above the threshold. What it leaves out, `left_out` says.

    Raises:
        ValueError: highdicom finds that the originals do not fit together.
    """
    usable = _outlined(images)
    if found.pixel_threshold is None or not usable:
        return None
    masks = _masks(usable, found.pixel_threshold)
    if not masks.any():
        return None
    ds = hd.seg.Segmentation(
        source_images=[usable[0].dataset] if _several(usable[0]) else [image.dataset for image in usable],
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


def left_out(found: Described, images: Sequence[SourceImage]) -> str:
    """Say in a sentence which images with a heatmap the segmentation leaves out, and why; empty where none."""
    mapped = [image for image in images if image.heatmap is not None]
    missing = len(mapped) - len(_outlined(images))
    if found.pixel_threshold is None or not missing:
        return ""
    return (
        f"the segmentation leaves out {missing} of {len(mapped)} images: it covers single-frame originals of the size "
        "and frame of reference of the most unusual one, or else the frames of one multi-frame original that says "
        "where each of them lies."
    )


def _outlined(images: Sequence[SourceImage]) -> list[SourceImage]:
    """Return what one segmentation can cover: single-frame images that fit the first, or frames of one object."""
    mapped = [image for image in images if image.heatmap is not None]
    single = [image for image in mapped if not _several(image)]
    single = [image for image in single if _grid(image) == _grid(single[0])]
    placed = [image for image in mapped if _several(image) and set(image.dataset.dir()) >= _PLACES]
    first = placed[0].dataset.SOPInstanceUID if placed else ""
    return single or [image for image in placed if image.dataset.SOPInstanceUID == first]


def _grid(image: SourceImage) -> tuple[int, int, str]:
    """Return what all images of one segmentation share (PS3.3 A.51): two views of a chest rarely do."""
    ds = image.dataset
    return int(ds.Rows), int(ds.Columns), str(ds.get("FrameOfReferenceUID", ""))


def _several(image: SourceImage) -> bool:
    return int(image.dataset.get("NumberOfFrames", 1)) > 1


def _masks(images: Sequence[SourceImage], threshold: float) -> np.ndarray:
    """Return bool [N, H, W]: a mask an image, or one for every frame of a multi-frame original."""
    above = [np.asarray(image.heatmap) > threshold for image in images]
    if not _several(images[0]):
        return np.stack(above)
    masks = np.zeros((int(images[0].dataset.NumberOfFrames), *above[0].shape), dtype=bool)
    for image, mask in zip(images, above, strict=True):
        masks[image.frame] = mask
    return masks


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

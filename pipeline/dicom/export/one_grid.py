"""Originals that one segmentation or map can cover: single-frame ones on one grid, or the frames of one original."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.dicom.export.described import SourceImage

# Elements that give the positions of frames in an enhanced multi-frame object (PS3.3 C.7.6.16).
_PLACES = {"FrameOfReferenceUID", "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"}


def fitting(images: Sequence[SourceImage]) -> list[SourceImage]:
    """Return the images with a heatmap that one object can cover: those on the grid of the first, or frames of one."""
    mapped = [image for image in images if image.heatmap is not None]
    single = [image for image in mapped if not image.several]
    single = [image for image in single if _grid(image) == _grid(single[0])]
    placed = [image for image in mapped if image.several and set(image.dataset.dir()) >= _PLACES]
    first = placed[0].dataset.SOPInstanceUID if placed else ""
    return single or [image for image in placed if image.dataset.SOPInstanceUID == first]


def left_out(images: Sequence[SourceImage]) -> str:
    """Return a sentence on how many images with a heatmap are omitted, and why; empty if none is."""
    mapped = [image for image in images if image.heatmap is not None]
    missing = len(mapped) - len(fitting(images))
    if not missing:
        return ""
    return (
        f"the segmentation and the anomaly map omit {missing} of {len(mapped)} images: they cover either single-frame "
        "originals with the size, series and frame of reference of the most unusual one, or the frames of one "
        "multi-frame original that gives the position of each frame."
    )


def _grid(image: SourceImage) -> tuple[int, int, str, str]:
    """Return what the originals of one object must share (PS3.3 A.51, A.75); two views of a chest rarely do.

    highdicom takes originals of one series only.
    """
    ds = image.dataset
    return int(ds.Rows), int(ds.Columns), str(ds.get("FrameOfReferenceUID", "")), str(ds.SeriesInstanceUID)

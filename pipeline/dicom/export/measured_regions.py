"""Measurements of the outlined regions (PS3.16 TID 1410, TID 1411): area per slice, volume, and where they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import highdicom as hd
import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    Measurement,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    ReferencedSegment,
    ReferencedSegmentationFrame,
    RelationshipTypeValues,
    SourceImageForSegmentation,
    TextContentItem,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom import Dataset
from pydicom.sr.codedict import codes

from pipeline.dicom.export.described import COVERAGE, MAP_PEAK, REGION, Described, SourceImage, decimal

SEGMENT = 1  # the only one
Group: TypeAlias = PlanarROIMeasurementsAndQualitativeEvaluations | VolumetricROIMeasurementsAndQualitativeEvaluations


@dataclass(frozen=True, slots=True)
class _Region:
    """One frame of the segmentation (1-based `number`) and the original under it."""

    number: int
    mask: np.ndarray
    image: SourceImage

    @property
    def area_mm2(self) -> float | None:
        spacing = self.image.spacing_mm
        return None if spacing is None else float(self.mask.sum()) * spacing[0] * spacing[1]

    @property
    def peak(self) -> float:
        return float(np.asarray(self.image.heatmap)[self.mask].max())

    @property
    def source(self) -> SourceImageForSegmentation:
        ds, frames = self.image.dataset, [self.image.frame + 1] if self.image.several else None
        return SourceImageForSegmentation(ds.SOPClassUID, ds.SOPInstanceUID, frames)


def measured_regions(finding: Described, outline: Dataset, images: Sequence[SourceImage]) -> list[Group]:
    """Return the measurement groups of a segmentation: one per outlined slice, after that of the whole volume.

    A volume is given where several slices of a regular stack are outlined; a distance that the original does not give
    is never assumed, so an area or a volume may be missing.

    Args:
        finding: the finding.
        outline: its segmentation, with references to the originals.
        images: the originals, with their heatmaps.
    """
    regions = list(_regions(outline, images))
    return [*_volume(finding, outline, regions), *(_planar(finding, outline, region) for region in regions)]


def _regions(outline: Dataset, images: Sequence[SourceImage]) -> Iterator[_Region]:
    """Yield the frames of the segmentation; it omits those without outlined pixels, and sorts them by position."""
    places = {(image.dataset.SOPInstanceUID, image.frame): image for image in images}
    masks = np.reshape(outline.pixel_array, (-1, outline.Rows, outline.Columns)) > 0
    for number, (mask, groups) in enumerate(zip(masks, outline.PerFrameFunctionalGroupsSequence, strict=True), start=1):
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        frame = int(source.get("ReferencedFrameNumber", 1)) - 1
        yield _Region(number, mask, places[source.ReferencedSOPInstanceUID, frame])


def _planar(finding: Described, outline: Dataset, region: _Region) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    numbers = [Measurement(name=MAP_PEAK, value=decimal(region.peak), unit=codes.UCUM.NoUnits)]
    if region.area_mm2 is not None:
        numbers.insert(0, Measurement(codes.SCT.Area, decimal(region.area_mm2), codes.UCUM.SquareMillimeter))
    place = ReferencedSegmentationFrame(
        outline.SOPClassUID, outline.SOPInstanceUID, region.number, SEGMENT, region.source
    )
    del place[0].ReferencedSOPSequence[0].ReferencedSegmentNumber  # type 1C: not beside a frame number (PS3.3 C.18.4)
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=place,
        measurements=numbers,
        **_about(finding, f"slice-{region.number}", f"{finding.route} unusual region, frame {region.number}"),
    )


def _volume(finding: Described, outline: Dataset, regions: Sequence[_Region]) -> list[Group]:
    """Return the volume's group, or [] where one slice is outlined or a distance is unknown."""
    volumes = [_product(region.area_mm2, region.image.slice_mm) for region in regions]
    sizes = [volume for volume in volumes if volume is not None]
    if len(regions) < 2 or len(sizes) < len(regions):
        return []
    group = VolumetricROIMeasurementsAndQualitativeEvaluations(
        referenced_segment=ReferencedSegment(
            outline.SOPClassUID, outline.SOPInstanceUID, SEGMENT, source_images=[region.source for region in regions]
        ),
        measurements=[Measurement(codes.SCT.Volume, decimal(sum(sizes)), codes.UCUM.CubicMillimeter)],
        **_about(finding, "tracking", f"{finding.route} unusual region"),
    )
    covered = f"Only the {len(regions)} outlined slices; other slices may differ from normal too."
    group[0].ContentSequence.append(TextContentItem(COVERAGE, covered, RelationshipTypeValues.CONTAINS))
    return [group]


def _about(finding: Described, part: str, name: str) -> dict[str, object]:
    """Return the arguments that all groups share; the volume has the tracking UID of the segment itself."""
    return {
        "tracking_identifier": TrackingIdentifier(uid=hd.UID(finding.uid("seg", part)), identifier=name),
        "finding_type": REGION,
        "algorithm_id": AlgorithmIdentification(finding.model, finding.version),
    }


def _product(area: float | None, depth: float | None) -> float | None:
    return None if area is None or depth is None else area * depth

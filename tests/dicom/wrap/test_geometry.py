"""A NIfTI volume keeps its position: ITK, which reads both files, finds the same value at the same millimetre."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from pydicom import dcmread

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.geometry import Allowed, assemble
from pipeline.dicom.decode.read import read_instance
from pipeline.dicom.wrap.wrap import wrap

SHAPE = (9, 8, 7)


def affine(turn: float = 0.0, order: tuple[int, ...] = (0, 1, 2), skew: float = 0.0) -> np.ndarray:
    """2 x 3 x 5 mm voxels, turned about x by `turn` radians, their axes in another order and the second reversed."""
    c, s = np.cos(turn), np.sin(turn)
    axes = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.diag([2.0, -3.0, 5.0])
    axes[:, 0] += skew * axes[:, 1]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes[:, order], (-31, 22.5, 7)
    return matrix


@pytest.fixture
def wrapped(tmp_path: Path) -> Callable[..., Path]:
    """`wrapped(image)`: the DICOM file made from a NIfTI image."""

    def make(image: nibabel.Nifti1Image) -> Path:
        nibabel.save(image, tmp_path / "v.nii.gz")
        (tmp_path / "m.csv").write_text("file,patient_id\nv.nii.gz,p1\n")
        report = wrap(tmp_path / "m.csv", tmp_path / "out", modality="MR")
        return next(report.dicom.rglob("*.dcm"))

    return make


def image_of(matrix: np.ndarray, shape: tuple[int, ...] = SHAPE) -> nibabel.Nifti1Image:
    values = np.random.default_rng(0).integers(0, 30000, shape).astype(np.int16)
    image = nibabel.Nifti1Image(values, matrix)
    image.set_qform(matrix, code=1)
    return image


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("turn", [0.0, 0.35])
def test_itk_finds_each_voxel_where_the_nifti_has_it(
    wrapped: Callable[..., Path], tmp_path: Path, turn: float, order: tuple[int, ...]
) -> None:
    file = wrapped(image_of(affine(turn, order)))
    theirs, ours = sitk.ReadImage(str(tmp_path / "v.nii.gz")), sitk.ReadImage(str(file))
    for index in np.ndindex(*SHAPE):
        place = theirs.TransformIndexToPhysicalPoint([int(i) for i in index])
        there = ours.TransformPhysicalPointToContinuousIndex(place)
        np.testing.assert_allclose(there, np.rint(there), atol=2e-3)
        assert ours[[round(i) for i in there]] == theirs[[int(i) for i in index]]


def test_a_wrapped_volume_is_a_volume(wrapped: Callable[..., Path], dciodvfy: Callable[[Path], list[str]]) -> None:
    file = wrapped(image_of(affine(0.2)))
    attributes = read_instance(file, DecodeLimits()).attributes
    geometry = assemble([("i", attributes)], Allowed(volume_of=7))
    assert geometry.is_volume and geometry.spacing_mm == pytest.approx((5.0, 3.0, 2.0))
    assert [frame for _, frame in geometry.order] == list(range(7))
    assert dciodvfy(file) == []


def test_units_are_millimetres_in_the_end(wrapped: Callable[..., Path]) -> None:
    image = image_of(affine() @ np.diag([0.001, 0.001, 0.001, 1.0]))
    image.header.set_xyzt_units("meter")
    measures = dcmread(wrapped(image)).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert [float(mm) for mm in measures.PixelSpacing] == pytest.approx([3.0, 2.0], rel=1e-5)
    assert float(measures.SpacingBetweenSlices) == pytest.approx(5.0, rel=1e-5)


@pytest.mark.parametrize("fault", ["skewed", "unplaced"])
def test_no_geometry_is_made_up(wrapped: Callable[..., Path], fault: str) -> None:
    image = image_of(affine())
    if fault == "skewed":
        image = nibabel.Nifti1Image(np.asarray(image.dataobj), affine(skew=0.05))
    else:
        image.set_sform(None, code=0)
        image.set_qform(None, code=0)
    assert read_instance(wrapped(image), DecodeLimits()).attributes.positions == ()


def test_a_volume_of_one_frame_stays_a_plain_capture(wrapped: Callable[..., Path]) -> None:
    ds = dcmread(wrapped(image_of(affine(), (9, 8, 1))))
    assert "SharedFunctionalGroupsSequence" not in ds and "NumberOfFrames" not in ds

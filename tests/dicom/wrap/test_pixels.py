"""Pixels survive wrapping: exactly for whole numbers, and within a stated bound for all others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from pipeline.dicom.wrap.wrap import wrap
from pipeline.dicom.wrap.wrap_objects import to_stored

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 31), np.uint8)
DEEP = RNG.integers(0, 65536, (20, 31), np.uint16)


def _save(path: Path, values: np.ndarray, **options: object) -> None:
    Image.fromarray(values).save(path, **options)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("values", [GREY, DEEP], ids=["8 bit", "16 bit"])
def test_grey_pictures_are_exact(
    name: str, values: np.ndarray, data: Path, manifest: Callable, instances: Callable, tmp_path: Path
) -> None:
    _save(data / name, values)
    (one,) = instances(wrap(manifest([{"file": name}]), tmp_path / "out"))
    np.testing.assert_array_equal(one.stored[0], values)
    assert one.attributes.bits_stored == 8 * values.itemsize
    assert one.attributes.photometric == "MONOCHROME2"


def test_jpeg_is_decoded_and_says_that_it_was_lossy(
    data: Path, manifest: Callable, instances: Callable, tmp_path: Path
) -> None:
    import pydicom

    _save(data / "a.jpg", GREY, quality=80)
    report = wrap(manifest([{"file": "a.jpg"}]), tmp_path / "out")
    (one,) = instances(report)
    np.testing.assert_array_equal(one.stored[0], np.asarray(Image.open(data / "a.jpg")))
    ds = pydicom.dcmread(next(report.dicom.rglob("*.dcm")))
    assert (ds.LossyImageCompression, ds.LossyImageCompressionMethod) == ("01", "ISO_10918_1")


def test_colour_becomes_luminance_and_says_so(
    data: Path, manifest: Callable, instances: Callable, tmp_path: Path
) -> None:
    """BT.601 by hand: red 0.299 * 255 = 76, green 0.587 * 255 = 150, blue 0.114 * 255 = 29."""
    import pydicom

    _save(data / "a.png", np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8))
    report = wrap(manifest([{"file": "a.png"}]), tmp_path / "out")
    (one,) = instances(report)
    assert one.stored[0].tolist() == [[76, 150, 29, 255]]
    assert "luminance" in pydicom.dcmread(next(report.dicom.rglob("*.dcm"))).DerivationDescription


def test_grey_in_three_channels_is_taken_as_it_is(
    data: Path, manifest: Callable, instances: Callable, tmp_path: Path
) -> None:
    _save(data / "a.png", np.repeat(GREY[..., None], 3, axis=2))
    (one,) = instances(wrap(manifest([{"file": "a.png"}]), tmp_path / "out"))
    np.testing.assert_array_equal(one.stored[0], GREY)


def test_palette_and_one_bit_pictures(data: Path, manifest: Callable, instances: Callable, tmp_path: Path) -> None:
    Image.fromarray(GREY).convert("P").save(data / "p.png")
    Image.fromarray(GREY > 100).save(data / "b.png")
    palette, bits = instances(wrap(manifest([{"file": "p.png"}, {"file": "b.png"}]), tmp_path / "out"))
    np.testing.assert_array_equal(palette.stored[0], GREY)
    np.testing.assert_array_equal(bits.stored[0], (GREY > 100) * 255)


def test_pages_of_a_tiff_become_frames(data: Path, manifest: Callable, instances: Callable, tmp_path: Path) -> None:
    pages = [Image.fromarray(GREY + np.uint8(step)) for step in range(3)]
    pages[0].save(data / "a.tif", save_all=True, append_images=pages[1:])
    (one,) = instances(wrap(manifest([{"file": "a.tif"}]), tmp_path / "out"))
    np.testing.assert_array_equal(one.stored, [GREY + np.uint8(step) for step in range(3)])


def test_arrays_by_member_and_index(data: Path, manifest: Callable, instances: Callable, tmp_path: Path) -> None:
    stack = RNG.integers(0, 256, (4, 6, 7), np.uint8)
    np.savez(data / "x.npz", images=stack, colour=np.repeat(stack[..., None], 3, -1), volume=stack)
    np.save(data / "y.npy", stack)
    addresses = ["x.npz::images[2]", "x.npz::colour[1]", "y.npy[3]", "x.npz::volume"]
    objects = instances(wrap(manifest([{"file": address} for address in addresses]), tmp_path / "out"))
    for one, expected in zip(objects, (stack[2:3], stack[1:2], stack[3:4], stack), strict=True):
        np.testing.assert_array_equal(one.stored, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_whole_number_nifti_is_exact(
    dtype: type, data: Path, manifest: Callable, instances: Callable, physical: Callable, tmp_path: Path
) -> None:
    """With the identity affine (RAS) a frame runs from the patient's right and front: x and y reversed."""
    info = np.iinfo(dtype)
    volume = RNG.integers(info.min, info.max, (5, 6, 4), dtype, endpoint=True)
    volume[0, 0, 0], volume[1, 0, 0] = info.min, info.max
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4), dtype=dtype), data / "v.nii.gz")
    (one,) = instances(wrap(manifest([{"file": "v.nii.gz"}]), tmp_path / "out"))
    np.testing.assert_array_equal(physical(one), volume[::-1, ::-1].transpose(2, 1, 0).astype(np.float32))


def test_nifti_axes_follow_the_affine(data: Path, manifest: Callable, instances: Callable, tmp_path: Path) -> None:
    """The same body stored in another axis order gives the same frames."""
    volume = RNG.integers(0, 255, (5, 6, 4)).astype(np.uint8)
    turned = np.ascontiguousarray(volume[::-1].transpose(2, 0, 1))
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = 1, -1, 1, 1
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4), dtype=np.uint8), data / "a.nii")
    nibabel.save(nibabel.Nifti1Image(turned, affine, dtype=np.uint8), data / "b.nii")
    first, second = instances(wrap(manifest([{"file": "a.nii"}, {"file": "b.nii"}]), tmp_path / "out"))
    np.testing.assert_array_equal(first.stored, second.stored)


def test_float_nifti_stays_within_its_bound(
    data: Path, manifest: Callable, instances: Callable, physical: Callable, tmp_path: Path
) -> None:
    volume = RNG.normal(-3, 40, (7, 6, 5)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), data / "v.nii")
    (one,) = instances(wrap(manifest([{"file": "v.nii"}]), tmp_path / "out"))
    error = np.abs(physical(one) - volume[::-1, ::-1].transpose(2, 1, 0)).max()
    assert error <= (volume.max() - volume.min()) / 131070 * 1.001 + 1e-5  # and the rounding of float32


def test_scaled_nifti_gives_the_scaled_numbers(
    data: Path, manifest: Callable, instances: Callable, physical: Callable, tmp_path: Path
) -> None:
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.float64).reshape(2, 3, 4) * 0.25 - 1, np.eye(4))
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, data / "v.nii")
    expected = nibabel.load(data / "v.nii").get_fdata()[::-1, ::-1].transpose(2, 1, 0)
    (one,) = instances(wrap(manifest([{"file": "v.nii"}]), tmp_path / "out"))
    np.testing.assert_allclose(physical(one), expected, atol=6 / 131070 * 1.01 + 1e-6)


@given(arrays(np.float64, array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.floats(-1e9, 1e9)))
@settings(max_examples=200, deadline=None)
def test_mapping_of_any_numbers_keeps_the_stated_bound(values: np.ndarray) -> None:
    stored = to_stored(values)
    span = float(values.max() - values.min())
    back = stored.values * stored.slope + stored.intercept
    scale = max(abs(float(values.max())), abs(float(values.min())))
    assert np.abs(back - values).max() <= span / 131070 * 1.0001 + 1e-8 * scale + 1e-280
    assert len(f"{stored.slope:.8e}") <= 16 and len(f"{stored.intercept:.8e}") <= 16


@given(arrays(np.int32, (1, 4, 4), elements=st.integers(-40000, 70000)))
@settings(max_examples=200, deadline=None)
def test_whole_numbers_that_fit_are_exact(values: np.ndarray) -> None:
    stored = to_stored(values)
    fits = int(values.max()) - min(int(values.min()), 0) <= 65535
    assert stored.exact == fits
    if fits:
        np.testing.assert_array_equal(stored.values * stored.slope + stored.intercept, values)

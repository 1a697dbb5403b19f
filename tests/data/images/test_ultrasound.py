"""Ultrasound pictures: the fan is cropped, marks are filled, and a picture that its echoes fill passes unchanged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from pipeline.config import DecodeLimits
from pipeline.data.images.burned_marks import fill, find_marks
from pipeline.data.images.fan import find_fan
from pipeline.data.images.normalise import FixedRange, Normaliser, Plane, UltrasoundConfig, planes
from pipeline.data.images.ultrasound import prepare
from pipeline.dicom.decode.physical import to_physical
from pipeline.dicom.decode.read import read_instance
from pipeline.dicom.phantom import LesionKind, PhantomPatient, make_patient, write_phantoms

BOTH = UltrasoundConfig()
NORMALISER = Normaliser(FixedRange(image_size=128, ultrasound=BOTH, body={"method": "frame"}))


def _phantom(seed: int, callipers: str = "none", size: int = 256, kind: LesionKind | None = None) -> PhantomPatient:
    return make_patient(seed, "US", kind, size, callipers=callipers)


def _overlap(one: np.ndarray, other: np.ndarray) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize("size", [256, 400])
def test_fan_of_a_phantom_is_found_from_its_pixels(size: int) -> None:
    overlaps = []
    for seed in range(8):
        patient = _phantom(seed, size=size)
        fan = find_fan(patient.stored[0].astype(np.float32))
        assert fan is not None
        overlaps.append(_overlap(fan.mask, patient.body[0]))
        assert fan.mask[fan.crop].any(axis=0).all() and fan.mask.sum() == fan.mask[fan.crop].sum()
    assert min(overlaps) > 0.9 and np.mean(overlaps) > 0.94


def test_a_picture_that_its_echoes_fill_is_unchanged() -> None:
    """Squares from within fans, as a data set of cropped pictures has them, bright or dark with depth."""
    for seed in range(12):
        image = _phantom(seed, size=400).stored[0, 140:330, 130:270].astype(np.float32)
        image[120:] *= 0.2 if seed % 2 else 1.0
        assert find_fan(np.rint(image)) is None
        plain = prepare(image, None, (), UltrasoundConfig(fill_marks=False))
        assert plain.crop is None and plain.valid is None and (plain.pixels == image).all()


@pytest.mark.parametrize("image", [np.zeros((64, 80)), np.full((90, 60), 7.0), np.eye(100) * 200])
def test_pictures_without_echoes_are_unchanged(image: np.ndarray) -> None:
    assert find_fan(image.astype(np.float32)) is None
    flat = prepare(image.astype(np.float32), None, (), BOTH)
    assert flat.crop is None and flat.valid is None


def test_regions_of_the_file_bound_the_fan() -> None:
    image = _phantom(2, size=256).stored[0].astype(np.float32)
    fan = find_fan(image, [(60, 80, 190, 200)])
    assert fan is not None
    assert fan.crop[0].start >= 80 and fan.crop[0].stop <= 201 and fan.crop[1].start >= 60
    # a region of a picture of another size, as in files that were shrunk
    larger, none = find_fan(image, [(84, 31, 595, 414)]), find_fan(image)
    assert larger is not None and none is not None and larger.crop == none.crop


def test_callipers_are_found_and_speckle_is_not() -> None:
    hits, false = [], []
    for seed in range(6):
        patient = _phantom(seed, "abnormal", 400, LesionKind.DARKER)
        plain = _phantom(seed, "none", 400, LesionKind.DARKER)
        drawn = (patient.marks[0] > 0.5) & (plain.marks[0] == 0) & patient.body[0]
        marks = find_marks(patient.stored[0].astype(np.float32))
        hits.append((marks & drawn).sum() / drawn.sum())
        inside = prepare(plain.stored[0].astype(np.float32), None, (), BOTH)
        false.append(inside.marks / plain.body[0].sum())
    assert np.mean(hits) > 0.95 and min(hits) > 0.7
    assert np.mean(false) < 0.005 and max(false) < 0.02


def test_filled_callipers_leave_the_picture_without_them() -> None:
    """On the model's grid the filled picture is far closer to the one without marks than the marked one is."""
    marked, filled = [], []
    keep = Normaliser(NORMALISER.config.model_copy(update={"ultrasound": UltrasoundConfig(fill_marks=False)}))
    for seed in range(5):
        plain, signed = (_phantom(seed, c, 400, LesionKind.DARKER) for c in ("none", "abnormal"))
        images = [keep.apply(Plane(p.stored[0].astype(np.float32))).image for p in (plain, signed)]
        image = NORMALISER.apply(Plane(signed.stored[0].astype(np.float32))).image
        marked.append(np.abs(images[1] - images[0]).max())
        filled.append(np.abs(image - images[0])[np.abs(images[1] - images[0]) > 0.2].mean())
    assert min(marked) > 0.4 and np.mean(filled) < 0.12


def test_filling_mirrors_the_border() -> None:
    """A ramp goes on as its mirror image, and nothing else changes."""
    image = np.tile(np.arange(20, dtype=np.float32), (9, 1))
    marks = np.zeros(image.shape, dtype=bool)
    marks[:, 8:11] = True
    filled = fill(np.where(marks, 255, image), marks)
    np.testing.assert_array_equal(filled[4, 7:12], [7, 6, filled[4, 9], 12, 11])
    np.testing.assert_array_equal(filled[~marks], image[~marks])
    assert filled.max() < 20


def test_maps_return_to_the_native_picture() -> None:
    patient = _phantom(3, "abnormal", 300, LesionKind.DARKER)
    item = NORMALISER.apply(Plane(patient.stored[0].astype(np.float32)))
    native = NORMALISER.mask_to_native(item.body[0], item.step)
    assert native.shape == (300, 300) and _overlap(native, patient.body[0]) > 0.9
    assert item.step.params["marks"] > 0 and len(item.step.params["crop"]) == 4
    back = NORMALISER.invert(item.image[0], item.step)
    assert (back[~patient.body[0]] < 60).mean() > 0.95
    inner = patient.body[0] & (patient.marks[0] == 0)
    assert np.corrcoef(back[inner], patient.stored[0][inner])[0, 1] > 0.8


def test_a_score_does_not_depend_on_other_pictures() -> None:
    pictures = [Plane(_phantom(seed, "some").stored[0].astype(np.float32)) for seed in range(3)]
    together = NORMALISER.series(pictures)
    for plane, item in zip(pictures, together, strict=True):
        np.testing.assert_array_equal(NORMALISER.series([plane])[0].image, item.image)


def test_files_carry_their_regions_to_the_crop(tmp_path: Path) -> None:
    files = write_phantoms(tmp_path, 6, "US", 0.5, 1, size=256, callipers="abnormal").files
    declared = []
    for file in files:
        one = read_instance(file.path, DecodeLimits())
        (plane,) = planes(to_physical(one.stored, one.attributes))
        declared.append(len(plane.regions))
        body = NORMALISER.apply(plane).body[0]
        assert 0.3 < body.mean() < 1
    assert set(declared) == {0, 1}


def _real(name: str) -> Plane:
    path = get_testdata_file(name, download=False)
    if path is None:
        pytest.skip(f"{name} (package pydicom-data) is not installed")
    one = read_instance(Path(path), DecodeLimits())
    return next(planes(to_physical(one.stored, one.attributes)))


@pytest.mark.parametrize(
    ("name", "rows", "columns"),
    [
        ("JPGLosslessP14SV1_1s_1f_8b.dcm", (90, 180, 640, 690), (100, 200, 860, 940)),  # sector, with callipers
        ("gdcm-US-ALOKA-16.dcm", (20, 40, 400, 425), (25, 50, 620, 640)),  # two fans side by side
        ("examples_rgb_color.dcm", (0, 60, 160, 200), (0, 20, 300, 320)),  # colour, no declared region
    ],
)
def test_real_pictures_are_cropped(name: str, rows: Sequence[int], columns: Sequence[int]) -> None:
    """The echoes' edges as read off the pictures."""
    plane = _real(name)
    fan = find_fan(plane.pixels, plane.regions)
    assert fan is not None
    for part, (low, high, end, last) in zip(fan.crop, (rows, columns), strict=True):
        assert low <= part.start <= high and end <= part.stop <= last


def test_callipers_of_a_real_picture_are_filled() -> None:
    """Two crosses and the dots between them, in the upper right of an echocardiogram."""
    plane = _real("JPGLosslessP14SV1_1s_1f_8b.dcm")
    done = prepare(plane.pixels, plane.valid, plane.regions, BOTH)
    changed = done.pixels != plane.pixels
    assert 200 < done.marks < 6000
    assert changed[300:330, 620:645].any() and changed[420:450, 675:705].any()

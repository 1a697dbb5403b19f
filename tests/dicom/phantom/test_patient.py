"""Phantom patients as arrays: determinism, healthy twins, known truth, variation."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.dicom.phantom import SCANNERS, LesionKind, make_patient
from pipeline.errors import ConfigError

MODALITIES = ("CT", "MR", "CR", "DX", "US")


@pytest.mark.parametrize("modality", MODALITIES)
def test_equal_arguments_give_equal_patients(modality: str) -> None:
    first, second = (make_patient(5, modality, LesionKind.DARKER, 64) for _ in range(2))
    np.testing.assert_array_equal(first.stored, second.stored)
    np.testing.assert_array_equal(first.masks, second.masks)
    assert (first.facts, first.age, first.sex, first.lesion) == (second.facts, second.age, second.sex, second.lesion)


def test_seeds_give_different_patients() -> None:
    pictures = {make_patient(seed, "MR", None, 64).stored.tobytes() for seed in range(20)}
    assert len(pictures) == 20


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("kind", list(LesionKind))
def test_healthy_twin_differs_at_the_lesion_only(modality: str, kind: LesionKind) -> None:
    sick, twin = (make_patient(11, modality, lesion, 128, grade=3, callipers="none") for lesion in (kind, None))
    changed = sick.stored != twin.stored
    assert changed.any()
    assert not twin.masks.any() and twin.lesion is None
    # the soft border reaches beyond half effect; nothing lies far from the mask
    rows, columns = np.nonzero(changed[0])
    centre = np.argwhere(sick.masks[0]).mean(0)
    if (modality, kind) == ("US", LesionKind.DARKER):  # with a shadow or enhancement behind it
        assert rows.max() - centre[0] <= 4.0 * sick.lesion.radius * 64 + 1
        rows, columns = rows[rows <= centre[0]], columns[rows <= centre[0]]
    reach = np.hypot(rows - centre[0], columns - centre[1]).max()
    assert reach <= 3.0 * sick.lesion.radius * 64
    assert (sick.facts, sick.scanner, sick.age) == (twin.facts, twin.scanner, twin.age)


@pytest.mark.parametrize(("kind", "sign"), [(LesionKind.BRIGHTER, 1), (LesionKind.DARKER, -1)])
def test_contrast_inside_the_mask_is_the_lesions_own(kind: LesionKind, sign: int) -> None:
    checked = 0
    for seed in range(40):
        sick, twin = (make_patient(seed, "CT", lesion, 128, grade=2) for lesion in (kind, None))
        if sick.scanner.padded:
            continue
        core = (sick.physical - twin.physical)[sick.masks]
        assert 0.5 * abs(sick.lesion.contrast) - 1 <= np.min(sign * core)
        assert np.max(sign * core) == pytest.approx(abs(sick.lesion.contrast), abs=1.01)
        checked += 1
    assert checked > 20


def test_smoother_takes_detail_away() -> None:
    loss = []
    for seed in range(30):
        sick, twin = (make_patient(seed, "MR", lesion, 128, grade=3) for lesion in (LesionKind.SMOOTHER, None))
        mask = sick.masks[0]
        detail = [np.abs(np.diff(p.physical[0], axis=1, prepend=0))[mask].mean() for p in (sick, twin)]
        loss.append(detail[0] < detail[1])
    assert np.mean(loss) >= 0.9


def test_grades_are_graded() -> None:
    areas, contrasts = [], []
    for grade in (1, 2, 3):
        made = [make_patient(seed, "MR", LesionKind.BRIGHTER, 128, grade=grade) for seed in range(25)]
        areas.append(np.mean([p.masks.sum() for p in made]))
        contrasts.append(np.mean([p.lesion.contrast for p in made]))
    assert areas[0] * 1.5 < areas[1] and areas[1] * 1.5 < areas[2]
    assert contrasts[0] * 1.3 < contrasts[1] and contrasts[1] * 1.2 < contrasts[2]


def test_every_lesion_has_a_mask_inside_the_body() -> None:
    for modality in MODALITIES:
        for seed in range(15):
            for kind in LesionKind:
                patient = make_patient(seed, modality, kind, 32, grade=1)
                assert patient.masks.any(), (modality, seed, kind)
                assert patient.body[patient.masks].mean() > 0.9


def test_same_person_at_every_size() -> None:
    small, large = (make_patient(3, "MR", LesionKind.BRIGHTER, size) for size in (64, 256))
    assert small.facts == large.facts
    shrunk = large.body[0].reshape(64, 4, 64, 4).mean((1, 3)) >= 0.5
    assert (shrunk != small.body[0]).mean() < 0.01


def test_volume_holds_a_lesion_of_limited_height() -> None:
    held = [make_patient(seed, "CT", LesionKind.DARKER, 64, 5).masks.any((1, 2)) for seed in range(30)]
    counts = [int(rows.sum()) for rows in held]
    assert min(counts) >= 1 and np.mean(counts) < 4
    assert all(np.diff(np.flatnonzero(rows)).max(initial=1) == 1 for rows in held)


def test_anatomy_runs_through_the_volume() -> None:
    volume = make_patient(4, "CT", None, 64, 9).physical
    near = np.abs(volume[4] - volume[5]).mean()
    assert near < np.abs(volume[4] - make_patient(5, "CT", None, 64, 9).physical[5]).mean()


def test_age_has_its_documented_effects() -> None:
    facts = [make_patient(seed, "MR", None, 16).facts for seed in range(300)]
    age = [f["age_factor"] for f in facts]
    for name in ("ventricles", "sulci", "caps"):
        assert np.corrcoef(age, [f[name] for f in facts])[0, 1] > 0.7
    assert abs(np.corrcoef(age, [f["width"] for f in facts])[0, 1]) < 0.2


def test_age_in_years_follows_the_factor() -> None:
    for seed in range(20):
        patient = make_patient(seed, "CR", None, 16)
        assert patient.age == round(18 + 72 * patient.facts["age_factor"])


@pytest.mark.parametrize("modality", MODALITIES)
def test_stored_values_fit_the_scanner(modality: str) -> None:
    seen = set()
    for seed in range(40):
        patient = make_patient(seed, modality, None, 32)
        low, high = patient.scanner.limits
        grey = np.uint8 if modality == "US" else np.uint16
        assert patient.stored.dtype == (np.int16 if patient.scanner.signed else grey)
        assert low <= patient.stored.min() and patient.stored.max() <= high
        seen.add(patient.scanner.model)
    assert seen == {scanner.model for scanner in SCANNERS[modality]}


def test_ct_numbers_are_right_on_every_scanner() -> None:
    """Muscle-like soft tissue of the whole body stays near its HU, whatever the storage format."""
    for seed in range(20):
        patient = make_patient(seed, "CT", None, 64)
        median = float(np.median(patient.physical[patient.body]))
        assert -120 < median < 180, patient.scanner.model


def test_scanners_differ_in_noise() -> None:
    noise: dict[str, list[float]] = {}
    for seed in range(120):
        patient = make_patient(seed, "MR", None, 16)
        noise.setdefault(patient.scanner.model, []).append(patient.facts["noise"])
    means = sorted(np.mean(values) for values in noise.values())
    assert means[-1] > 1.6 * means[0]


@pytest.mark.parametrize(
    "arguments",
    [{"modality": "XA"}, {"modality": "MR", "region": "chest"}, {"modality": "MR", "grade": 4}]
    + [{"modality": "CR", "slices": 2}, {"modality": "MR", "size": 8}, {"modality": "MR", "slices": 0}],
)
def test_phantoms_that_do_not_exist_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        make_patient(1, **arguments)


def test_callipers_are_on_the_abnormal_images_alone_when_they_confound() -> None:
    """Marks grow by the same signs in every image that has them, and text and scale are in all."""
    amounts = {"none": [], "abnormal": []}
    for choice, sums in amounts.items():
        for seed in range(12):
            kind = LesionKind.DARKER if seed % 2 else None
            sums.append(make_patient(seed, "US", kind, 256, callipers=choice).marks.sum())
    extra = np.subtract(amounts["abnormal"], amounts["none"])
    assert (extra[::2] == 0).all() and (extra[1::2] > 20).all()


def test_marks_change_nothing_but_the_pixels_under_them() -> None:
    plain, marked = (make_patient(3, "US", LesionKind.DARKER, 256, callipers=c) for c in ("none", "abnormal"))
    differ = plain.stored != marked.stored
    assert differ.any() and not differ[plain.marks == marked.marks].any()
    assert marked.stored[marked.marks > 0.9].min() > 200 and (plain.body == marked.body).all()


def test_speckle_is_multiplicative() -> None:
    """Rayleigh speckle of 60 dB has one standard deviation in brightness, however bright the tissue is."""
    spreads = []
    for seed in range(20):
        patient = make_patient(seed, "US", None, 256, callipers="none")
        image = patient.stored[0].astype(np.float32) / patient.facts["gain"]
        rows = [slice(start, start + 12) for start in range(70, 200, 12)]
        spreads += [(image[r, 110:146].mean(), image[r, 110:146].std()) for r in rows]
    bright, spread = np.array(spreads).T
    middle = (bright > 0.2) & (bright < 0.8)
    assert 0.05 < np.median(spread[middle]) < 0.13
    assert abs(np.corrcoef(bright[middle], spread[middle])[0, 1]) < 0.5


def test_black_surrounds_the_fan() -> None:
    for seed in range(10):
        patient = make_patient(seed, "US", LesionKind.DARKER, 128, callipers="abnormal")
        outside = ~patient.body & (patient.marks == 0)
        assert not patient.stored[outside].any() and patient.stored[patient.body].min() > 0

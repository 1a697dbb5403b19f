"""Phantom pairs: one anatomy and one lesion seen twice, with everything else of each scan's own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.dicom.phantom import LesionKind, PairKind, make_pair, write_pairs
from pipeline.dicom.phantom.write_paired import main
from pipeline.errors import ConfigError

KINDS: tuple[PairKind, ...] = ("modalities", "scanners")


@pytest.mark.parametrize("kind", KINDS)
def test_both_scans_show_one_anatomy_and_one_lesion(kind: PairKind) -> None:
    for seed, lesion in enumerate((LesionKind.BRIGHTER, LesionKind.DARKER, LesionKind.SMOOTHER, LesionKind.DISPLACED)):
        one, other = make_pair(seed, kind, lesion, 64, 3)
        assert one.positions == other.positions and (one.age, one.sex) == (other.age, other.sex)
        assert np.array_equal(one.body, other.body) and np.array_equal(one.masks, other.masks) and one.masks.any()
        assert not np.array_equal(one.stored, other.stored)
        strangers = make_pair(seed + 100, kind, None, 64, 3)[1]
        assert not np.array_equal(one.body, strangers.body)


def test_a_lesion_that_is_bright_in_flair_is_dark_in_ct() -> None:
    for lesion, sign in ((LesionKind.BRIGHTER, 1), (LesionKind.DARKER, -1)):
        sick, twin = (make_pair(3, "modalities", one, 64, grade=3) for one in (lesion, None))
        change = [
            (a.physical - b.physical)[a.masks & ~_padded(a.physical)].mean() for a, b in zip(sick, twin, strict=True)
        ]
        assert sign * change[0] > 0 > sign * change[1]
        assert abs(change[1]) > 15, "of 32 HU at full contrast, where at least half of it is"


def test_the_healthy_twin_differs_only_at_the_lesion() -> None:
    sick, twin = (make_pair(8, "modalities", one, 64)[0] for one in (LesionKind.BRIGHTER, None))
    assert np.array_equal(sick.stored[~_near(sick.masks)], twin.stored[~_near(sick.masks)])


def test_scanner_b_blurs_and_is_noisier() -> None:
    sharpness, noise = [], []
    for seed in range(8):
        pair = make_pair(seed, "scanners", None, 128)
        images = [one.physical[0] / np.percentile(one.physical[0], 99) for one in pair]
        sharpness.append([np.abs(np.diff(one, axis=0)).max() for one in images])
        noise.append([one[~item.body[0]].std() for one, item in zip(images, pair, strict=True)])
    assert all(a > b for a, b in sharpness) and all(b > 1.5 * a for a, b in noise)


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_has_both_studies_of_each_patient(kind: PairKind, tmp_path: Path, dciodvfy: Callable) -> None:
    written = write_pairs(tmp_path, 6, kind, 0.5, 1, size=32, slices=2)
    studies = defaultdict(list)
    for study in written.studies:
        studies[study.patient_id].append(study)
    assert len(studies) == 6 and all(len(both) == 2 for both in studies.values())
    for one, other in studies.values():
        assert one.study_uid != other.study_uid and one.label == other.label and one.kind == other.kind
        assert [file.label for file in one.files] == [file.label for file in other.files]
    assert sum(study.label == "abnormal" for study in written.studies) == 6
    assert len({file.sop_uid for file in written.files}) == 24
    assert dciodvfy(written.studies[0].files[0].path) == dciodvfy(written.studies[1].files[0].path) == []


def test_the_command_writes_scans_and_labels(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    main(["scanners", str(tmp_path), "4", "5"])
    assert len(list((tmp_path / "inbox").rglob("*.dcm"))) == 2 * 5 * 3
    assert (tmp_path / "labels.csv").is_file() and "10 studies of 5 patients" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["twins", "x"], ["scanners"], ["scanners", "x", "y"]])
def test_wrong_arguments_print_the_usage(arguments: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)


def test_a_pair_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="modalities"):
        make_pair(1, "sequences")  # type: ignore[arg-type]


def _padded(physical: np.ndarray) -> np.ndarray:
    return physical < -1500


def _near(masks: np.ndarray) -> np.ndarray:
    """Pixels that a lesion's soft border may reach: half its effect is in the mask, the rest within some pixels."""
    from scipy.ndimage import binary_dilation

    return np.stack([binary_dilation(mask, iterations=8) for mask in masks])

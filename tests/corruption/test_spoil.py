"""Spoilt images: what each kind changes, and the file that is written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.corruption.spoil import KINDS, cut, patch, spoil, spoil_npz, turn
from pipeline.errors import ConfigError

SEEDS = range(12)
IMAGE = np.arange(1, 32 * 32 + 1, dtype=np.int64).reshape(32, 32)  # no value twice
FOREIGN = -IMAGE


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    """Twelve normal images with label 4, whose pixels are their number, and five others, which are negative."""
    images = np.concatenate([np.stack([IMAGE * 100 + n for n in range(12)]), np.stack([FOREIGN] * 5)])
    path = tmp_path / "classes.npz"
    np.savez(path, images=images, labels=np.array([4] * 12 + [0] * 5))
    return path


@pytest.mark.parametrize("seed", SEEDS)
def test_a_turned_image_has_the_same_pixels_elsewhere(seed: int) -> None:
    turned = turn(IMAGE, np.random.default_rng(seed))
    assert any(np.array_equal(turned, np.rot90(IMAGE, times)) for times in (1, 2, 3))
    wide = turn(IMAGE[:8], np.random.default_rng(seed))
    assert np.array_equal(wide, IMAGE[:8][::-1, ::-1])  # another turn would change its shape


def test_cuts_are_halves_and_quarters() -> None:
    shares = set()
    for seed in SEEDS:
        changed = cut(IMAGE, np.random.default_rng(seed)) != IMAGE
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        area = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        shares.add(area)
        assert changed.sum() >= area - 1  # all of it, but for the darkest pixel of the image
    assert shares == {512, 256}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_foreign_patch_is_a_square_of_the_other_image(seed: int) -> None:
    patched = patch(IMAGE, FOREIGN, np.random.default_rng(seed))
    changed = patched < 0
    rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
    edge = len(rows)
    assert 6 <= edge == len(columns) <= 12 and changed.sum() == edge**2
    block = patched[np.ix_(rows, columns)]
    assert np.all(np.diff(block, axis=1) == -1) and np.all(np.diff(block, axis=0) == -32)
    assert np.array_equal(patched[~changed], IMAGE[~changed])


def test_an_image_is_spoilt_in_the_same_way_however_many_follow() -> None:
    images, foreign = np.stack([IMAGE, IMAGE + 5, IMAGE + 9]), FOREIGN[None]
    assert np.array_equal(next(spoil(images, foreign, 3)), next(spoil(images[:1], foreign, 3)))
    assert not np.array_equal(next(spoil(images[:1], foreign, 3)), images[0])


def test_the_file_has_normal_images_as_they_were_and_spoilt_ones(npz: Path, tmp_path: Path) -> None:
    report = spoil_npz(npz, tmp_path / "out.npz", normal=(4,), share=0.5, seed=1)
    assert (report.normal, report.spoilt) == (6, dict.fromkeys(KINDS, 2))
    with np.load(npz) as before, np.load(tmp_path / "out.npz") as after:
        assert after["labels"].tolist() == [0] * 6 + [1, 2, 3] * 2
        originals = {image.tobytes() for image in before["images"][:12]}
        assert all(image.tobytes() in originals for image in after["images"][:6])
        assert not any(image.tobytes() in originals for image in after["images"][6:])
        numbers = [int(np.median(image[image > 0] % 100)) for image in after["images"]]
    assert sorted(numbers) == list(range(12))  # each normal image once, spoilt or not
    spoil_npz(npz, tmp_path / "again.npz", normal=(4,), share=0.5, seed=1)
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "out.npz").read_bytes()


@pytest.mark.parametrize(("normal", "share"), [((9,), 0.3), ((0, 4), 0.3), ((4,), 0.0), ((4,), 1.0)])
def test_without_normal_or_foreign_images_or_a_share_it_is_refused(
    npz: Path, tmp_path: Path, normal: tuple[int, ...], share: float
) -> None:
    with pytest.raises(ConfigError):
        spoil_npz(npz, tmp_path / "out.npz", normal, share)
    assert not (tmp_path / "out.npz").exists()


def test_a_file_that_is_not_an_npz_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(ConfigError):
        spoil_npz(tmp_path / "text.npz", tmp_path / "out.npz")

"""A detector of volumes: a series' scores are its own, and its maps lie where the series' slices do."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.data.images.dataset import SliceDataset
from pipeline.detection.aggregate import aggregate_maps
from pipeline.detection.detector import Detector
from pipeline.detection.ensemble import Ensemble, Member, Moments, refuse_strangers, z_score_members
from pipeline.detection.residual import residual
from pipeline.detection.score_files import score_file, score_files, score_scan
from pipeline.detection.stored_detector import load_detector, save_detector
from pipeline.detection.tiles import Tiling
from pipeline.detection.two_sided import TwoSided
from pipeline.errors import ConfigError, Rejected
from pipeline.methods.base import Method, MethodConfig
from pipeline.methods.stored_model import images_of
from pipeline.nn.rng import Rng
from pipeline.types import Batch, RunRef, Scan, SliceRef

Build = Callable[..., Detector]
Refs = Callable[..., list[SliceRef]]
Slices = Callable[..., SliceDataset]


class _Config(MethodConfig):
    name: str = "fake"


class Darkest(Method):
    """Nothing bright is normal: what is brighter than 0 becomes 0."""

    def reconstruct(self, x: torch.Tensor, rng: Rng, body: torch.Tensor | None = None) -> torch.Tensor:
        return x.clamp(max=0)


class Same(Method):
    def reconstruct(self, x: torch.Tensor, rng: Rng, body: torch.Tensor | None = None) -> torch.Tensor:
        return x


class Brightness(Method):
    def anomaly_map(self, x: torch.Tensor, rng: Rng) -> torch.Tensor:
        return x + 1


class OneNumber(Method):
    def score(self, x: torch.Tensor, rng: Rng) -> torch.Tensor:
        return x.flatten(1).mean(1)


def faked(detector: Detector, kind: type[Method]) -> Detector:
    return replace(detector, model=replace(detector.model, method=kind(_Config(), detector.volumes.tile, 1, 3)))


def scores_of(detector: Detector, data: SliceDataset) -> dict[str, float]:
    return {item.id: item.score for item in detector.score_slices(data)}


@pytest.mark.parametrize("count", [32, 21])
def test_one_cube_that_is_the_whole_volume_is_the_methods_own_answer(
    build: Build, volume: Refs, slices: Slices, count: int
) -> None:
    detector, data = build("ae", grid={"tile": 32}), slices(volume(count=count))
    (stack,) = data.stacks()
    scored = detector.score_batch(stack.batch)
    cube = torch.full((1, 1, 32, 32, 32), -1.0)  # thinner series lie in the middle, air on both sides
    cube[0, :, (32 - count) // 2 :][:, :count] = stack.batch.images.movedim(0, 1)
    x_hat = detector.method.reconstruct(cube, Rng([0]))[0].movedim(1, 0)[(32 - count) // 2 :][:count]
    maps = residual(stack.batch.images, x_hat, stack.batch.body, detector.residual)
    expected_image = torch.where(stack.batch.body, x_hat, stack.batch.images)
    torch.testing.assert_close(scored.reconstructions, expected_image, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(scored.maps, maps, rtol=1e-5, atol=1e-6)
    expected = aggregate_maps(maps, stack.batch.body, detector.aggregate)
    torch.testing.assert_close(scored.scores, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_the_order_of_the_cubes_moves_no_bit(
    build: Build, volume: Refs, slices: Slices, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = build("ddpm", grid={"slice_mm": 3.0}, tiles={"at_once": 1})
    (stack,) = slices(volume(count=20)).stacks()
    expected, in_order = detector.score_batch(stack.batch), Tiling.__iter__

    def shuffled(self: Tiling) -> Iterator[Any]:
        starts = list(in_order(self))
        assert len(starts) > 20
        return iter(random.Random(7).sample(starts, len(starts)))

    monkeypatch.setattr(Tiling, "__iter__", shuffled)
    actual = detector.score_batch(stack.batch)
    assert torch.equal(actual.reconstructions, expected.reconstructions)
    assert torch.equal(actual.maps, expected.maps)
    assert torch.equal(actual.scores.nan_to_num(-1), expected.scores.nan_to_num(-1))


@pytest.mark.parametrize("at_once", [2, 5, 64])
def test_how_many_cubes_are_computed_at_once_moves_nothing(
    build: Build, volume: Refs, slices: Slices, at_once: int
) -> None:
    data = slices(volume(count=20))
    one, many = (scores_of(build("ddpm", tiles={"at_once": n}), data) for n in (1, at_once))
    assert many == pytest.approx(one, rel=1e-5, nan_ok=True)


def test_a_series_score_knows_no_neighbours(build: Build, volume: Refs, slices: Slices) -> None:
    detector, a, b, c = build("ddpm"), volume("a"), volume("b", 24, seed=1), volume("c", 11, seed=2)
    alone = {**scores_of(detector, slices(a)), **scores_of(detector, slices(b)), **scores_of(detector, slices(c))}
    for order in ([a, b, c], [c, a, b]):
        assert scores_of(detector, slices([ref for refs in order for ref in refs])) == alone  # bit for bit


def test_slices_that_are_not_wanted_still_surround_those_that_are(build: Build, volume: Refs, slices: Slices) -> None:
    detector, refs = build("ae"), volume("a")
    whole, part = scores_of(detector, slices(refs)), scores_of(detector, slices(refs, selected=refs[4:9]))
    assert part == {ref.slice_id: whole[ref.slice_id] for ref in refs[4:9]}


def test_randomness_is_the_seeds_and_the_contents_alone(
    build: Build, volume: Refs, slices: Slices, renamed: Callable
) -> None:
    detector, refs = build("ddpm"), volume("a")
    before = torch.get_rng_state()
    first = list(scores_of(detector, slices(refs)).values())
    assert torch.equal(torch.get_rng_state(), before)
    assert list(scores_of(detector, slices(renamed(refs))).values()) == first
    assert list(scores_of(replace(detector, seed=1), slices(refs)).values()) != first


class Listener(Method):
    """Notes the keys of the randomness that it is given, by cube."""

    heard: set[int]

    def reconstruct(self, x: torch.Tensor, rng: Rng, body: torch.Tensor | None = None) -> torch.Tensor:
        self.heard.update(rng.keys)
        return x


def test_every_cube_has_randomness_of_its_own(build: Build, volume: Refs, slices: Slices) -> None:
    def keys(refs: list[SliceRef], seed: int = 0, at_once: int = 4) -> set[int]:
        listener = faked(build("ae", seed, tiles={"at_once": at_once}), Listener)
        listener.method.heard = set()
        list(listener.score_slices(slices(refs)))
        return listener.method.heard

    refs, others = volume("a"), volume("b", seed=1)
    assert len(keys(refs)) == 2 * 3 * 3  # as many as cubes: 20 slices and 32 x 32 pixels, each 8 apart, last flush
    assert keys(refs, at_once=1) == keys(refs) == keys([*others, *refs]) - keys(others)
    assert not keys(refs) & keys(refs, seed=1) and not keys(refs) & keys(others)


class Told(Method):
    """Records the condition that it receives for each cube."""

    conditional = True
    heard: list[dict[str, Any]]

    def reconstruct(
        self, x: torch.Tensor, rng: Rng, body: torch.Tensor | None = None, about: tuple[dict[str, Any], ...] = ()
    ) -> torch.Tensor:
        assert len(about) == len(x)
        self.heard += about
        return x


@pytest.mark.parametrize(("grid", "middles"), [({}, {8, 16, 24, 31}), ({"slices": 20}, {15, 23})])
def test_a_conditional_method_receives_the_cubes_middle_slice(
    build: Build, volume: Refs, slices: Slices, grid: dict, middles: set[int]
) -> None:
    # 39 slices: cubes begin at 0, 8, 16 and 23, their middle is 8 further on. On a grid of 20 they begin at 0 and 4;
    # one of its slices is 1.95 native ones thick, so that the middles are 15.6 and 23.4 native ones from the end.
    listener = faked(build("ae", grid=grid), Told)
    listener.method.heard = []
    list(listener.score_slices(slices(volume(count=39))))
    assert {round(item["relative_position"] * 38) for item in listener.method.heard} == middles
    assert {item["modality"] for item in listener.method.heard} == {"CT"}


@pytest.mark.parametrize("grid", [{"slice_mm": 11.0}, {"slice_mm": 2.0}, {"slices": 16}], ids=str)
def test_a_coarser_grid_counts_no_detail_as_unusual(build: Build, volume: Refs, slices: Slices, grid: dict) -> None:
    (stack,) = slices(volume(count=20)).stacks()
    scored = faked(build("ae", grid=grid), Same).score_batch(stack.batch)
    torch.testing.assert_close(scored.reconstructions, stack.batch.images, rtol=0, atol=1e-5)
    assert float(scored.maps.abs().max()) < 1e-5


@pytest.mark.parametrize("kind", [Darkest, Brightness])
@pytest.mark.parametrize("grid", [{}, {"slice_mm": 10.0}, {"slice_mm": 2.5}], ids=str)
def test_a_bright_spot_is_found_in_its_own_slice_and_place(build: Build, kind: type[Method], grid: dict) -> None:
    hu = np.full((24, 61, 40), -1000, np.float32)
    hu[:, 8:52, 6:34] = 0
    hu[15:19, 40:46, 12:18] = 200
    detector = faked(build("ae", grid=grid, aggregate={"map": "top_fraction"}), kind)
    result = score_scan(detector, Scan(hu[None], None, (5.0, 1.0, 1.0), "CT", "t", "s", "p"))
    assert result.heatmap.shape == hu.shape == result.body.shape
    z, y, x = np.unravel_index(result.heatmap.argmax(), hu.shape)
    assert 15 <= z < 19 and 40 <= y < 46 and 12 <= x < 18
    assert int(np.nanargmax([plane.score for plane in result.planes])) in range(15, 19)
    outside = np.ones(hu.shape, bool)
    outside[11:23, 36:50, 8:22] = False
    assert result.heatmap[outside & result.body].max() < 0.6 * result.heatmap.max() + 0.001


def test_files_catalogue_and_memory_give_one_score(build: Build, tmp_path: Path) -> None:
    from pipeline.config import DecodeLimits
    from pipeline.data.store.pixel_store import PixelStore
    from pipeline.dicom.decode.physical import to_physical
    from pipeline.dicom.decode.read import read_instance
    from pipeline.dicom.phantom.folder import write_phantoms

    (study,) = write_phantoms(tmp_path / "in", 1, "CT", 0.0, 3, size=48, slices=12).studies
    paths = [file.path for file in study.files]
    detector, store = build("ddpm", grid={"slice_mm": 6.0}), PixelStore(str(tmp_path / "s"))
    direct = score_files(detector, paths[::-1])
    read = [read_instance(path, DecodeLimits()) for path in paths]
    heights = [item.attributes.positions[0][2] for item in read]
    read = [read[i] for i in np.argsort(heights)]
    step = float(np.diff(sorted(heights)).mean())
    refs = [
        SliceRef(f"p{i}", 0, "s", "t", "p", store.put(r.stored), r.attributes.to_json(), i / 11, slice_mm=step)
        for i, r in enumerate(read)
    ]
    data = SliceDataset(refs, store, detector.normaliser, "none", members={"s": refs}, whole=True)
    results = list(detector.score_slices(data))
    assert [r.score for r in results] == pytest.approx([p.score for p in direct.planes], rel=1e-5, nan_ok=True)
    native = detector.native(results[5], data.step(results[5].id))
    np.testing.assert_allclose(native.values, direct.heatmap[5], rtol=1e-3, atol=1e-5)
    physical = [to_physical(r.stored, r.attributes) for r in read]
    valid = None if physical[0].valid is None else np.concatenate([p.valid for p in physical])
    scan = Scan(np.concatenate([p.pixels for p in physical])[None], valid, (step, 1.0, 1.0), "CT", "t", "s", "p")
    same = replace(build("ae", grid={"slice_mm": 6.0}), route="ct")  # no randomness: a scan has no stored pixels
    assert score_scan(same, scan).score == pytest.approx(score_files(same, paths).score, rel=1e-5)


def test_a_nifti_volume_is_one_file(build: Build, tmp_path: Path) -> None:
    import nibabel

    from pipeline.dicom.wrap.wrap import wrap

    hu = np.full((40, 36, 22), -1000, np.int16)
    hu[6:34, 5:31, 2:20] = 30
    hu[10:16, 20:26, 12:15] = 190  # right, in front, in the upper half
    nibabel.save(nibabel.Nifti1Image(hu, np.diag([1.5, 1.5, 4.0, 1.0])), tmp_path / "v.nii.gz")
    (tmp_path / "m.csv").write_text("file,patient_id\nv.nii.gz,p1\n")
    file = next(wrap(tmp_path / "m.csv", tmp_path / "out", modality="CT").dicom.rglob("*.dcm"))
    result = score_file(faked(build("ae", grid={"slice_mm": 6.0}), Darkest), file)
    assert result.heatmap.shape == (22, 36, 40)
    z, y, x = np.unravel_index(result.heatmap.argmax(), result.heatmap.shape)
    assert 12 <= z < 15 and 36 - 26 <= y < 36 - 20 and 40 - 16 <= x < 40 - 10


def test_series_that_are_not_volumes_are_refused_everywhere(build: Build, tmp_path: Path) -> None:
    from pipeline.dicom.phantom.folder import write_phantoms

    detector = build("ae")
    (study,) = write_phantoms(tmp_path, 1, "CT", 0.0, 3, size=48, slices=12).studies
    paths = [file.path for file in study.files]
    with pytest.raises(Rejected, match="too-few-slices"):
        score_files(detector, paths[:5])
    with pytest.raises(Rejected, match="too-few-slices"):
        score_file(detector, paths[0])
    with pytest.raises(Rejected, match="missing-slices"):
        score_files(detector, [*paths[:4], *paths[5:]])
    hu = np.zeros((1, 12, 40, 40), np.float32)
    scan = Scan(hu, None, (None, 1.0, 1.0), "CT", "t", "s", "p")
    with pytest.raises(Rejected, match="not-a-volume"):
        score_scan(detector, scan)
    with pytest.raises(Rejected, match="too-few-slices"):
        score_scan(detector, replace(scan, pixels=hu[:, :4]))


def test_wrong_batches_and_data_are_refused(build: Build, volume: Refs, slices: Slices) -> None:
    detector = build("ae")
    cubes = Batch(torch.zeros(2, 1, 16, 16, 16), torch.ones(2, 1, 16, 16, 16, dtype=torch.bool), ("a", "b"))
    with pytest.raises(ConfigError, match=r"\[2, 1, 16, 16, 16\]"):
        detector.score_batch(cubes)
    (stack,) = slices(volume()).stacks()
    broken = stack.batch.images.clone()
    broken[3, 0, 5, 5] = torch.nan
    with pytest.raises(Rejected, match="non-finite"):
        detector.score_batch(replace(stack.batch, images=broken))
    with pytest.raises(ConfigError, match="whole=True"):
        list(detector.score_slices(slices(volume("b"), whole=False)))
    with pytest.raises(ConfigError, match="needs a map"):
        faked(detector, OneNumber)
    with pytest.raises(ConfigError, match=r"\b32\b.*\b16\b"):
        replace(detector, model=replace(detector.model, method=detector.method.config.build(32, spatial_dims=3)))


def test_broken_weights_give_no_number(build: Build, volume: Refs, slices: Slices) -> None:
    detector = build("ae")
    next(detector.method.parameters()).data.fill_(torch.nan)
    with pytest.raises(Rejected, match="non-finite"):
        list(detector.score_slices(slices(volume())))


def test_a_volume_of_air_has_no_score(build: Build) -> None:
    air = Scan(np.full((1, 12, 40, 40), -1000, np.float32), None, (5.0, 1.0, 1.0), "CT", "t", "s", "p")
    with pytest.raises(Rejected, match="empty-foreground"):
        score_scan(build("ae"), air)


def test_the_artefact_holds_the_grid(build: Build, volume: Refs, slices: Slices, tmp_path: Path) -> None:
    detector, data = build("ae", grid={"slice_mm": 4.0}, tiles={"overlap": 0.25}), slices(volume())
    sha256 = save_detector(tmp_path / "d", detector)
    again = load_detector(tmp_path / "d", sha256=sha256)
    assert again.volumes == detector.volumes and again.config == detector.config
    assert scores_of(again, data) == scores_of(detector, data)


def test_a_two_sided_score_and_an_ensemble_read_volumes(
    build: Build, volume: Refs, slices: Slices, tmp_path: Path
) -> None:
    detector, data = build("ae"), slices([*volume("a"), *volume("b", seed=1)])
    raw = scores_of(detector, data)
    fit = TwoSided(median=0.5, mad=0.1, slices=40, patients=2)
    both = replace(build("ae", transform="two_sided"), two_sided=fit)
    assert scores_of(both, data) == pytest.approx({k: abs(v - 0.5) / 0.1 for k, v in raw.items()}, nan_ok=True)
    second = build("vae")
    pairs = [(detector, RunRef("a", "1")), (second, RunRef("b", "2"))]
    members: tuple[Member, ...] = z_score_members(
        pairs, ((stack.batch, list(stack.selected)) for stack in data.stacks())
    )
    ensemble = Ensemble(members, detector.config, "ct")
    other, moments = scores_of(second, data), [member.score for member in members]
    expected = {k: (z(moments[0], raw[k]) + z(moments[1], other[k])) / 2 for k in raw}
    assert scores_of(ensemble, data) == pytest.approx(expected, rel=1e-6, nan_ok=True)
    save_detector(tmp_path / "e", ensemble)
    assert scores_of(load_detector(tmp_path / "e"), data) == scores_of(ensemble, data)
    with pytest.raises(ConfigError, match="other images"):
        refuse_strangers([detector, second], "ct", images_of(detector.normaliser, None))


def z(moments: Moments, score: float) -> float:
    return (score - moments.mean) / moments.std


def test_whoever_keeps_a_slice_keeps_no_volume(build: Build, volume: Refs, slices: Slices) -> None:
    for item in build("ae").score_slices(slices(volume())):
        arrays = (item.values, item.body, item.reconstruction)
        assert all(array.base is None and array.shape == (32, 32) for array in arrays)

"""An ensemble: the mean of z-scores, laws of a detector, one artefact, and members that must be who they say."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.data.images.normalise import Normaliser, parse_normaliser
from pipeline.detection.conformal import Calibration, Unit
from pipeline.detection.connected import hysteresis
from pipeline.detection.detector import Detector
from pipeline.detection.ensemble import Ensemble, Member, Moments, z_score_members
from pipeline.detection.ensemble_config import EnsembleConfig
from pipeline.detection.facts import read_facts
from pipeline.detection.score_files import score_scan
from pipeline.detection.stored_detector import load_detector, save_detector
from pipeline.errors import ArtefactError, ConfigError, TooFewNormals
from pipeline.types import Batch, RunRef, Scan

Build = Callable[..., Detector]
ORIGIN = RunRef("run", "0" * 64)


@pytest.fixture
def normals() -> list[Batch]:
    """Twelve smooth images in two batches of unequal size."""
    generator = torch.Generator().manual_seed(3)
    images = torch.nn.functional.interpolate(torch.rand(12, 1, 4, 4, generator=generator), size=(32, 32)) - 0.5
    body = torch.ones(12, 1, 32, 32, dtype=torch.bool)
    body[:, :, :4] = False
    cut = [slice(0, 9), slice(9, 12)]
    return [Batch(images[c], body[c], tuple(f"n{i}" for i in range(12)[c])) for c in cut]


@pytest.fixture
def parts(build: Build) -> tuple[Detector, Detector]:
    """Two autoencoders with unlike weights, scores and scales."""
    second = build(residual={"kind": "ssim", "erode": 1})
    other = replace(second.model, method=second.method.config.build(32, seed=5))
    second = replace(second, model=other)
    return build(residual={"kind": "l1"}, aggregate={"map": "mean"}), second


def all_of(batches: list[Batch]) -> list[tuple[Batch, list[int]]]:
    return [(batch, list(range(len(batch.ids)))) for batch in batches]


@pytest.fixture
def ensemble(parts: tuple[Detector, Detector], normals: list[Batch]) -> Ensemble:
    members = z_score_members([(part, replace_path(n)) for n, part in enumerate(parts)], all_of(normals))
    return Ensemble(members, parts[0].config, "ct")


def replace_path(number: int) -> RunRef:
    return RunRef(f"run{number}", str(number) * 64)


def test_scores_and_maps_are_means_of_z_scores(
    ensemble: Ensemble, parts: tuple[Detector, Detector], normals: list[Batch], batch: Batch
) -> None:
    scored, expected, maps = ensemble.score_batch(batch), [], []
    for part in parts:
        on_normals = [part.score_batch(one) for one in normals]
        values = torch.cat([one.scores for one in on_normals]).numpy()
        expected.append((part.score_batch(batch).scores.numpy() - values.mean()) / values.std())
        erode = part.residual.erode
        inside = np.concatenate([one.maps[:, :, 4 + erode :].numpy().ravel() for one in on_normals]).astype(np.float64)
        maps.append((part.score_batch(batch).maps.numpy() - inside.mean()) / inside.std())
    np.testing.assert_allclose(scored.scores.numpy(), np.mean(expected, axis=0), rtol=1e-9)
    body = batch.body.numpy()
    np.testing.assert_allclose(scored.maps.numpy()[body], np.mean(maps, axis=0)[body], rtol=1e-3, atol=1e-4)
    assert not scored.maps.numpy()[~body].any()
    own = parts[0].score_batch(batch).reconstructions
    assert torch.equal(scored.reconstructions, own)  # one member's own, never a mean of x_hats


def test_each_member_answers_beside_the_mean(ensemble: Ensemble, batch: Batch) -> None:
    scored = ensemble.score_batch(batch)
    assert ensemble.member_names == ("ae", "ae 2")
    own = [member.score.z(member.detector.score_batch(batch).scores) for member in ensemble.members]
    torch.testing.assert_close(scored.members, torch.stack(own))
    torch.testing.assert_close(scored.members.mean(dim=0), scored.scores)


def test_weights_count_relative_to_each_other(ensemble: Ensemble, batch: Batch, tmp_path: Path) -> None:
    first, second = ensemble.members
    weighted = replace(ensemble, members=(replace(first, weight=3.0), replace(second, weight=1.0)))
    alone = [one.score.z(one.detector.score_batch(batch).scores) for one in (first, second)]
    scored = weighted.score_batch(batch)
    torch.testing.assert_close(scored.scores, 0.75 * alone[0] + 0.25 * alone[1])
    maps = [one.map.z(one.detector.score_batch(batch).maps) for one in (first, second)]
    expected = (0.75 * maps[0] + 0.25 * maps[1]).masked_fill(~batch.body, 0.0)
    torch.testing.assert_close(scored.maps, expected, rtol=1e-4, atol=1e-5)
    loaded = load_detector(tmp_path, sha256=save_detector(tmp_path, weighted))
    assert [one.weight for one in loaded.members] == [3.0, 1.0]


def test_its_own_hysteresis_works_on_the_mean_map_and_leaves_the_scores(ensemble: Ensemble, batch: Batch) -> None:
    residual = ensemble.config.residual.model_copy(update={"hysteresis": 2.0})
    other = replace(ensemble, config=ensemble.config.model_copy(update={"residual": residual}))
    plain, lowered = ensemble.score_batch(batch), other.score_batch(batch)
    assert torch.equal(lowered.maps, hysteresis(plain.maps, 2.0)) and (lowered.maps < plain.maps).any()
    assert torch.equal(lowered.scores, plain.scores)
    assert (ensemble.whole, other.whole) == (False, True)


def test_on_its_normals_each_member_counts_alike(ensemble: Ensemble, normals: list[Batch]) -> None:
    for member in ensemble.members:
        z = torch.cat([member.score.z(member.detector.score_batch(one).scores) for one in normals]).numpy()
        assert z.mean() == pytest.approx(0, abs=1e-9)
        assert z.std() == pytest.approx(1, abs=1e-9)


def test_scores_are_subset_and_order_invariant(ensemble: Ensemble, batch: Batch) -> None:
    whole = ensemble.score_batch(batch).scores
    for rows in ([3], [6, 0, 2], [5, 4, 3, 2, 1, 0]):
        some = Batch(batch.images[rows], batch.body[rows], tuple(batch.ids[i] for i in rows))
        torch.testing.assert_close(ensemble.score_batch(some).scores, whole[rows], rtol=1e-4, atol=1e-6)


def test_it_calibrates_saves_and_loads_like_a_detector(ensemble: Ensemble, batch: Batch, tmp_path: Path) -> None:
    calibrated = ensemble.calibrated(Calibration.fit(Unit(str(i), str(i), i / 10) for i in range(39)))
    loaded = load_detector(tmp_path, sha256=save_detector(tmp_path, calibrated))
    assert isinstance(loaded, Ensemble)
    assert loaded.spec == calibrated.spec
    assert torch.equal(loaded.score_batch(batch).scores, calibrated.score_batch(batch).scores)
    assert [member.origin for member in loaded.members] == [replace_path(0), replace_path(1)]
    scan = Scan(
        np.random.default_rng(0).normal(0, 200, (1, 2, 40, 40)).astype(np.float32), None, (1, 1, 1), "CT", *"abc"
    )
    result = score_scan(loaded, scan)
    assert result.p_value is not None and result.heatmap is not None and result.reconstruction is not None


def test_the_facts_name_every_member(ensemble: Ensemble, tmp_path: Path) -> None:
    save_detector(tmp_path, ensemble)
    assert read_facts(tmp_path).methods == tuple(method.config.name for method in ensemble.methods)


def test_a_single_detector_is_distinguished_from_an_ensemble(
    ensemble: Ensemble, parts: tuple[Detector, Detector], tmp_path: Path
) -> None:
    save_detector(tmp_path / "both", ensemble)
    save_detector(tmp_path / "one", parts[0])
    assert isinstance(load_detector(tmp_path / "one"), Detector)
    assert isinstance(load_detector(tmp_path / "both"), Ensemble)


def test_a_changed_byte_or_a_missing_member_is_refused(ensemble: Ensemble, tmp_path: Path) -> None:
    sha256 = save_detector(tmp_path, ensemble)
    with pytest.raises(ArtefactError, match="was requested"):
        load_detector(tmp_path, sha256="f" * 64)
    spec = json.loads((tmp_path / "detector.json").read_text())
    (tmp_path / "detector.json").write_text(json.dumps({**spec, "members": spec["members"][:1]}))
    with pytest.raises(ArtefactError, match="was requested"):
        load_detector(tmp_path, sha256=sha256)
    with pytest.raises(ArtefactError, match="ValueError"):
        load_detector(tmp_path)
    assert save_detector(tmp_path, ensemble) == sha256
    next(tmp_path.rglob("weights.safetensors")).unlink()
    with pytest.raises(ArtefactError, match="lacks weights"):
        load_detector(tmp_path)


def test_members_that_do_not_belong_together_are_refused(
    ensemble: Ensemble, build: Build, normals: list[Batch]
) -> None:
    one = ensemble.members[0]
    with pytest.raises(ConfigError, match=r"\btwo\b.*\b1\b"):
        replace(ensemble, members=(one,))
    with pytest.raises(ConfigError, match=r"\bmr\b.*\bct\b"):
        replace(ensemble, members=(one, replace(one, detector=replace(one.detector, route="mr"))))
    normaliser = Normaliser(parse_normaliser({"kind": "ct_window", "image_size": 32, "width": 90}))
    other = replace(one.detector, model=replace(one.detector.model, normaliser=normaliser))
    with pytest.raises(ConfigError, match=r"data\.normaliser"):
        replace(ensemble, members=(one, replace(one, detector=other)))
    with pytest.raises(TooFewNormals, match="at least 10"):
        z_score_members([(build(), ORIGIN), (build(), ORIGIN)], all_of(normals[:1]))


def test_rows_that_are_not_such_normals_do_not_count(parts: tuple[Detector, Detector], normals: list[Batch]) -> None:
    (first, rows), second = all_of(normals)[0], normals[1]
    left = list(range(1, len(second.ids)))  # one of the twelve is not such a normal
    rest = Batch(second.images[1:], second.body[1:], second.ids[1:])
    some = z_score_members([(part, ORIGIN) for part in parts], [(first, rows), (second, left)])
    alone = z_score_members([(part, ORIGIN) for part in parts], all_of([first, rest]))
    every = z_score_members([(part, ORIGIN) for part in parts], all_of(normals))
    for one, other, more in zip(some, alone, every, strict=True):
        assert one.score.mean == pytest.approx(other.score.mean) != pytest.approx(more.score.mean)
        assert one.map.std == pytest.approx(other.map.std) != pytest.approx(more.map.std)


def test_a_member_that_says_nothing_is_refused(build: Build, normals: list[Batch]) -> None:
    blank = [replace(one, images=torch.zeros_like(one.images)) for one in normals]
    with pytest.raises(ConfigError, match="z-scored"):
        z_score_members([(build(), ORIGIN), (build(), ORIGIN)], all_of(blank))


def test_two_of_the_same_give_the_one_and_a_two_sided_score_works(
    parts: tuple[Detector, Detector], normals: list[Batch], batch: Batch
) -> None:
    twice = Ensemble(z_score_members([(parts[0], ORIGIN)] * 2, all_of(normals)), parts[0].config, "ct")
    alone = parts[0].score_batch(batch).scores
    torch.testing.assert_close(twice.score_batch(batch).scores, twice.members[0].score.z(alone))
    assert isinstance(twice.members[0], Member) and isinstance(twice.members[0].map, Moments)


def test_an_ensembles_configuration_is_not_built() -> None:
    config = EnsembleConfig.model_validate({"members": [{"run": "a"}, {"run": "b"}]})
    with pytest.raises(ConfigError, match="members"):
        config.build(32)

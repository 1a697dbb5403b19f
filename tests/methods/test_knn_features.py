"""`knn_features`: equations 1 to 7 against scikit-learn and by hand, and a memory that cannot be empty unnoticed."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets import resnet18
from pydantic import ValidationError
from safetensors.torch import save_file
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.testing import assert_close

from pipeline.errors import ArtefactError, ConfigError, EmptySelection, Rejected
from pipeline.methods.artefact import build_from_spec, load_weights, method_spec, save_weights
from pipeline.methods.knn_features import KnnFeatures, KnnFeaturesConfig, novelty
from pipeline.nn.backbone import BackboneConfig
from pipeline.nn.rng import Rng
from pipeline.types import Batch

RANDOM = BackboneConfig(kind="random", depths=(1, 2))


def batch_of(x: Tensor) -> Batch:
    return Batch(x, torch.ones_like(x[:, :1], dtype=torch.bool), tuple(str(i) for i in range(len(x))))


def images(count: int, key: int = 1, size: int = 16) -> Tensor:
    return Rng([key + i for i in range(count)]).uniform(1, size, size, low=-1, high=1)


def fitted(x: Tensor, seed: int = 0, **values: object) -> KnnFeatures:
    config = KnnFeaturesConfig(**{"backbone": RANDOM, "entries": 512, "projection": 512, **values})
    method = config.build(x.shape[-1], seed=seed)
    method.finish(batch_of(part) for part in x.split(3))
    return method


def test_the_map_is_that_of_scikit_learn_on_unfolded_neighbourhoods() -> None:
    x, y = images(5), images(2, key=50)
    method = fitted(x)

    def by_hand(images: Tensor) -> Tensor:
        fine, coarse = method.backbone(images)
        ones = F.unfold(torch.ones(1, 1, *fine.shape[2:]), 3, padding=1).sum(dim=1)
        rows = F.unfold(fine, 3, padding=1).reshape(len(images), fine.shape[1], 9, -1).sum(dim=2) / ones[:, None]
        low = F.avg_pool2d(F.pad(coarse, (1, 1, 1, 1)), 3, 1, divisor_override=1)
        low = low / F.avg_pool2d(F.pad(torch.ones_like(coarse), (1, 1, 1, 1)), 3, 1, divisor_override=1)
        low = F.interpolate(low, fine.shape[2:], mode="bilinear")
        return torch.cat([rows.reshape(fine.shape), low], dim=1).movedim(1, -1).flatten(0, -2)

    knn = NearestNeighbors(n_neighbors=1).fit(by_hand(x))
    expected = torch.from_numpy(knn.kneighbors(by_hand(y))[0]).float().reshape(2, 1, 8, 8)
    expected = F.interpolate(expected, (16, 16), mode="bilinear", align_corners=False)
    assert int(method.fitted) == 320
    assert_close(method.anomaly_map(y, Rng([1, 2])), expected, rtol=1e-4, atol=1e-5)


def test_training_images_are_not_unusual_and_a_lesion_is_located() -> None:
    x = images(4, size=32)
    method = fitted(x, entries=2000)
    assert method.anomaly_map(x, Rng([1, 2, 3, 4])).abs().max() < 1e-5  # one image at a time is rounded otherwise
    y = x.clone()
    y[:, :, 8:16, 8:16] = 1.0
    maps = method.anomaly_map(y, Rng([1, 2, 3, 4]))
    assert maps[..., 9:15, 9:15].mean() > 20 * maps[..., 24:, 24:].mean()


def test_a_smaller_memory_covers_what_it_leaves_out() -> None:
    x = images(4)
    radii = [fitted(x, entries=n).anomaly_map(x, Rng([1, 2, 3, 4])).max().item() for n in (4, 32, 256)]
    assert radii[0] > radii[1] > radii[2] and radii[2] < 1e-5


def test_the_memory_is_a_function_of_seed_and_images() -> None:
    x = images(6)
    same, again, other = (fitted(x, seed, entries=16, projection=2, candidates=100) for seed in (1, 1, 2))
    assert torch.equal(same.bank, again.bank) and not torch.equal(same.bank, other.bank)
    whole = KnnFeaturesConfig(backbone=RANDOM, entries=16, projection=2, candidates=100).build(16, seed=1)
    whole.finish([batch_of(x)])
    assert_close(whole.bank, same.bank)


def test_the_weight_of_equation_7_by_hand() -> None:
    # Entries 0, 1, 3 on a line, x = 4: m* = 3, its two nearest are 3 and 1, so 1 - e^1 / (e^1 + e^3).
    bank = torch.tensor([[0.0], [1.0], [3.0]])
    weight = novelty(torch.tensor([[4.0]]), torch.tensor([1.0]), torch.tensor([2]), bank, b=2)
    assert_close(weight.item(), 1 - math.e / (math.e + math.e**3))


def test_weights_and_several_neighbours_change_the_map_as_they_should() -> None:
    x, y, rng = images(4), images(2, key=9), Rng([1, 2])
    plain, weighted = (fitted(x, reweight=b).anomaly_map(y, rng) for b in (0, 3))
    assert (weighted < plain).all() and (weighted > 0).all()
    assert (fitted(x, neighbours=4).anomaly_map(y, rng) >= plain).all()


def test_only_patches_that_touch_the_body_are_remembered() -> None:
    x = images(2)
    body = torch.zeros(2, 1, 16, 16, dtype=torch.bool)
    body[0, 0, 3, 3] = True
    method = KnnFeaturesConfig(backbone=RANDOM).build(16)
    method.finish([Batch(x, body, ("a", "b"))])
    assert int(method.fitted) == 1
    assert_close(method.bank[0], method.features(x)[0, :, 1, 1])


def test_one_image_and_equal_images_are_enough() -> None:
    x = images(1)
    assert int(fitted(x).fitted) == int(fitted(x.repeat(4, 1, 1, 1)).fitted) == 64
    constant = torch.zeros(2, 1, 16, 16)
    maps = fitted(constant).anomaly_map(images(1, key=3), Rng([1]))
    assert torch.isfinite(maps).all() and maps.max() > 0


def test_an_empty_memory_is_an_error_and_not_a_number() -> None:
    method, x = KnnFeaturesConfig(backbone=RANDOM).build(16), images(1)
    with pytest.raises(ArtefactError, match="nothing to compare with"):
        method.anomaly_map(x, Rng([1]))
    with pytest.raises(EmptySelection, match="body"):
        method.finish([Batch(x, torch.zeros(1, 1, 16, 16, dtype=torch.bool), ("a",))])
    with pytest.raises(EmptySelection):
        method.finish([])
    with pytest.raises(Rejected):
        method.finish([batch_of(torch.full((1, 1, 16, 16), torch.nan))])
    with pytest.raises(ConfigError):
        method.finish([batch_of(torch.zeros(1, 1, 8, 8))])


@pytest.mark.parametrize("values", [{"patch": 2}, {"reweight": 1}, {"entries": 0}])
def test_impossible_numbers_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        KnnFeaturesConfig(**values)


def test_the_memory_and_the_frozen_network_travel_with_the_weights(tmp_path: Path) -> None:
    digest = resnet_file(tmp_path / "resnet.safetensors")
    outside = BackboneConfig(kind="resnet18", depths=(1,), weights=str(tmp_path / "resnet.safetensors"), sha256=digest)
    method, y = fitted(images(2), backbone=outside), images(2, key=8)
    save_weights(method, tmp_path / "weights.safetensors")
    (tmp_path / "resnet.safetensors").unlink()
    again = load_weights(build_from_spec(method_spec(method)), tmp_path / "weights.safetensors")
    assert torch.equal(again.anomaly_map(y, Rng([1, 2])), method.anomaly_map(y, Rng([1, 2])))


def resnet_file(path: Path) -> str:
    save_file(resnet18(spatial_dims=2, n_input_channels=3, conv1_t_stride=2, feed_forward=False).state_dict(), path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_volumes_have_a_memory_too() -> None:
    x = Rng([1, 2]).uniform(1, 8, 8, 8)
    method = KnnFeaturesConfig(backbone=RANDOM).build(8, spatial_dims=3)
    method.finish([batch_of(x)])
    assert method.anomaly_map(x, Rng([1, 2])).shape == (2, 1, 8, 8, 8)

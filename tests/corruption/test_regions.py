"""Regions of the body where lesions may lie: found on phantoms, inside the body always, the body where not found."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.corruption import Effusion, Hypoechoic, LesionConfig, Nodule, Opacity, Tinted, find_region, paint
from pipeline.corruption.regions import RegionName, devices
from pipeline.data.images.normalise import FixedRange, MRMedian, Normaliser, Plane, RobustRange, UltrasoundConfig
from pipeline.dicom.phantom import make_patient
from pipeline.errors import ConfigError
from pipeline.nn.rng import Rng

KINDS = {
    "lungs": ("CR", RobustRange(image_size=128)),
    "brain": ("MR", MRMedian(image_size=128)),
    "breast": ("US", FixedRange(image_size=128, ultrasound=UltrasoundConfig(), body={"method": "frame"})),
}


def _phantoms(region: str, count: int = 6) -> tuple[Tensor, Tensor]:
    modality, config = KINDS[region]
    items = [
        Normaliser(config).apply(plane, Normaliser(config).estimate([plane]))
        for plane in (Plane(make_patient(seed, modality, None, 192).physical[0]) for seed in range(count))
    ]
    images, bodies = (np.stack([getattr(item, name) for item in items]) for name in ("image", "body"))
    return torch.from_numpy(images), torch.from_numpy(bodies)


@pytest.mark.parametrize("region", list(KINDS))
def test_regions_are_found_within_the_body(region: RegionName) -> None:
    images, bodies = _phantoms(region)
    masks, located = find_region(images, bodies, region)
    assert located.float().mean() >= 5 / 6
    assert not (masks & ~bodies).any()
    share = masks.sum(dim=(1, 2, 3)) / bodies.sum(dim=(1, 2, 3))
    assert (share[located] > 0.08).all() and (share[located] < 0.95).all()
    again, _ = find_region(images[2:3], bodies[2:3], region)
    assert torch.equal(again[0], masks[2])


def test_lungs_are_dark_and_on_both_sides() -> None:
    images, bodies = _phantoms("lungs")
    masks, located = find_region(images, bodies, "lungs")
    for image, body, mask in zip(images[located], bodies[located], masks[located], strict=True):
        assert image[mask].mean() < image[body & ~mask].mean() - 0.3
        assert mask[..., :64].float().mean() > 0.05 and mask[..., 64:].float().mean() > 0.05


def test_the_brain_lies_within_scalp_and_skull() -> None:
    """The rim of the head, a twentieth of its width, is outside; its middle is inside."""
    images, bodies = _phantoms("brain")
    masks, located = find_region(images, bodies, "brain")
    middle = masks[located, 0, 56:72, 60:68].float().mean()
    rows = [torch.nonzero(body[0].any(dim=1)).flatten()[[0, -1]] for body in bodies[located]]
    rims = [mask[0, top : top + 3].float().mean() for mask, (top, _) in zip(masks[located], rows, strict=True)]
    assert middle > 0.9 and max(rims) == 0


@pytest.mark.parametrize("region", list(KINDS))
def test_where_no_region_is_found_the_body_is_painted(region: RegionName) -> None:
    flat = torch.zeros(3, 1, 64, 64)
    body = torch.zeros(3, 1, 64, 64, dtype=torch.bool)
    body[:2, :, 20:44, 20:44] = True  # the third has no body
    masks, located = find_region(flat, body, region)
    assert torch.equal(masks[~located], body[~located]) and not located[2]
    config = LesionConfig(region=region, healthy=0, textures=(Tinted(contrast=(0.5, 0.5)),))
    painted = paint(flat, body, config, Rng(range(3)))
    assert painted.mask[:2].flatten(1).any(dim=1).all() and not painted.mask[2].any()
    chest = paint(flat, body, LesionConfig(region=region, textures=(Opacity(), Effusion())), Rng(range(3)))
    assert not ((painted.mask | chest.mask) & ~body).any() and chest.images.isfinite().all()


def test_lesions_stay_within_the_region_and_rows_are_independent() -> None:
    images, bodies = _phantoms("lungs")
    config = LesionConfig(region="lungs", healthy=0, textures=(Opacity(), Nodule(), Effusion(), Tinted()))
    painted = paint(images, bodies, config, Rng(range(6)))
    masks, _ = find_region(images, bodies, "lungs")
    assert painted.mask.flatten(1).any(dim=1).all()
    assert not (painted.mask & ~masks).any() and painted.coverage[~masks].max() == 0
    assert torch.equal(painted.images[painted.coverage == 0], images[painted.coverage == 0])
    alone = paint(images[4:5], bodies[4:5], config, Rng([4]))
    assert torch.equal(alone.images[0], painted.images[4]) and torch.equal(alone.mask[0], painted.mask[4])


def test_devices_are_thin_and_bright_and_never_painted_over() -> None:
    image = torch.zeros(1, 1, 64, 64)
    image[..., 30:32, :] = 0.8  # a wire
    image[..., 45:60, 10:30] = 0.8  # a bright organ
    thin = devices(image, 0.35)
    assert thin[..., 29:33, :].all() and not thin[..., 47:58, 12:28].any() and not thin[..., :28, :].any()
    tint = Tinted(contrast=(0.5, 0.5), brighter=0, wipe=(0, 0))
    images = image.repeat(50, 1, 1, 1)
    painted = paint(images, images > -1, LesionConfig(healthy=0, devices=0.35, textures=(tint,)), Rng(range(50)))
    assert torch.equal(painted.images[..., 30:32, :], images[..., 30:32, :])
    assert (painted.images[..., 20:29, :] != 0).any()


def test_regions_and_pictorial_textures_refuse_volumes() -> None:
    cube, body = torch.zeros(1, 1, 16, 16, 16), torch.ones(1, 1, 16, 16, 16, dtype=torch.bool)
    with pytest.raises(ConfigError):
        find_region(cube, body, "lungs")
    for texture in (Effusion(), Hypoechoic()):
        with pytest.raises(ConfigError):
            paint(cube, body, LesionConfig(healthy=0, textures=(texture,)), Rng([0]))

"""Painting and the mirror image as options of the textbook reconstructors: off by default, used where they are on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.corruption import LesionConfig, PaintingFields, PoseConfig, RepairingFields, ShapeConfig, Tinted
from pipeline.methods import METHODS, build_method
from pipeline.methods.base import Method, MethodConfig
from pipeline.methods.capabilities import AnomalyMapper, Reconstructor
from pipeline.nn.rng import Rng
from pipeline.types import Batch

LESIONS = LesionConfig(healthy=0, shape=ShapeConfig(radius=(0.1, 0.2)), textures=(Tinted(contrast=(0.3, 0.8)),))
OPTIONAL = [name for name, config in METHODS.items() if issubclass(config, RepairingFields)]
Make = Callable[..., Method]


@pytest.fixture
def make(small: dict[str, dict[str, Any]]) -> Make:
    """Build a small method with a few fields changed."""

    def build(name: str, **values: object) -> Method:
        prediction = {"prediction": "x0"} if name == "ddpm" else {}
        return build_method(METHODS[name](**small.get(name, {}) | prediction | values), 32)

    return build


def test_all_textbook_reconstructors_have_the_option() -> None:
    families = {"ae", "ae_u", "vae", "conditional_vae", "vampprior", "vq_vae", "vq_vae2", "vqgan", "ddpm"}
    families |= {"alpha_gan", "f_anogan", "dcgan", "wgan", "wgan_gp", "infogan", "stylegan2", "multiscale_vq"}
    assert families == set(OPTIONAL)


@pytest.mark.parametrize("name", OPTIONAL)
def test_without_it_a_method_learns_to_copy_the_images_themselves(name: str, batch: Batch) -> None:
    config: Any = METHODS[name]()
    seen, clean = config.pair(batch, Rng(range(16)))
    assert seen is batch.images and clean is batch.images
    assert config.seen(batch.images) is batch.images and config.inputs(3) == 3


def test_with_it_a_method_sees_the_painted_image_and_must_give_the_clean_one(batch: Batch) -> None:
    painting = PaintingFields(lesions=LESIONS, pose=PoseConfig(mirror=True))
    fields = RepairingFields(painting=painting)
    seen, clean = fields.pair(batch, Rng(range(16)))
    lesson = painting.lesson(batch, Rng(range(16)).fork("painting"))
    assert torch.equal(seen, lesson.painted.images) and torch.equal(clean, lesson.clean)
    assert not torch.equal(seen, clean)


@pytest.mark.parametrize("name", OPTIONAL)
def test_every_loss_reads_both_images_of_the_pair(
    name: str, batch: Batch, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = make(name, painting={"lesions": LESIONS.model_dump()})
    with torch.no_grad():
        for parameter in method.parameters():  # some layers start at zero, and would hide what enters them
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    other = 0.5 - 0.5 * batch.images

    def losses(seen: Tensor, clean: Tensor) -> Tensor:
        monkeypatch.setattr(RepairingFields, "pair", lambda self, batch, rng: (seen, clean))
        totals = [method.loss(batch, phase.name, Rng(range(16)))["total"] for phase in method.phases]
        return torch.stack([total.detach() for total in totals])

    method.eval()
    plain = losses(batch.images, batch.images)
    assert torch.equal(plain, losses(batch.images, batch.images))
    assert not torch.equal(plain, losses(batch.images, other))
    assert not torch.equal(plain, losses(other, batch.images))


@pytest.mark.parametrize("name", OPTIONAL)
def test_with_the_mirror_image_the_answer_depends_on_the_other_side(name: str, batch: Batch, make: Make) -> None:
    """The networks see far, so their first layer is asked: it reads the pixel at the same height on the other side."""
    method = make(name, mirrored=True)
    config: Any = method.config
    seen = config.seen(batch.images)
    assert seen.shape[1] == 2 * batch.images.shape[1] == config.inputs(batch.images.shape[1])
    assert torch.equal(seen[:, 1:].flip(-1), batch.images)
    for phase in method.phases:
        assert torch.isfinite(method.loss(batch, phase.name, Rng(range(16)))["total"])
    if isinstance(method, Reconstructor):
        assert method.reconstruct(batch.images, Rng(range(16))).shape == batch.images.shape
    else:
        assert isinstance(method, AnomalyMapper)
        assert method.anomaly_map(batch.images, Rng(range(16))).shape == batch.images.shape


def test_a_painted_diffusion_model_must_predict_the_image() -> None:
    with pytest.raises(ValueError, match="prediction"):
        METHODS["ddpm"](painting={"lesions": LESIONS.model_dump()})
    config: MethodConfig = METHODS["ddpm"](painting={"lesions": LESIONS.model_dump()}, prediction="x0")
    assert isinstance(build_method(config, 32), Reconstructor)

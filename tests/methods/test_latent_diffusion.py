"""`latent_diffusion`: exact on Gaussian codes; its codec is trained with it, or is another model that it names."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.data.images.normalise import Normaliser, parse_normaliser
from pipeline.detection.config import DetectionConfig
from pipeline.detection.detector import Detector
from pipeline.detection.detector_file import bundle_detector, check_detector
from pipeline.detection.facts import read_facts
from pipeline.detection.stored_detector import load_detector, save_detector
from pipeline.errors import ArtefactError, ConfigError
from pipeline.methods import METHODS, build_method, parse_method
from pipeline.methods.base import Method, MethodConfig
from pipeline.methods.capabilities import Codec, Reconstructor
from pipeline.methods.component import ComponentConfig
from pipeline.methods.latent_diffusion import LatentDiffusion, LatentDiffusionConfig, code_shape
from pipeline.methods.stored_model import Model, load_model, save_model
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig
from pipeline.training.fitting import fit
from pipeline.types import Batch

VQ = {"name": "vq_vae", "widths": (8, 16), "entries": 16, "code_width": 4}
SMALL = {
    "codec": {"method": VQ},
    "denoiser": {"patch": 1, "widths": (8, 16), "attention": (False, False)},
    "start_times": (100, 200),
    "steps": 2,
}
MEAN, STD = 0.9, 1.5  # of the codes


class Shuffle(Method):
    """A lossless codec: 2x2 pixels are 4 channels, times 3."""

    def __init__(self) -> None:
        super().__init__(MethodConfig(name="shuffle"), 16, 1, 2)

    def to_code(self, x: Tensor) -> Tensor:
        return 3 * F.pixel_unshuffle(x, 2)

    def from_code(self, z: Tensor) -> Tensor:
        return F.pixel_shuffle(z / 3, 2)


class Exact(nn.Module):
    """E[eps | z_t] for independent Gaussian codes of standard deviation 1."""

    def __init__(self, alpha_bar: Tensor) -> None:
        super().__init__()
        self.alpha_bar = alpha_bar

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        a = self.alpha_bar[t].reshape(-1, 1, 1, 1)
        return (1 - a).sqrt() * (z_t - a.sqrt() * MEAN / STD)


def batch(count: int = 8, size: int = 32) -> Batch:
    x = F.interpolate(Rng(range(count)).uniform(1, 4, 4) * 2 - 1, size=size, mode="bilinear")
    return Batch(x, torch.ones(count, 1, size, size, dtype=torch.bool), tuple(map(str, range(count))))


def trained_model(tmp_path: Path, config: dict, size: int = 32) -> tuple[Path, str]:
    """Save a model with invented weights; return the run's folder and the SHA-256."""
    normaliser = Normaliser(parse_normaliser({"kind": "ct_window", "image_size": size}))
    method = build_method(parse_method(config), size, seed=3)
    return tmp_path / "run", save_model(tmp_path / "run" / "model", Model(method, normaliser)).origin.sha256


def test_codes_are_divided_by_their_standard_deviation_and_samples_are_those_of_the_data() -> None:
    method = LatentDiffusion(
        LatentDiffusionConfig(codec=ComponentConfig(method={"name": "x"})), Shuffle(), nn.Identity()
    )
    method.network = Exact(method.process.alpha_bar)
    images = F.pixel_shuffle(MEAN + STD * Rng(range(64)).normal(4, 8, 8), 2) / 3
    method.train().loss(Batch(images, images > 9, tuple(map(str, range(64)))), "denoise", Rng(range(64)))
    assert_close(method.sigma, torch.tensor(STD), rtol=0.02, atol=0)
    before = method.sigma.clone()
    method.loss(Batch(5 * images, images > 9, tuple(map(str, range(64)))), "denoise", Rng(range(64)))
    assert torch.equal(method.sigma, before)  # the first batch settles it
    samples = method.sample(Rng(range(40)), steps=100)
    assert_close(samples.mean(), torch.tensor(MEAN / 3), rtol=0.05, atol=0)
    assert_close(samples.std(), torch.tensor(STD / 3), rtol=0.05, atol=0)


def test_reconstruction_pulls_codes_to_the_data_by_the_known_factor() -> None:
    # As for images (see test_ddpm.py) with standard deviation 1: z_hat - m = (z - m) sqrt(a), here for z - m = 4 sigma.
    settings = {"codec": ComponentConfig(method={"name": "x"}), "start_times": (300,), "steps": 100}
    method = LatentDiffusion(LatentDiffusionConfig(**settings), Shuffle(), nn.Identity())
    method.network = Exact(method.process.alpha_bar)
    method.sigma.fill_(STD)
    x = torch.full((60, 1, 16, 16), (MEAN + 4 * STD) / 3)
    x_hat = method.reconstruct(x, Rng(range(60)))
    assert_close((3 * x_hat.mean() - MEAN) / (4 * STD), method.process.alpha_bar[300].sqrt(), rtol=0.03, atol=0)


GAN = {**VQ, "name": "vqgan", "perceptual_weight": 0.0, "discriminator_widths": 4, "discriminator_layers": 1}
FLAT = {"widths": (8, 16), "latent": 5}
CODECS = {
    **{name: (FLAT, (5, 1, 1)) for name in ("ae", "ae_u", "alpha_gan", "f_anogan", "vae", "vampprior")},
    "vq_vae": (VQ, (4, 8, 8)),
    "vq_vae2": ({**VQ, "answer": "reconstruction"}, (8, 8, 8)),
    "vqgan": (GAN, (4, 8, 8)),
}


def answer(codec: Any, x: Tensor) -> Tensor:
    """Return the method's own output for x: ae_u, which maps errors, has it as the first half of its output."""
    return codec.reconstruct(x, Rng(range(len(x)))) if isinstance(codec, Reconstructor) else codec(x)[0]


@pytest.mark.parametrize("name", CODECS)
def test_codecs_of_the_registry_read_back_what_they_wrote(name: str) -> None:
    values, shape = CODECS[name]
    codec = build_method(parse_method(values | {"name": name}), 32).eval()
    assert isinstance(codec, Codec)
    x = batch().images
    with codec.inference():
        assert_close(codec.from_code(codec.to_code(x)), answer(codec, x), rtol=1e-4, atol=1e-5)
    assert code_shape(codec) == shape


@pytest.mark.parametrize("name", ["ae_u", "alpha_gan", "f_anogan", "vampprior", "vq_vae2"])
def test_every_codec_is_trained_first_and_its_codes_are_diffused(name: str, tmp_path: Path) -> None:
    """Two epochs of eight images: the codec's weights move in its share of the training, and no longer after it."""
    flat = {"patch": 1, "widths": (8,), "attention": (False,)}
    codec = {**CODECS[name][0], "name": name}
    config = LatentDiffusionConfig(
        **{**SMALL, "codec": {"method": codec}, "denoiser": SMALL["denoiser"] if name == "vq_vae2" else flat},
        codec_share=0.5,
    )
    method, images = build_method(config, 32), batch()
    before = {k: v.clone() for k, v in method.codec.state_dict().items()}
    data = [{"image": images.images[i], "body": images.body[i], "id": str(i)} for i in range(8)]
    trained = fit(method, data, data, TrainingConfig(images=32, batch_size=4), tmp_path).method
    assert any(not torch.equal(v, before[k]) for k, v in trained.codec.state_dict().items())
    assert trained.measured and trained.process.shape == CODECS[name][1]
    x_hat = trained.reconstruct(images.images, Rng(range(8)))
    assert x_hat.isfinite().all() and x_hat.shape == images.images.shape


def test_a_codec_of_several_phases_keeps_them_within_its_share(tmp_path: Path) -> None:
    config = LatentDiffusionConfig(**SMALL | {"codec": {"method": {**GAN, "start": 0.5}}}, codec_share=0.5)
    times = {phase.name: (phase.after, phase.until) for phase in build_method(config, 32).phases}
    assert times == {
        "codec_codec": (0, 0.25), "codec_generator": (0.25, 0.5), "codec_discriminator": (0.25, 0.5),
        "denoise": (0.5, 1),
    }  # fmt: skip
    data = [{"image": batch().images[i], "body": batch().body[i], "id": str(i)} for i in range(8)]
    result = fit(build_method(config, 32), data, data, TrainingConfig(images=48, batch_size=4), tmp_path)
    assert result.method.measured and result.method.reconstruct(batch().images, Rng(range(8))).isfinite().all()


def test_a_flat_code_is_diffused_too() -> None:
    denoiser = {"patch": 1, "widths": (16,), "attention": (False,)}
    config = LatentDiffusionConfig(
        **{**SMALL, "codec": {"method": {"name": "vae", "widths": (8, 16)}}, "denoiser": denoiser}
    )
    method = build_method(config, 32)
    assert method.reconstruct(batch().images, Rng(range(8))).shape == (8, 1, 32, 32)
    for size in (32, 64):  # no size would help, and none is named
        with pytest.raises(ConfigError, match=r"\bvae\b.*denoiser.*kind: dit, patch: 1") as error:
            build_method(
                LatentDiffusionConfig(**{**SMALL, "codec": {"method": {"name": "vae", "widths": (8, 16)}}}), size
            )
        assert "pixels" not in str(error.value)


def test_the_codec_comes_first_and_rests_while_the_denoiser_learns(tmp_path: Path) -> None:
    method = build_method(LatentDiffusionConfig(**SMALL, codec_share=0.5), 32)
    assert [(p.name, p.after, p.until) for p in method.phases] == [("codec_train", 0, 0.5), ("denoise", 0.5, 1)]
    data = [{"image": batch().images[i], "body": batch().body[i], "id": str(i)} for i in range(8)]
    whole = fit(method, data, data, TrainingConfig(images=32, batch_size=4, validate_every_images=16), tmp_path / "a")
    assert whole.method.measured and 0 < whole.method.sigma < 10
    half = fit(
        build_method(LatentDiffusionConfig(**SMALL, codec_share=0.999), 32), data, data,
        TrainingConfig(images=16, batch_size=4, validate_every_images=16), tmp_path / "b",
    )  # fmt: skip
    for name, value in whole.method.codec.named_parameters():
        assert_close(value, half.method.codec.get_parameter(name))  # not moved by the second half
    assert any((p != 0).any() for n, p in whole.method.network.named_parameters() if "network.out.2" in n)


def latent(codec: Model, **values: Any) -> Model:
    """A latent model around a trained codec, not saved."""
    origin: Any = codec.origin
    config = LatentDiffusionConfig(**{**SMALL, "codec": {"run": "codec-run", "sha256": origin.sha256}, **values})
    method = build_method(config, codec.method.image_size, seed=7, trained={"codec": codec.method})
    return Model(method, codec.normaliser, components={"codec": codec})


@pytest.fixture
def codec(tmp_path: Path) -> Model:
    """A trained codec, read from its run's folder."""
    return load_model(*trained_model(tmp_path, VQ))


def test_a_trained_codec_is_frozen_and_its_weights_exist_once(codec: Model, tmp_path: Path) -> None:
    model = latent(codec)
    method, origin = model.method, codec.origin
    assert [phase.name for phase in method.phases] == ["denoise"]
    assert not any(p.requires_grad for p in method.codec.parameters())
    expected = method.reconstruct(batch().images, Rng(range(8)))
    saved = save_model(tmp_path / "latent" / "model", model)
    tensors = load_file(saved.origin.folder / "weights.safetensors")
    assert {name.split(".")[0] for name in tensors} == {"network", "sigma", "measured"}
    assert sum(t.numel() for t in tensors.values()) == 2 + sum(p.numel() for p in method.network.parameters())
    named = json.loads((saved.origin.folder / "model.json").read_text())["models"]
    assert named == {"codec": {"sha256": origin.sha256, "folder": "../../run/model"}}
    again = load_model(saved.origin.folder, saved.origin.sha256)
    assert again.components["codec"].origin.sha256 == origin.sha256
    assert torch.equal(again.method.reconstruct(batch().images, Rng(range(8))), expected)
    assert save_model(tmp_path / "again" / "model", again).origin.sha256 == saved.origin.sha256


def test_training_and_its_checkpoints_leave_the_codec_alone(codec: Model, tmp_path: Path) -> None:
    model = latent(codec)
    before = {name: value.clone() for name, value in codec.method.state_dict().items()}
    data = [{"image": batch().images[i], "body": batch().body[i], "id": str(i)} for i in range(8)]
    trained = fit(model.method, data, data, TrainingConfig(images=32, batch_size=4), tmp_path / "training").method
    assert all(torch.equal(value, before[name]) for name, value in trained.codec.state_dict().items())
    names = {name for file in (tmp_path / "training").rglob("state.safetensors") for name in load_file(file)}
    assert {name.split(".")[1] for name in names if not name.startswith("adam.")} == {"network", "sigma", "measured"}
    expected = trained.reconstruct(batch().images, Rng(range(8)))
    save_model(tmp_path / "latent", replace(model, method=trained))
    assert torch.equal(load_model(tmp_path / "latent").method.reconstruct(batch().images, Rng(range(8))), expected)


def test_a_copied_workspace_uses_its_own_codec(codec: Model, tmp_path: Path) -> None:
    save_model(tmp_path / "latent" / "model", latent(codec))
    for name in ("run", "latent"):
        shutil.copytree(tmp_path / name, tmp_path / "copy" / name)
    shutil.rmtree(tmp_path / "run")
    again = load_model(tmp_path / "copy" / "latent")
    assert again.components["codec"].origin.folder.resolve() == tmp_path / "copy" / "run" / "model"
    with pytest.raises(ArtefactError, match=codec.origin.sha256[:12]):
        load_model(tmp_path / "latent")


def test_a_bundled_detector_takes_the_codec_along(codec: Model, tmp_path: Path) -> None:
    detector = Detector(latent(codec), DetectionConfig(), "ct")
    sha256 = save_detector(tmp_path / "detector", detector)
    expected = detector.score_batch(batch()).scores
    bundle_detector(tmp_path / "detector", tmp_path / "elsewhere" / "bundle")
    for name in ("run", "detector"):
        shutil.rmtree(tmp_path / name)
    assert check_detector(tmp_path / "elsewhere" / "bundle") == sha256
    loaded = load_detector(tmp_path / "elsewhere" / "bundle", sha256=sha256)
    assert torch.equal(loaded.score_batch(batch()).scores, expected)
    assert len(list((tmp_path / "elsewhere").rglob("weights.safetensors"))) == 2


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_a_model_whose_codec_is_missing_or_altered_is_refused(
    codec: Model, tmp_path: Path, name: str, damage: str
) -> None:
    save_detector(tmp_path / "detector", Detector(latent(codec), DetectionConfig(), "ct"))
    file = codec.origin.folder / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.unlink() if damage == "missing" else file.write_bytes(content)
    with pytest.raises(ArtefactError):
        load_detector(tmp_path / "detector")
    with pytest.raises(ArtefactError):
        check_detector(tmp_path / "detector")
    with pytest.raises(ArtefactError):
        read_facts(tmp_path / "detector")


def test_another_codec_in_its_place_is_refused(codec: Model, tmp_path: Path) -> None:
    save_model(tmp_path / "latent", latent(codec))
    other = replace(codec, method=build_method(codec.method.config, 32, seed=4))
    assert save_model(codec.origin.folder, other).origin.sha256 != codec.origin.sha256
    with pytest.raises(ArtefactError, match=codec.origin.sha256[:12]):
        load_model(tmp_path / "latent")


def test_a_codec_that_is_not_given_not_saved_or_of_another_size_is_refused(codec: Model, tmp_path: Path) -> None:
    model = latent(codec)
    with pytest.raises(ConfigError, match="codec"):
        build_method(model.method.config, 32)
    with pytest.raises(ConfigError, match="64"):
        build_method(model.method.config, 64, trained={"codec": codec.method})
    for components in ({}, {"codec": replace(codec)}):
        with pytest.raises(ArtefactError, match="codec"):
            save_model(tmp_path / "latent", replace(model, components=components))


def test_settings_that_do_not_fit_are_refused() -> None:
    for half in ({"run": "x"}, {"sha256": "a" * 64}):
        with pytest.raises(ValidationError, match="both"):
            LatentDiffusionConfig(codec=half)
    with pytest.raises(ConfigError, match=r"vq_vae.*\n.*\bwide\b"):
        build_method(LatentDiffusionConfig(codec={"method": {"name": "vq_vae", "wide": 3}}), 32)
    with pytest.raises(ConfigError, match="'jpeg'"):
        build_method(LatentDiffusionConfig(codec={"method": {"name": "jpeg"}}), 32)
    method = build_method(LatentDiffusionConfig(**SMALL, noise="coarse"), 32)
    with pytest.raises(ConfigError, match="eta=0"):
        method.sample(Rng([1]), eta=1.0)


def test_a_method_that_is_not_a_codec_is_refused_and_codecs_are_named(small: dict[str, dict]) -> None:
    codecs = [name for name in METHODS if isinstance(build_method(METHODS[name](**small.get(name, {})), 32), Codec)]
    for name in set(METHODS) - set(codecs):
        with pytest.raises(ConfigError, match=f"{name} .*{', '.join(codecs[:-1])} or {codecs[-1]}"):
            build_method(LatentDiffusionConfig(codec={"method": {**small.get(name, {}), "name": name}}), 32)


def test_a_transformer_denoises_codes() -> None:
    dit = {"kind": "dit", "patch": 2, "width": 32, "depth": 1, "heads": 2}
    method = build_method(LatentDiffusionConfig(**{**SMALL, "denoiser": dit}), 32)
    assert torch.isfinite(method.reconstruct(batch().images, Rng(range(8)))).all()

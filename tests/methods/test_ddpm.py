"""`ddpm`: with Gaussian images the exact denoiser is known; the method must then sample and reconstruct exactly."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.testing import assert_close

from pipeline.diffusion.prediction import target
from pipeline.errors import ConfigError, EmptySelection
from pipeline.methods.artefact import build_from_spec, load_weights, method_spec, save_weights
from pipeline.methods.ddpm import DdpmConfig, DiffusionModel, StartTimes
from pipeline.nn.rng import Rng
from pipeline.training import TrainingConfig
from pipeline.training.fitting import fit
from pipeline.types import Batch

MEAN, STD = 0.2, 0.15  # every pixel N(MEAN, STD^2), far enough inside [-1, 1] that clipping does not act
TINY = {"denoiser": {"patch": 1, "widths": (8,), "attention": (False,)}}


class Exact(nn.Module):
    """E[eps | x_t] for independent Gaussian pixels, in the form that the configuration states."""

    def __init__(self, alpha_bar: Tensor, prediction: str) -> None:
        super().__init__()
        self.alpha_bar, self.prediction = alpha_bar, prediction

    def forward(self, x_t: Tensor, t: Tensor) -> Tensor:
        a = self.alpha_bar[t].reshape(-1, 1, 1, 1)
        eps = (1 - a).sqrt() * (x_t - a.sqrt() * MEAN) / (a * STD**2 + 1 - a)
        return target(self.prediction, (x_t - (1 - a).sqrt() * eps) / a.sqrt(), eps, a)


def exact(**settings: object) -> DiffusionModel:
    method = DdpmConfig(**{"noise": "gaussian", **TINY, **settings}).build(16)
    method.network = Exact(method.process.alpha_bar, method.config.prediction)
    return method


@pytest.mark.parametrize(
    ("eta", "steps", "prediction"), [(1.0, 250, "epsilon"), (0.5, 250, "v"), (0.0, 250, "x0"), (0.0, 250, "v")]
)
def test_samples_have_the_mean_and_spread_of_the_data(eta: float, steps: int, prediction: str) -> None:
    samples = exact(prediction=prediction).sample(Rng(range(30)), steps=steps, eta=eta)
    pixels = samples.numel()
    assert abs(samples.mean() - MEAN) < 5 * STD / math.sqrt(pixels) + 0.002
    assert abs(samples.std() / STD - 1) < 5 / math.sqrt(2 * pixels) + 0.05
    across = torch.corrcoef(samples.flatten(1).T[:40])
    assert (across - torch.eye(40)).abs().mean() < 0.2  # independent pixels stay independent (30 samples: 0.15)


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_reconstruction_pulls_an_outlier_to_the_data_by_the_known_factor(prediction: str) -> None:
    # DDIM transports quantiles: x_t with mean sqrt(a) x has the standard score (x_t - sqrt(a) m) / sqrt(a s^2 + 1 - a),
    # and x_hat = m + s * score. Averaged over the noise: x_hat - m = (x - m) s sqrt(a) / sqrt(a s^2 + 1 - a).
    method = exact(start_times=(300,), steps=300, prediction=prediction)
    a = method.process.alpha_bar[300]
    x = torch.full((60, 1, 16, 16), 0.8)
    x_hat = method.reconstruct(x, Rng(range(60)))
    factor = STD * a.sqrt() / (a * STD**2 + 1 - a).sqrt()
    assert_close(x_hat.mean() - MEAN, (0.8 - MEAN) * factor, rtol=0.03, atol=0.003)


def test_several_start_times_in_one_batch_are_each_alone_with_noise_of_its_own() -> None:
    x = Rng([9, 8]).normal(1, 16, 16) * STD + MEAN
    both = exact(start_times=(100, 200), steps=5).reconstructions(x, Rng([4, 5]))
    for i, t0 in enumerate((100, 200)):
        assert_close(both[i], exact(start_times=(t0,), steps=5).reconstruct(x, Rng([4, 5])))
    assert_close(exact(start_times=(100, 200), steps=5).reconstruct(x, Rng([4, 5])), both.mean(dim=0))
    # Of an image that is the data's mean only the noise is left to see: two noises are not alike.
    plain = exact(start_times=(100, 200), steps=5).reconstructions(torch.full_like(x, MEAN), Rng([4, 5])) - MEAN
    assert plain.abs().mean() > 0.01
    assert torch.corrcoef(plain.flatten(1))[0, 1].abs() < 0.2


def test_the_loss_is_l_simple_at_a_uniform_time() -> None:
    # The exact denoiser's error at time t is Var[eps | x_t] = a s^2 / (a s^2 + 1 - a), to be averaged over all t.
    method = exact()
    x = Rng(range(500)).normal(1, 16, 16) * STD + MEAN
    terms = method.loss(Batch(x, x > 9, tuple(map(str, range(500)))), "train", Rng(range(1000, 1500)))
    a = method.process.alpha_bar
    per_time = a * STD**2 / (a * STD**2 + 1 - a)
    assert abs(terms["epsilon"] - per_time.mean()) < 5 * per_time.std() / math.sqrt(500)


def test_the_schedule_is_that_of_the_paper() -> None:
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    assert_close(exact().process.alpha_bar.double(), (1 - betas).cumprod(0), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("noise", ["simplex", "coarse"])
def test_ancestral_sampling_of_structured_noise_is_refused(noise: str) -> None:
    method = DdpmConfig(**TINY, noise=noise).build(16)
    with pytest.raises(ConfigError, match="eta=0"):
        method.sample(Rng([1]), eta=1.0)
    assert torch.equal(method.sample(Rng([1]), steps=2), method.sample(Rng([1]), steps=2, eta=0.0))


def test_early_exit_changes_little_and_saves_calls() -> None:
    x = Rng([9, 8]).normal(1, 16, 16) * STD + MEAN
    settings = {"start_times": (100,), "steps": 50}
    whole = exact(**settings).reconstruct(x, Rng([4, 5]))
    method, calls = exact(**settings, still=0.03), []
    method.network.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    assert (method.reconstruct(x, Rng([4, 5])) - whole).abs().mean() < 0.03
    assert 2 < sum(calls) < 0.8 * 100
    alone = exact(**settings, still=0.03).reconstruct(x[1:], Rng([5]))
    assert_close(method.reconstruct(x, Rng([4, 5]))[1:], alone, rtol=1e-5, atol=1e-6)


def z_scored() -> StartTimes:
    return StartTimes(exact(start_times=(20, 400), steps=5))


def normals(*keys: int) -> Batch:
    x = Rng(keys).normal(1, 16, 16) * STD + MEAN
    body = torch.zeros(len(keys), 1, 16, 16, dtype=torch.bool)
    body[..., 3:11, 2:14] = True
    return Batch(x, body, tuple(map(str, keys)))


def test_start_times_are_z_scored_on_held_out_normals() -> None:
    # In the body of the very images that they were fitted on, each start time has mean 0 and standard deviation 1.
    mapper, held_out = z_scored(), normals(*range(6))
    mapper.standardise([normals(0, 1), normals(2, 3, 4, 5)])
    residuals = mapper.residuals(held_out.images, Rng.scoring(0, held_out.ids))
    assert residuals[1].mean() > 1.3 * residuals[0].mean()  # without z-scores the late time would rule
    inside = residuals[:, held_out.body]
    assert_close(mapper.normal_mean, inside.mean(dim=1))
    assert_close(mapper.normal_std, inside.std(dim=1, correction=0))
    z = (inside - inside.mean(dim=1, keepdim=True)) / inside.std(dim=1, correction=0, keepdim=True)
    answer = mapper.anomaly_map(held_out.images, Rng.scoring(0, held_out.ids))
    assert answer.shape == (6, 1, 16, 16)
    assert_close(answer[held_out.body], z.mean(dim=0))
    outlier = mapper.anomaly_map(held_out.images + 0.7, Rng.scoring(0, held_out.ids))
    assert outlier.mean() > answer.mean() + 2


def test_without_held_out_normals_nothing_is_scored() -> None:
    with pytest.raises(ConfigError, match="combine: image"):
        z_scored().anomaly_map(normals(1).images, Rng([1]))
    empty = normals(1)
    with pytest.raises(EmptySelection):
        z_scored().standardise([Batch(empty.images, torch.zeros_like(empty.body), empty.ids)])


def test_constants_are_fitted_by_the_training_and_travel_with_the_weights(tmp_path: Path) -> None:
    config = DdpmConfig(**TINY, noise="coarse", start_times=(50, 100), steps=1, combine="residual")
    budget = TrainingConfig(images=8, batch_size=4)
    held_out = Rows(normals(4, 5, 6))
    method = fit(config.build(16), Rows(normals(0, 1, 2, 3)), held_out, budget, tmp_path / "run").method
    assert (method.normal_std > 0).all()
    save_weights(method, tmp_path / "weights.safetensors")
    again = load_weights(build_from_spec(method_spec(method)), tmp_path / "weights.safetensors")
    x = normals(7).images
    assert torch.equal(again.anomaly_map(x, Rng([1])), method.anomaly_map(x, Rng([1])))


class Rows:
    """A batch as a data set."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return len(self.batch.ids)

    def __getitem__(self, i: int) -> dict[str, object]:
        return {"image": self.batch.images[i], "body": self.batch.body[i], "id": self.batch.ids[i]}


def test_the_second_pass_paints_the_suspicious_part_and_leaves_the_rest() -> None:
    x = Rng([9]).normal(1, 16, 16) * STD + MEAN
    x[:, :, 4:8, 4:8] = 0.95
    body = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    body[..., 2:12, 2:12] = True
    settings = {"share": 0.16, "smooth": 3, "start": 700, "steps": 50}
    x_hat = exact(start_times=(300,), second_pass=settings).reconstruct(x, Rng([4]), body)
    changed = x_hat != x
    assert not changed[~body].any() and int(changed.sum()) == 16
    assert changed[..., 4:8, 4:8].float().mean() > 0.7
    assert x_hat[changed].mean() < 0.5  # redrawn from N(0.2, 0.15^2), instead of 0.95


@pytest.mark.parametrize(
    "wrong",
    [
        {"denoiser": {"widths": (8, 8), "attention": (True,)}},
        {"denoiser": {"widths": (8, 12), "attention": (False, False)}},
        {"denoiser": {"kind": "dit", "width": 30, "heads": 4}},
        {"denoiser": {"kind": "mlp"}},
        {"start_times": (1000,)},
        {"start_times": (100, 100)},
        {"start_times": (3, 100), "steps": 5},
        {"guidance": 1.0},
        {"conditions": {}, "still": 0.1},
        {"second_pass": {"smooth": 4}},
        {"second_pass": {"start": 1000}},
        {"second_pass": {}, "combine": "residual"},
    ],
)
def test_settings_that_do_not_fit_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        DdpmConfig(**wrong)

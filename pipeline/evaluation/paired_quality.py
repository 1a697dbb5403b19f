"""Distance of images to their own targets: super-resolution, inpainting, denoising, translation of paired images.

PSNR and SSIM reward the mean of all plausible answers, so a regression wins them. The perceptual distance (LPIPS
without learned weights, Zhang et al. 2018, arXiv:1801.03924, equation 1, on EfficientNet-lite0) counts blur for more
than a change of brightness of the same PSNR. All are means over images with intervals over patients, and every answer
is compared with the first one, the plainest baseline, on the same resamples. PSNR and SSIM are MONAI's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap, Sampled
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.image_features import AT_ONCE, check_images
from pipeline.evaluation.real_images import codes_of
from pipeline.nn.backbone import BackboneConfig
from pipeline.nn.perceptual import PerceptualConfig, perceptual

SMALLEST_ERROR = 1e-10  # mean squared, of a range of 1: PSNR is at most 100 dB, and not infinite for equal images
PERCEPTUAL = PerceptualConfig(backbone=BackboneConfig(depths=(1, 2, 3)), kind="unit_l2")
MEASURES = ("psnr", "ssim", "perceptual")


class PairedRow(Config):
    """Line of a table of answers with targets.

    Attributes:
        name: of the answer.
        psnr: in dB, over the range [-1, 1]; at most 100.
        ssim: at most 1.
        perceptual: distance, at least 0.
        psnr_gain, ssim_gain, perceptual_gain: less those of the first line, on the same resamples; None for itself.
    """

    name: str
    psnr: Estimate
    ssim: Estimate
    perceptual: Estimate
    psnr_gain: Estimate | None = None
    ssim_gain: Estimate | None = None
    perceptual_gain: Estimate | None = None


def judge_pairs(
    answers: Mapping[str, Tensor],
    target: Tensor,
    patients: Sequence[str],
    config: EvaluationConfig | None = None,
    region: Tensor | None = None,
) -> tuple[PairedRow, ...]:
    """Compare answers with their targets; one line each, the first of which is the baseline of the others.

    Args:
        answers: by name, [N, C, H, W] in about [-1, 1], in the order of the targets.
        target: [N, C, H, W].
        patients: of each image.
        config: resamples, confidence and seed of the intervals.
        region: bool [N, 1, H, W], where errors count for PSNR, such as an inpainted mask; None for everywhere. The
            other two measures need surroundings, and are always of the whole image.

    Raises:
        ConfigError: shapes or numbers differ, or a region is empty.
        EmptySelection: fewer than two patients.
        Rejected: NaN or infinity (code non-finite-pixels).
    """
    _check(answers, target, patients, region)
    measured = {name: measure_pairs(answer, target, region) for name, answer in answers.items()}
    return compare_pairs(measured, patients, config)


def compare_pairs(
    measured: Mapping[str, np.ndarray], patients: Sequence[str], config: EvaluationConfig | None = None
) -> tuple[PairedRow, ...]:
    """Return one line per answer from what `measure_pairs` returned of each, [N, 3]; the first is the baseline.

    Raises:
        EmptySelection: fewer than two patients.
    """
    owners = codes_of(patients)
    bootstrap = PatientBootstrap.draw(np.zeros(int(owners.max()) + 1, int), config or EvaluationConfig())
    sampled = {
        name: bootstrap.sample(means_of_images(values, owners), len(owners)) for name, values in measured.items()
    }
    first = next(iter(sampled.values()), None)
    return tuple(_row(bootstrap, name, values, first) for name, values in sampled.items())


def measure_pairs(answer: Tensor, target: Tensor, region: Tensor | None = None) -> np.ndarray:
    """Return PSNR, SSIM and perceptual distance of each image of [N, C, H, W]: float64 [N, 3]."""
    parts = range(0, len(target), AT_ONCE)
    rows = [
        _measure(answer[i : i + AT_ONCE].float(), target[i : i + AT_ONCE].float(),
                 None if region is None else region[i : i + AT_ONCE])
        for i in parts
    ]  # fmt: skip
    return torch.cat(rows).double().numpy()


def _measure(answer: Tensor, target: Tensor, region: Tensor | None) -> Tensor:
    from monai.metrics import PSNRMetric, SSIMMetric

    x, y = (answer + 1) / 2, (target + 1) / 2
    if region is None:
        psnr = PSNRMetric(1.0, reduction="none")(x, y).flatten()
    else:
        inside = region.expand_as(x).float()
        error = ((x - y).square() * inside).flatten(1).sum(dim=1) / inside.flatten(1).sum(dim=1)
        psnr = -10 * error.log10()
    ssim = SSIMMetric(2, reduction="none")(x, y).flatten()
    with torch.inference_mode():
        distance = perceptual(PERCEPTUAL)(target, answer)
    limit = -10 * torch.tensor(SMALLEST_ERROR).log10()
    return torch.stack([psnr.clamp_max(limit), ssim, distance], dim=1)


def means_of_images(values: np.ndarray, owners: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Return the statistic "means over images" of patient weights, [r, P] -> [r, K], of values [N, K]."""
    sums = np.stack([np.bincount(owners, column) for column in values.T], axis=1)
    counts = np.bincount(owners)
    return lambda weights: (weights @ sums) / (weights @ counts)[:, None]


def _row(bootstrap: PatientBootstrap, name: str, sampled: Sampled, first: Sampled | None) -> PairedRow:
    values = dict(zip(MEASURES, bootstrap.estimates(sampled), strict=True))
    if first is None or first is sampled:
        return PairedRow(name=name, **values)
    joint = Sampled.join([sampled, first])
    differences = [joint.difference(k, k + len(MEASURES)) for k in range(len(MEASURES))]
    gains = {
        f"{measure}_gain": bootstrap.estimates(difference)[0]
        for measure, difference in zip(MEASURES, differences, strict=True)
    }
    return PairedRow(name=name, **values, **gains)


def _check(answers: Mapping[str, Tensor], target: Tensor, patients: Sequence[str], region: Tensor | None) -> None:
    check_images(target, "targets")
    if len(patients) != len(target):
        raise ConfigError(f"There are {len(target)} targets and {len(patients)} patients; each target needs one.")
    for name, answer in answers.items():
        if answer.shape != target.shape:
            raise ConfigError(
                f"{name} has the shape {list(answer.shape)} and its targets {list(target.shape)}; they must be equal. "
                "Enlarge or crop the answer to the grid of its target first."
            )
        check_images(answer, f"images of {name}")
    if region is None:
        return
    shape = (len(target), 1, *target.shape[2:])
    if tuple(region.shape) != shape or not bool(region.flatten(1).any(dim=1).all()):
        raise ConfigError(
            f"The region has the shape {list(region.shape)} and must have {list(shape)}, with a pixel in every image. "
            "Leave out images without one."
        )

"""Judge of generated images: their distance to held-out real ones beside what real images reach, and their faults.

`judge_samples` is the one door. To judge several sets of samples of one data set (steps, guidance, methods), build an
`ImageJudge` once: most of its time goes into the features of the real images.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field
from scipy.spatial.distance import cdist
from torch import Tensor

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.evaluation.bootstrap import Estimate, PatientBootstrap
from pipeline.evaluation.closeness import TrainingImages
from pipeline.evaluation.condition_agreement import AttributeClassifier, ClassAgreement, judge_classes
from pipeline.evaluation.config import EvaluationConfig
from pipeline.evaluation.distribution_distance import KernelDistance, fid, kid_of_halves, precision_and_recall, realism
from pipeline.evaluation.image_features import check_images, embed_images, network_edge
from pipeline.evaluation.memorisation import EXACT, judge_memorisation
from pipeline.evaluation.real_images import SMALLEST, RealImages
from pipeline.evaluation.sample_diversity import compare_variety
from pipeline.evaluation.sample_results import ImageQuality
from pipeline.evaluation.sample_verdicts import describe_leak, judge_faults

ABSURD = 1000.0  # times the largest pixel of a real image


class JudgeConfig(Config):
    """Settings of the judge."""

    resamples: int = Field(1000, ge=100, le=100_000, description="resamples of the interval of KID")
    confidence: float = Field(0.95, gt=0.5, lt=1, description="coverage of every interval")
    seed: int = Field(0, ge=0, description="seed of resamples, splits and pairs")
    floor_splits: int = Field(200, ge=20, description="splits of the real patients into halves, for the floor of KID")
    splits: int = Field(8, ge=1, description="of these, those in which FID, precision and recall are measured")
    pairs: int = Field(8, ge=0, description="closest pairs of sample and training image in the answer")


class ImageJudge:
    """Judge of samples against one set of held-out real images and one training set.

    Building it embeds all real images, about 200 of 64 pixels per second on one core. Deterministic.

    Args:
        real: held-out images, of patients that are not in the training set; 500 or more give useful numbers.
        train: images that the samplers were trained on, with classes if the classes of samples are of interest. With
            two or more classes a classifier learns them.
        config: resamples, splits and seed.

    Raises:
        ConfigError: the two differ in size or channels.
    """

    def __init__(self, real: RealImages, train: RealImages, config: JudgeConfig | None = None) -> None:
        _check_shape("training images", train.images, real.images)
        self.real, self.train, self.config = real, train, config or JudgeConfig()
        self.features, self.train_features = embed_images(real.images), embed_images(train.images)
        self.classifier: AttributeClassifier | None = None
        self.guessed = [""] * len(real.images)
        if train.classes is not None and real.classes is not None and len(set(train.classes)) > 1:
            self.classifier = AttributeClassifier(self.train_features, train.classes)
            self.guessed = self.classifier.classify(self.features)
        self.near_to = TrainingImages(train.images, self.train_features, train.owners)
        self.closeness = self.near_to.closeness(real.images, self.features, self.guessed, real.owners)
        self.halves = _halves(real.owners, self.config)

    def judge(
        self,
        samples: Tensor,
        *,
        classes: Sequence[str] | None = None,
        seconds: float | None = None,
        steps: int | None = None,
    ) -> ImageQuality:
        """Return the quality of samples [N, C, H, W]; see `judge_samples`."""
        samples = samples.detach().float().cpu()
        self._check(samples, classes)
        features = embed_images(samples)
        guessed = self.classifier.classify(features) if self.classifier else [""] * len(samples)
        memory = judge_memorisation(
            self.near_to.closeness(samples, features, guessed, np.arange(len(samples))), self.closeness,
            self.train.patients, self.config.pairs,
            self.config.confidence,
        )  # fmt: skip
        quality = ImageQuality(
            samples=len(samples),
            real=len(self.real.images),
            real_patients=len(set(self.real.patients)),
            train=len(self.train.images),
            train_patients=len(set(self.train.patients)),
            network_edge=network_edge(samples),
            memorisation=memory,
            classes=self._classes(guessed, classes),
            seconds_per_image=None if seconds is None else seconds / len(samples),
            steps=steps,
            **self._distances(features),
            held_out_copies=float((cdist(features, self.features).min(axis=1) < EXACT).mean()),
            notes=describe_leak(memory.leaked, len(self.real.images)),
            **compare_variety(samples, list(classes or guessed), self.real, self.config.seed),
        )
        return quality.model_copy(update={"verdicts": judge_faults(quality)})

    def _check(self, samples: Tensor, classes: Sequence[str] | None) -> None:
        check_images(samples, "samples")
        _check_shape("samples", samples, self.real.images)
        if len(samples) < SMALLEST:
            raise ConfigError(
                f"There are {len(samples)} samples; judging needs at least {SMALLEST}, and 500 give useful numbers. "
                "Generate more."
            )
        _check_range(samples, self.real.images)
        if classes is None:
            return
        if self.real.classes is None or self.train.classes is None:
            raise ConfigError("Samples have classes, and the real images do not. Give the real images' classes too.")
        if len(classes) != len(samples):
            raise ConfigError(f"There are {len(samples)} samples and {len(classes)} classes; each needs one.")
        names = {*self.real.classes, *self.train.classes}
        if unknown := sorted(set(classes) - names):
            raise ConfigError(
                f"No real image has the class {', '.join(unknown)}. Choose among {', '.join(sorted(names))}."
            )

    def _classes(self, guessed: list[str], asked: Sequence[str] | None) -> ClassAgreement | None:
        if self.classifier is None or self.real.classes is None:
            return None
        return judge_classes(guessed, asked, self.guessed, self.real.classes, self.config.confidence)

    def _distances(self, features: np.ndarray) -> dict[str, Any]:
        """Return KID and, at equal n, FID, precision and recall, with their floors."""
        distance = KernelDistance.of(self.features, self.real.owners, features)
        evaluation = EvaluationConfig(
            resamples=self.config.resamples, seed=self.config.seed, confidence=self.config.confidence
        )
        strata = np.repeat([0, 1], [len(set(self.real.patients)), len(features)])
        bootstrap = PatientBootstrap.draw(strata, evaluation)
        (kid,) = bootstrap.estimates(bootstrap.sample(distance.weighted, 2 * (len(features) + len(self.features))))
        return {"kid": kid, "floor_kid": self._floor_of_kid(distance), **self._at_equal_n(features)}

    def _floor_of_kid(self, distance: KernelDistance) -> Estimate:
        values = kid_of_halves(distance.real, self.real.owners, self.halves)
        tail = (1 - self.config.confidence) / 2
        low, high = np.quantile(values, [tail, 1 - tail])
        note = f"mean and range over {len(values)} splits of the real patients into halves"
        return Estimate(value=float(values.mean()), low=float(low), high=float(high), note=note)

    def _at_equal_n(self, features: np.ndarray) -> dict[str, float]:
        """Return FID, precision and recall against one half of the real patients: of samples and of the other half."""
        rng = np.random.default_rng(self.config.seed)
        n = min(len(features), int(self.halves.sum(axis=1).min()), int((~self.halves).sum(axis=1).min()))
        rows = []
        for half in self.halves[: self.config.splits]:
            first, second = (rng.permutation(np.flatnonzero(side))[:n] for side in (half, ~half))
            ours, other, real = (
                features[rng.permutation(len(features))[:n]],
                self.features[second],
                self.features[first],
            )
            owners = self.real.owners[first]
            rows.append([_against(side, real, owners) for side in (ours, other)])
        means = np.mean(rows, axis=0)
        names = ("fid", "precision", "recall", "realism")
        floors = {f"floor_{name}": float(value) for name, value in zip(names, means[1], strict=True)}
        return {"equal_n": n, **dict(zip(names, means[0].tolist(), strict=True)), **floors}


def judge_samples(
    samples: Tensor,
    real: RealImages,
    train: RealImages,
    *,
    classes: Sequence[str] | None = None,
    seconds: float | None = None,
    steps: int | None = None,
    config: JudgeConfig | None = None,
) -> ImageQuality:
    """Return the quality of samples beside what real images reach, and their faults by name. Deterministic.

    Args:
        samples: [N, C, H, W], about [-1, 1]; 500 give useful numbers, 8 are the fewest.
        real: held-out images of other patients than the training set's, of the same size.
        train: images that the sampler was trained on.
        classes: that a conditional sampler was given, one per sample; needs the classes of `real` and `train`.
        seconds: that sampling took, in total.
        steps: forward passes of the network per sample.
        config: resamples, splits, seed.

    Raises:
        ConfigError: another size or number of channels, too few samples, or an unknown class.
        Rejected: NaN or infinity in the samples (code non-finite-pixels).
    """
    return ImageJudge(real, train, config).judge(samples, classes=classes, seconds=seconds, steps=steps)


def _check_shape(what: str, images: Tensor, real: Tensor) -> None:
    if images.shape[1:] != real.shape[1:]:
        raise ConfigError(
            f"The {what} have the shape {list(images.shape[1:])} and the held-out real images {list(real.shape[1:])}; "
            "they must be equal. Prepare both with the same model."
        )


def _against(features: np.ndarray, real: np.ndarray, patients: np.ndarray) -> list[float]:
    """Return FID, precision, recall and realism of features against as many real ones."""
    return [
        fid(features, real), *precision_and_recall(features, real, patients), realism(features, real, patients)
    ]  # fmt: skip


def _check_range(samples: Tensor, real: Tensor) -> None:
    """Refuse values whose features would overflow; pixels of 0 to 255 are judged, and named."""
    largest, usual = float(samples.abs().max()), float(real.abs().max())
    if largest > ABSURD * max(usual, 1.0):
        raise ConfigError(
            f"The samples have pixels of {largest:.3g}, and the real images of at most {usual:.3g}; both must be about "
            "[-1, 1]. If they were sampled, train again with a lower learning rate."
        )


def _halves(owners: np.ndarray, config: JudgeConfig) -> np.ndarray:
    """Return splits of the patients into halves, as bool [S, N] over their images."""
    rng, patients = np.random.default_rng(config.seed), int(owners.max()) + 1
    order = np.array([rng.permutation(patients) for _ in range(max(config.floor_splits, config.splits))])
    return (order < patients // 2)[:, owners]

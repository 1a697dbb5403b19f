"""The judge of generated images: honest samplers have no fault, and each dishonest one is caught by name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from pipeline.errors import ConfigError, EmptySelection, Rejected, RejectionCode
from pipeline.evaluation.closeness import Closeness
from pipeline.evaluation.image_quality import ImageJudge, JudgeConfig, RealImages, judge_samples
from pipeline.evaluation.memorisation import nearer_than_real
from pipeline.evaluation.sample_results import ImageQuality, SampleFault
from pipeline.evaluation.sample_verdicts import judge_faults

SIZE, CLASSES = 32, ("disc", "bars")


def draw(count: int, seed: int) -> tuple[Tensor, list[str]]:
    """Return images of two classes: discs and bars of random place, size and brightness, with a little texture."""
    g = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=g)

    y, x = torch.meshgrid(*[torch.linspace(-1, 1, SIZE)] * 2, indexing="ij")
    y, x = y - uniform(-0.5, 0.5), x - uniform(-0.5, 0.5)
    disc = ((x / uniform(0.2, 0.7)).square() + (y / uniform(0.2, 0.7)).square() < 1).float()
    bars = (torch.sin(uniform(4, 12) * x + uniform(-6, 6) * y) > 0).float() * (y.abs() < uniform(0.3, 0.9))
    classes = [CLASSES[i % 2] for i in range(count)]
    second = (torch.arange(count) % 2 == 1)[:, None, None, None]
    shapes = torch.where(second, bars, disc) * uniform(0.8, 1.6)
    return (shapes - 0.9 + 0.03 * torch.randn(count, 1, SIZE, SIZE, generator=g)).clamp(-1, 1), classes


def real_images(count: int, seed: int) -> RealImages:
    images, classes = draw(count, seed)
    return RealImages(images, [f"{seed}-{i}" for i in range(count)], classes)


CONFIG = JudgeConfig(resamples=100, floor_splits=20, splits=2)


@pytest.fixture(scope="module")
def judge() -> ImageJudge:
    return ImageJudge(real_images(80, 1), real_images(50, 2), CONFIG)


def faults(quality: ImageQuality) -> set[SampleFault]:
    return {verdict.code for verdict in quality.verdicts}


@pytest.fixture(scope="module")
def honest(judge: ImageJudge) -> ImageQuality:
    return judge.judge(draw(40, 3)[0], seconds=4.0, steps=10)


def test_another_draw_of_the_same_images_has_no_fault(honest: ImageQuality) -> None:
    assert honest.verdicts == honest.notes == ()
    assert honest.kid.low < 0.02 and honest.kid.low < honest.floor_kid.high
    assert honest.fid == pytest.approx(honest.floor_fid, rel=0.25)
    assert honest.precision > 0.8 * honest.floor_precision and honest.recall > 0.8 * honest.floor_recall
    assert honest.memorisation.nearest == pytest.approx(honest.memorisation.nearest_real, rel=0.15)
    assert 0.7 < honest.spread < 1.4 and 0.8 < honest.sharpness < 1.25
    assert honest.classes is not None and honest.classes.real_accuracy.value > 0.9
    assert (honest.seconds_per_image, honest.steps, honest.equal_n) == (0.1, 10, 40)


def test_it_is_written_and_read_and_fills_its_lines(honest: ImageQuality) -> None:
    assert ImageQuality.model_validate_json(honest.to_json()) == honest
    assert honest.row().keys() == honest.floor_row().keys()
    assert honest.row()["KID"] != honest.floor_row()["KID"]
    assert {"kid", "floor_kid", "fid", "precision", "copied", "nearest_real"} <= honest.numbers().keys()


def bad_samples(name: str, train: Tensor, fresh: Tensor) -> Tensor:
    """Return what a dishonest or failed sampler would make."""
    noise = torch.randn(train.shape, generator=torch.Generator().manual_seed(5))
    return {
        "copies": train,
        "copies with noise": train + 0.05 * noise,
        "copies moved by a pixel": torch.roll(train, (1, 1), (2, 3)),
        "mirrored copies": train.flip(3),
        "brighter copies": 0.9 * train + 0.08,
        "half copies": torch.cat([train[:20], fresh[:20]]),
        "one image": fresh[:1] + 0.01 * noise,
        "a constant": torch.zeros_like(train),
        "six images": fresh[:6].repeat(7, 1, 1, 1),
        "one class": fresh[::2],
        "noise": noise,
        "blur": torch.nn.functional.avg_pool2d(fresh, 7, 1, 3),
        "pixels of 0 to 255": 127.5 * (fresh + 1),
    }[name]


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("copies", SampleFault.COPIES),
        ("copies with noise", SampleFault.COPIES),
        ("copies moved by a pixel", SampleFault.COPIES),
        ("mirrored copies", SampleFault.COPIES),
        ("brighter copies", SampleFault.COPIES),
        ("half copies", SampleFault.COPIES),
        ("one image", SampleFault.ALIKE),
        ("a constant", SampleFault.ALIKE),
        ("six images", SampleFault.FEW_DISTINCT),
        ("one class", SampleFault.MISSING_CLASS),
        ("noise", SampleFault.UNREAL),
        ("blur", SampleFault.BLURRED),
        ("pixels of 0 to 255", SampleFault.OUT_OF_RANGE),
    ],
)
def test_a_dishonest_sampler_is_caught_by_name(judge: ImageJudge, name: str, fault: SampleFault) -> None:
    quality = judge.judge(bad_samples(name, judge.train.images[:40], draw(40, 3)[0]))
    assert fault in faults(quality)
    if fault is not SampleFault.COPIES:
        assert SampleFault.COPIES not in faults(quality), "an innocent one"


def test_the_closest_pairs_name_the_patient_that_was_copied(judge: ImageJudge) -> None:
    samples = torch.cat([draw(20, 3)[0], judge.train.images[[7, 3]]])
    pairs = judge.judge(samples).memorisation.pairs
    assert {(pair.sample, pair.train, pair.patient) for pair in pairs[:2]} == {(20, 7, "2-7"), (21, 3, "2-3")}
    assert pairs[0].closeness < 1e-6 and [p.closeness for p in pairs] == sorted(p.closeness for p in pairs)


def test_held_out_images_that_were_trained_on_are_noted_and_left_out(judge: ImageJudge) -> None:
    train = judge.train
    leaky = RealImages(
        torch.cat([judge.real.images[:40], train.images[:4]]),
        [*judge.real.patients[:40], *train.patients[:4]],
        [*(judge.real.classes or ())[:40], *(train.classes or ())[:4]],
    )
    quality = judge_samples(draw(30, 3)[0], leaky, train, config=CONFIG)
    assert quality.memorisation.leaked == 4 and len(quality.notes) == 1
    assert SampleFault.COPIES not in faults(quality)


def test_conditions_that_are_followed_and_ignored(judge: ImageJudge) -> None:
    images, classes = draw(40, 3)
    followed = judge.judge(images, classes=classes)
    assert followed.classes is not None and followed.classes.agreement is not None
    assert followed.classes.agreement.value > 0.9 and followed.verdicts == ()
    assert faults(judge.judge(images, classes=classes[1:] + classes[:1])) >= {SampleFault.IGNORES_CONDITION}


def test_one_requested_class_is_followed_or_ignored(judge: ImageJudge) -> None:
    names = judge.real.classes or ()
    rows = [row for row, own in enumerate(names) if own == names[0]]
    alike = RealImages(judge.real.images[rows], [judge.real.patients[row] for row in rows], [names[0]] * len(rows))
    images, classes = draw(80, 3)
    asked = images[[row for row, own in enumerate(classes) if own == names[0]]]
    alone = ImageJudge(alike, judge.train, CONFIG)
    assert SampleFault.IGNORES_CONDITION not in faults(alone.judge(asked, classes=[names[0]] * len(asked)))
    assert SampleFault.IGNORES_CONDITION in faults(alone.judge(images, classes=[names[0]] * len(images)))


def test_a_short_time_has_digits(honest: ImageQuality) -> None:
    cells = {
        s: honest.model_copy(update={"seconds_per_image": s}).row()["seconds per image"] for s in (1.23456, 1.1e-4)
    }
    assert list(cells.values()) == ["1.235", "0.00011"]


def test_the_answer_does_not_depend_on_the_order_of_samples_and_has_no_hidden_randomness(judge: ImageJudge) -> None:
    images = draw(24, 3)[0]
    first, second, reverse = (judge.judge(part) for part in (images, images, images.flip(0)))
    assert first == second
    assert reverse.kid.value == pytest.approx(first.kid.value, rel=1e-6)
    assert reverse.memorisation.copied == first.memorisation.copied


def test_images_without_classes_or_of_one_are_judged_as_one_class(judge: ImageJudge) -> None:
    samples, (real, train) = (
        draw(20, 3)[0],
        (RealImages(r.images[:24], r.patients[:24]) for r in (judge.real, judge.train)),
    )
    quality = judge_samples(samples, real, train, config=CONFIG)
    assert quality.classes is None and quality.ms_ssim is not None
    one = judge_samples(
        samples, *(replace(r, classes=["shape"] * 24) for r in (real, train)), classes=["shape"] * 20, config=CONFIG
    )
    assert one == quality
    with pytest.raises(ConfigError, match="classes"):
        judge_samples(samples, real, train, classes=["disc"] * 20, config=CONFIG)


@pytest.mark.parametrize(
    "samples",
    [torch.zeros(7, 1, SIZE, SIZE), torch.zeros(20, 1, 16, 16), torch.zeros(20, 2, SIZE, SIZE), torch.zeros(20, SIZE),
     torch.zeros(20, 1, 8, SIZE, SIZE), torch.zeros(0, 1, SIZE, SIZE)],
    ids=["too few", "other size", "other channels", "no images", "volumes", "none"],
)  # fmt: skip
def test_samples_that_cannot_be_judged_are_refused(judge: ImageJudge, samples: Tensor) -> None:
    with pytest.raises(ConfigError):
        judge.judge(samples)


def test_samples_with_nan_are_refused_with_their_code(judge: ImageJudge) -> None:
    images = draw(20, 3)[0]
    images[3, 0, 1, 1] = torch.nan
    with pytest.raises(Rejected, match="1 of 20") as refusal:
        judge.judge(images)
    assert refusal.value.code is RejectionCode.NON_FINITE


def test_real_images_that_do_not_fit_are_refused() -> None:
    images = draw(20, 3)[0]
    with pytest.raises(ConfigError, match="19 patients"):
        RealImages(images, ["p"] * 19)
    with pytest.raises(EmptySelection, match="2 patients"):
        RealImages(images, ["a", "b"] * 10)
    with pytest.raises(EmptySelection, match="6 real images"):
        RealImages(images[:6], list("abcdef"))


def test_classes_that_cannot_be_judged_are_refused(judge: ImageJudge) -> None:
    images, classes = draw(20, 3)
    with pytest.raises(ConfigError, match="cross"):
        judge.judge(images, classes=["cross", *classes[1:]])
    with pytest.raises(ConfigError, match="19 classes"):
        judge.judge(images, classes=classes[1:])


def test_turned_copies_are_nearer_than_new_images_and_that_alone_is_a_fault(
    judge: ImageJudge, honest: ImageQuality
) -> None:
    train = judge.train.images
    turned = torch.tensor([[[0.98, -0.02, 0.0], [0.02, 0.98, 0.0]]]).expand(len(train), -1, -1)
    grid = torch.nn.functional.affine_grid(turned, list(train.shape), align_corners=False)
    copies = torch.nn.functional.grid_sample(train, grid, padding_mode="border", align_corners=False)
    near, new = judge.judge(copies).memorisation.nearer, honest.memorisation.nearer
    assert near is not None and near.low is not None and near.low > 0.6
    assert new is not None and new.low is not None and new.high is not None and new.low < 0.5 < new.high
    alone = honest.model_copy(update={"memorisation": honest.memorisation.model_copy(update={"nearer": near})})
    assert [fault.code for fault in judge_faults(alone)] == [SampleFault.NEAR]


def test_nearer_is_a_rank_statistic_within_classes_with_the_variance_of_its_bootstrap() -> None:
    rng = np.random.default_rng(0)
    ours, theirs, classes = rng.normal(size=60), 0.5 + rng.normal(size=80), np.repeat(["a", "b"], [20, 40])

    def closeness(distance: np.ndarray, classes: np.ndarray) -> Closeness:
        return Closeness(distance, *[np.zeros(len(distance), int)] * 3, classes, np.arange(len(distance)))

    real = closeness(theirs, np.repeat(["a", "b"], 40))
    got = nearer_than_real(closeness(ours, classes), real, 0.95)
    areas = [
        roc_auc_score([0] * len(x) + [1] * 40, [*x, *y])
        for x, y in ((ours[:20], theirs[:40]), (ours[20:], theirs[40:]))
    ]
    assert got is not None and got.value == pytest.approx((20 * areas[0] + 40 * areas[1]) / 60)
    same = nearer_than_real(closeness(ours, np.repeat("a", 60)), closeness(theirs, np.repeat("a", 80)), 0.95)
    draws = [roc_auc_score([0] * 60 + [1] * 80, [*rng.choice(ours, 60), *rng.choice(theirs, 80)]) for _ in range(400)]
    assert same is not None and same.high is not None and same.low is not None
    assert (same.high - same.low) / (2 * 1.96) == pytest.approx(np.std(draws), rel=0.15)
    assert nearer_than_real(closeness(ours[:1], classes[:1]), real, 0.95) is None


def test_samples_that_are_held_out_images_are_called_so(judge: ImageJudge) -> None:
    quality = judge.judge(torch.cat([judge.real.images[:10], draw(30, 3)[0]]))
    assert quality.held_out_copies == pytest.approx(0.25)
    assert SampleFault.COPIES_HELD_OUT in faults(quality)


def test_few_modes_have_little_recall_which_is_called_narrow(judge: ImageJudge, honest: ImageQuality) -> None:
    images = draw(240, 7)[0]
    dark = images[images.mean(dim=(1, 2, 3)).argsort()[:40]]
    quality = judge.judge(dark)
    assert quality.recall < 0.5 * quality.floor_recall
    fewer = honest.model_copy(update={"recall": 0.2 * honest.floor_recall})
    assert [fault.code for fault in judge_faults(fewer)] == [SampleFault.NARROW]


def test_samples_of_any_type_are_judged_and_absurd_values_are_refused(judge: ImageJudge) -> None:
    images = draw(24, 3)[0]
    same = judge.judge(images.double().requires_grad_())
    assert same == judge.judge(images)
    with pytest.raises(ConfigError, match="1e"):
        judge.judge(1e20 * images)


def test_few_patients_with_very_unequal_numbers_of_images_are_judged(judge: ImageJudge) -> None:
    images, classes = judge.real.images[:40], list(judge.real.classes or ())[:40]
    real = RealImages(images, ["a", "b", "c", *["d"] * 37], classes)
    quality = judge_samples(draw(24, 3)[0], real, judge.train, config=CONFIG)
    assert quality.equal_n == 2 and ImageQuality.model_validate_json(quality.to_json()) == quality

"""Verdicts on a sampler: faults of its samples, as codes and sentences, from the numbers of the judge."""

from __future__ import annotations

from pipeline.evaluation.sample_results import ImageQuality, SampleFault, SampleVerdict

COPY_MARGIN = 0.05  # by which the share of copies must surely exceed that of real images
NEARER = 0.6  # probability, which is 0.5 for new images
ALIKE = 0.2  # of the spread of real images
FEW = 0.5  # of the share of distinct real images
MISSING = 0.1  # of the share among real images
EXPECTED = 7  # samples of a class below which its absence means nothing
NARROW = 0.25  # of the recall of real images
UNREAL = 0.1  # of the realism of real images
BLURRED, NOISY = 0.5, 2.0  # of the sharpness of real images
OUTSIDE = 0.01  # of the pixels


def judge_faults(quality: ImageQuality) -> tuple[SampleVerdict, ...]:
    """Return every fault that the numbers show, the gravest first."""
    candidates = (
        _copies(quality) or _near(quality), _copies_held_out(quality), _alike(quality), *_missing(quality),
        _condition(quality), _unreal(quality), _narrow(quality), _sharpness(quality), _range(quality),
    )  # fmt: skip
    return tuple(verdict for verdict in candidates if verdict is not None)


def _copies(quality: ImageQuality) -> SampleVerdict | None:
    memory = quality.memorisation
    if (memory.copied.low or 0) <= memory.copied_real + COPY_MARGIN:
        return None
    return SampleVerdict(
        code=SampleFault.COPIES,
        sentence=f"It copies the training images: {memory.copied.value:.0%} of the samples are as near to one as a "
        f"copy, and {memory.copied_real:.0%} of the held-out real images.",
    )


def _near(quality: ImageQuality) -> SampleVerdict | None:
    nearer = quality.memorisation.nearer
    if nearer is None or (nearer.low or 0) <= NEARER:
        return None
    return SampleVerdict(
        code=SampleFault.NEAR,
        sentence=f"The samples are near to the training images: nearer than a held-out image of the same class with a "
        f"probability of {nearer.text(2)}. Look at the pairs.",
    )


def _copies_held_out(quality: ImageQuality) -> SampleVerdict | None:
    if quality.held_out_copies <= COPY_MARGIN:
        return None
    return SampleVerdict(
        code=SampleFault.COPIES_HELD_OUT,
        sentence=f"{quality.held_out_copies:.0%} of the samples are held-out real images themselves: they are not "
        "samples, or the model was trained on what it is judged by.",
    )


def _narrow(quality: ImageQuality) -> SampleVerdict | None:
    if quality.recall >= NARROW * quality.floor_recall:
        return None
    return SampleVerdict(
        code=SampleFault.NARROW,
        sentence=f"The samples cover few of the real images: recall {quality.recall:.2f}, and "
        f"{quality.floor_recall:.2f} for real images.",
    )


def _alike(quality: ImageQuality) -> SampleVerdict | None:
    if quality.spread is not None and quality.spread < ALIKE:
        return SampleVerdict(
            code=SampleFault.ALIKE,
            sentence=f"All samples are alike: within a class they differ by {quality.spread:.2f} times as much as real "
            "images do.",
        )
    if quality.distinct < FEW * quality.distinct_real:
        return SampleVerdict(
            code=SampleFault.FEW_DISTINCT,
            sentence=f"The samples repeat few images: {quality.distinct:.0%} are distinct, and "
            f"{quality.distinct_real:.0%} of as many real ones.",
        )
    return None


def _missing(quality: ImageQuality) -> list[SampleVerdict]:
    classes = quality.classes
    if classes is None or classes.agreement is not None:
        return []
    expected = {name: share for name, share in classes.real_shares.items() if share * quality.samples >= EXPECTED}
    return [
        SampleVerdict(
            code=SampleFault.MISSING_CLASS,
            sentence=f"It hardly makes {name}: {classes.shares[name]:.1%} of the samples, and {share:.0%} of the real "
            "images.",
        )
        for name, share in expected.items()
        if classes.shares[name] < MISSING * share
    ]


def _condition(quality: ImageQuality) -> SampleVerdict | None:
    classes = quality.classes
    if classes is None or classes.agreement is None:
        return None
    shares = [share for share in classes.real_shares.values() if share > 0]
    chance = max(shares) if len(shares) > 1 else 1 / len(classes.real_shares)  # all were asked for one class
    if (classes.agreement.high or 0) >= (chance + classes.real_accuracy.value) / 2:
        return None
    return SampleVerdict(
        code=SampleFault.IGNORES_CONDITION,
        sentence=f"It does not follow its condition: {classes.agreement.value:.0%} of the samples have the class that "
        f"was requested; on real images the classifier is right in {classes.real_accuracy.value:.0%}.",
    )


def _unreal(quality: ImageQuality) -> SampleVerdict | None:
    if quality.realism >= UNREAL * quality.floor_realism:
        return None
    return SampleVerdict(
        code=SampleFault.UNREAL,
        sentence=f"Hardly any sample resembles a real image: realism {quality.realism:.2f}, and "
        f"{quality.floor_realism:.2f} for real images.",
    )


def _sharpness(quality: ImageQuality) -> SampleVerdict | None:
    if BLURRED <= quality.sharpness <= NOISY:
        return None
    code = SampleFault.BLURRED if quality.sharpness < BLURRED else SampleFault.NOISY
    return SampleVerdict(
        code=code,
        sentence=f"The samples are {code}: differences between neighbouring pixels are {quality.sharpness:.2f} times "
        "those of real images.",
    )


def _range(quality: ImageQuality) -> SampleVerdict | None:
    if quality.outside < OUTSIDE:
        return None
    return SampleVerdict(
        code=SampleFault.OUT_OF_RANGE,
        sentence=f"{quality.outside:.1%} of the pixels are far outside the range of the real images.",
    )


def describe_leak(leaked: int, real: int) -> tuple[str, ...]:
    """Return a note if held-out real images are in the training set as well, which is not a fault of the sampler."""
    if not leaked:
        return ()
    return (
        f"{leaked} of the {real} held-out real images are in the training set as well, so the sets are not "
        "independent. They are left out of the distances to the training images.",
    )

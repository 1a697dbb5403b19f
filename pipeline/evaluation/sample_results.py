"""Results of the judge of generated images: numbers, each beside that of real images, and faults by name."""

from __future__ import annotations

import json
from enum import StrEnum

from pipeline.config import Config
from pipeline.evaluation.bootstrap import Estimate
from pipeline.evaluation.condition_agreement import ClassAgreement
from pipeline.evaluation.memorisation import Memorisation


class SampleFault(StrEnum):
    """Code of a verdict; never renamed, since stored results hold it."""

    COPIES = "copies-training-images"
    NEAR = "near-training-images"
    COPIES_HELD_OUT = "copies-held-out-images"
    ALIKE = "all-samples-alike"
    FEW_DISTINCT = "few-distinct-samples"
    MISSING_CLASS = "missing-class"
    IGNORES_CONDITION = "ignores-condition"
    NARROW = "narrow"
    UNREAL = "unlike-real-images"
    BLURRED = "blurred"
    NOISY = "noisy"
    OUT_OF_RANGE = "out-of-range"


class SampleVerdict(Config):
    """One fault and its sentence."""

    code: SampleFault
    sentence: str


class ImageQuality(Config):
    """What the judge measured; everything but the counts is worth reading only beside its real-against-real number.

    Attributes:
        samples, real, real_patients, train, train_patients: counts.
        equal_n: number of images on either side of FID, precision and recall.
        network_edge: pixels per edge that the network saw.
        kid, floor_kid: of samples against real images, with a bootstrap interval over patients and samples; of two
            patient-disjoint halves of the real images, mean and range over splits.
        fid, floor_fid: at equal n, against a half of the real images; means over splits.
        precision, recall, floor_precision, floor_recall: likewise.
        realism, floor_realism: likewise; precision without the balls that are larger than the median.
        ms_ssim, ms_ssim_real: mean multi-scale SSIM of pairs within a class; lower is more diverse.
        spread: difference of pairs within a class, coarsely, over that of real images.
        distinct, distinct_real: share of distinct images among equally many.
        sharpness: over that of real images.
        outside: share of the pixels far outside the range of the real images.
        held_out_copies: share of the samples that are exactly a held-out real image.
        memorisation: distances to the training images.
        classes: of the samples by a classifier trained on real images; None without classes.
        seconds_per_image, steps: of the sampler, as given.
        verdicts: faults by name.
        notes: what is wrong with the real images.
    """

    samples: int
    real: int
    real_patients: int
    train: int
    train_patients: int
    equal_n: int
    network_edge: int
    kid: Estimate
    floor_kid: Estimate
    fid: float
    floor_fid: float
    precision: float
    floor_precision: float
    recall: float
    floor_recall: float
    realism: float
    floor_realism: float
    ms_ssim: float | None
    ms_ssim_real: float | None
    spread: float | None
    distinct: float
    distinct_real: float
    sharpness: float
    outside: float
    held_out_copies: float
    memorisation: Memorisation
    classes: ClassAgreement | None = None
    seconds_per_image: float | None = None
    steps: int | None = None
    verdicts: tuple[SampleVerdict, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """Return it as JSON, from which `ImageQuality.model_validate_json` reads it."""
        return json.dumps(self.model_dump(mode="json"), allow_nan=False, indent=2)

    def row(self) -> dict[str, str]:
        """Return the cells of its line in a table, by the name of the column."""
        classes, memory = self.classes, self.memorisation
        agreement = classes.agreement if classes else None
        return {
            "KID": self.kid.text(),
            "FID": f"{self.fid:.1f}",
            "precision": f"{self.precision:.2f}",
            "recall": f"{self.recall:.2f}",
            "MS-SSIM": _text(self.ms_ssim),
            "nearest training patient": f"{memory.nearest:.2f}",
            "copied": f"{memory.copied.value:.1%}",
            "nearer": memory.nearer.text(2) if memory.nearer else "",
            "class agreement": agreement.text(2) if agreement else "",
            "seconds per image": "" if self.seconds_per_image is None else duration(self.seconds_per_image),
            "steps": "" if self.steps is None else str(self.steps),
            "faults": ", ".join(dict.fromkeys(verdict.code for verdict in self.verdicts)),
        }

    def floor_row(self) -> dict[str, str]:
        """Return the cells of the line of real images against real images."""
        classes, memory = self.classes, self.memorisation
        return self.row() | {
            "KID": self.floor_kid.text(),
            "FID": f"{self.floor_fid:.1f}",
            "precision": f"{self.floor_precision:.2f}",
            "recall": f"{self.floor_recall:.2f}",
            "MS-SSIM": _text(self.ms_ssim_real),
            "nearest training patient": f"{memory.nearest_real:.2f}",
            "copied": f"{memory.copied_real:.1%}",
            "nearer": "0.50" if memory.nearer else "",
            "class agreement": classes.real_accuracy.text(2) if classes else "",
            "seconds per image": "",
            "steps": "",
            "faults": "",
        }

    def numbers(self) -> dict[str, float]:
        """Return its numbers by name, for MLflow; numbers that were not measured are missing."""
        agreement = self.classes.agreement if self.classes else None
        values = {
            "kid": self.kid.value,
            "kid_low": self.kid.low,
            "kid_high": self.kid.high,
            "floor_kid": self.floor_kid.value,
            "copied": self.memorisation.copied.value,
            "copied_real": self.memorisation.copied_real,
            "nearer": self.memorisation.nearer.value if self.memorisation.nearer else None,
            "nearest": self.memorisation.nearest,
            "nearest_real": self.memorisation.nearest_real,
            "class_agreement": agreement.value if agreement else None,
            **{name: value for name, value in self if isinstance(value, float)},
        }
        return {name: float(value) for name, value in values.items() if value is not None}


def duration(seconds: float) -> str:
    """Return seconds with three decimals, or with two digits where these would be 0: 0.00011."""
    return f"{seconds:.3f}" if seconds >= 0.01 else f"{seconds:.2g}"


def _text(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"

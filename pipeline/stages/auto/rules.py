"""Rules by which a route's detector is chosen: pure functions, facts in, one choice and its reason in words out.

No rule reads a label of disease. Which data informed a default is said in docs/how-to/auto.md, and where a figure is
published, the rules that its data informed are named.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import TooFewNormals
from pipeline.stages.auto.members import FROZEN
from pipeline.stages.auto.scan_facts import Facts, People
from pipeline.stages.run.auto_config import Reconstructor

LEAST_PATIENTS = 24  # normal patients: half of them train, and calibration needs a handful
MANY_PATIENTS = 300  # from here on a twentieth of the normals is enough to test on
LEAST_TRAIN, LEAST_VALIDATE, LEAST_UNITS = 12, 10, 4
FULL_FRAME = 0.85  # foreground share from which no air surrounds the body
SYMMETRIC, MARGIN = 0.4, 0.1  # least likeness of an image and its mirror image, and by how much it exceeds a stranger's
DEPTHS = (2, 3)  # stages of the frozen network: textures and small shapes
FEATURE_EDGE = 64  # pixels that the frozen network needs for a grid of eight cells
ALIKE = 0.8  # likeness of neighbouring slices from which their maps are averaged
ENOUGH_SLICES = 200  # training slices from which codes on every level are learned
SMALL = 48  # pixels: below, four halvings leave a code too little to hold
FEW_PATIENTS_SETS = {"train": 0.45, "validate": 0.15, "calibrate": 0.3, "develop": 0.1}
MIXED_SETS = {"train": 0.45, "validate": 0.1, "calibrate": 0.2, "develop": 0.25}
WINDOWS = {"HEAD": (40, 80), "BRAIN": (40, 80)}  # HU: centre, width, by BodyPartExamined
SOFT_TISSUE = (40, 400)
ALPHAS = (0.05, 0.1, 0.2)  # false-positive rates to offer, the first that the calibration allows


@dataclass(frozen=True, slots=True)
class Choice:
    """One decision: its name, its value (JSON), and a sentence with the fact that decided it."""

    what: str
    value: Any
    why: str

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def choose_sets(people: People) -> Choice:
    """Choose who gives the normals, and how patients are divided: `splits` and `unit` of a run.

    Raises:
        TooFewNormals: too few patients, whichever are counted.
    """
    others = {"develop": 1.0}
    if people.normal >= LEAST_PATIENTS:
        many = people.normal >= MANY_PATIENTS
        splits = {} if many else {"normals": FEW_PATIENTS_SETS, "others": others}
        shares = "the default shares" if many else "no share for a gate or a test, as there are few"
        return Choice(
            "sets",
            {"unit": "study", "splits": splits},
            f"{people.normal} patients are normal throughout, so each is one case and p-values are exact; {shares}.",
        )
    both = people.normal + people.mixed
    if both < LEAST_PATIENTS:
        what = f"A detector chosen by auto (patients of the route with normal images; {people.normal} are all normal)"
        raise TooFewNormals(both, LEAST_PATIENTS, what)
    mixed: dict[str, Any] = {"normals": MIXED_SETS, "mixed": MIXED_SETS, "others": others, "mixed_patients": True}
    return Choice(
        "sets",
        {"unit": "slice", "splits": mixed},
        f"only {people.normal} patients are normal throughout, and {people.mixed} have normal and abnormal images: "
        "their normal images count one by one, and p-values have no guarantee.",
    )  # fmt: skip


def require_normals(train: int, validate: int, units: int) -> None:
    """Refuse sets of normals that are too small to train, to set z-scores or to calibrate.

    Raises:
        TooFewNormals: the first set that is too small, with its count and the least.
    """
    counts = ((train, LEAST_TRAIN, "Training (normal slices of the train set)"),
              (validate, LEAST_VALIDATE, "The weights of an ensemble (normal slices of the validate set)"),
              (units, LEAST_UNITS, "Calibration (cases of the calibrate set)"))  # fmt: skip
    for have, need, what in counts:
        if have < need:
            raise TooFewNormals(have, need, what)


def choose_size(facts: Facts) -> Choice:
    """Choose the edge of the square that images are scaled to, in pixels."""
    longest = max(facts.rows, facts.columns)
    size = 32 if longest < SMALL else 64 if longest < 112 else 128
    return Choice("image_size", size, f"images have {facts.rows} x {facts.columns} pixels.")


def choose_normaliser(facts: Facts, size: int) -> Choice:
    """Choose intensity range and body mask."""
    if facts.modality == "CT" and not facts.eight_bit:
        part = facts.body_part.upper()
        centre, width = WINDOWS.get(part, SOFT_TISSUE)
        body = {"method": "threshold", "threshold": -300, "smaller_parts": 0.25}
        value = {"kind": "ct_window", "centre": centre, "width": width, "body": body}
        why = f"CT is in Hounsfield units, and the body part is {part or 'not given'}: window {centre} / {width} HU."
    elif facts.modality == "MR":
        value, why = {"kind": "mr_percentile"}, "MR has no unit: percentiles of each series' own foreground."
    elif facts.modality == "US":
        steps = {"ultrasound": {"crop": True, "fill_marks": True}, "body": {"method": "frame", "flat_border": 0.005}}
        kind = ("fixed_range", 0, 255) if facts.eight_bit else ("range", 1, 99)
        value = {**dict(zip(("kind", "low", "high"), kind, strict=True)), **steps}
        why = "ultrasound is cropped to its fan, callipers and text are filled, and grey values are kept."
    elif facts.eight_bit:
        value = {"kind": "fixed_range", "low": 0, "high": 255, "body": _body(facts, 25.5)}
        why = "values have 8 bits, so that their range was fixed when the images were made, and is kept."
    else:
        value = {"kind": "range", "low": 1, "high": 99, "body": _body(facts, None)}
        why = "values have no unit: two percentiles of each image's own pixels."
    return Choice("normaliser", {**value, "image_size": size}, why)


def _body(facts: Facts, threshold: float | None) -> dict[str, Any]:
    if facts.projection or facts.foreground >= FULL_FRAME:
        return {"method": "frame"}
    parts = {"smaller_parts": 0.05, "closing": 0.03}
    return (
        {"method": "otsu", **parts} if threshold is None else {"method": "threshold", "threshold": threshold, **parts}
    )


def choose_mirror(facts: Facts) -> Choice:
    """Choose whether networks also see the mirrored image."""
    seen = facts.symmetry >= SYMMETRIC and facts.symmetry - facts.likeness >= MARGIN
    says = "says more about an image than another patient's does" if seen else "says little that another's does not"
    return Choice(
        "mirrored", seen,
        f"the mirrored image {says}: correlation {facts.symmetry:.2f}, with another normal image {facts.likeness:.2f}.",
    )  # fmt: skip


def choose_adjacent(facts: Facts) -> Choice:
    """Choose the weight of the maps of neighbouring slices: series are read slice by slice, with their neighbours."""
    if not facts.stacks or facts.adjacent is None:
        return Choice("adjacent", 0.0, f"series have {facts.slices_per_series} slices, so each is read alone.")
    weight = 1.0 if facts.adjacent >= ALIKE else 0.0
    how = "averaged over neighbours" if weight else "not averaged, as neighbours differ"
    return Choice(
        "adjacent", weight,
        f"series are stacks of {facts.slices_per_series} slices (neighbours correlate at {facts.adjacent:.2f}): they "
        f"are read slice by slice, and maps are {how}. For a model of cubes, see data.volumes.",
    )  # fmt: skip


def choose_reconstructor(facts: Facts, size: int, asked: Reconstructor | None) -> Choice:
    """Choose the method that repairs images."""
    if asked is not None:
        return Choice("reconstructor", asked, "the configuration names it.")
    if size < SMALL:
        return Choice("reconstructor", "gated_dae", f"at {size} pixels codes on five levels have too little to hold.")
    if facts.train < ENOUGH_SLICES:
        return Choice(
            "reconstructor", "gated_dae",
            f"{facts.train} training slices are too few to learn codes (from {ENOUGH_SLICES} on).",
        )  # fmt: skip
    return Choice(
        "reconstructor", "ladder_vae",
        f"{facts.train} training slices are enough for a code on every level, which keeps lesions out.",
    )  # fmt: skip


def choose_features(size: int) -> Choice:
    """Choose methods and network of the frozen features; small images are enlarged, for a grid of eight cells."""
    edge = None if size >= FEATURE_EDGE else FEATURE_EDGE
    return Choice(
        "features",
        {"methods": "knn_features and gaussian_features", "backbone": {"depths": DEPTHS, "input_size": edge}},
        "the two err on different images, one where a patch may come from anywhere, one by position; and shallow "
        "features read texture as well as shape.",
    )  # fmt: skip


def choose_score(facts: Facts) -> Choice:
    """Choose the share of the body's highest pixels whose mean is a slice's score: of a map of lesions, of features."""
    if facts.projection:
        return Choice(
            "score", {"lesions": 0.1, "features": 1.0},
            "in a projection disease lies over everything and is wide: the mean of the whole map of features.",
        )  # fmt: skip
    return Choice(
        "score", {"lesions": 0.02, "features": 0.1},
        "in a slice disease is a small part of the body: the mean of the map's highest pixels.",
    )  # fmt: skip


def choose_trust(facts: Facts) -> Choice:
    """Choose how far painted lesions stand for disease: factors of the members' measured weights.

    The two members of frozen features share one factor, 1.
    """
    frozen = dict.fromkeys(FROZEN, 1 / len(FROZEN))
    if facts.projection:
        return Choice(
            "trust", {"reconstructor": 0.25, "head": 0.1, **frozen},
            "disease in projections resembles painted lesions little, so features count most.",
        )  # fmt: skip
    return Choice(
        "trust", {"reconstructor": 1.0, "head": 1.0, **frozen},
        "lesions in slices resemble painted ones, so members count as they find those.",
    )  # fmt: skip


def choose_flagging(facts: Facts) -> Choice:
    """Choose the smallest usual false-positive rate that the calibration allows."""
    alpha = next((rate for rate in ALPHAS if rate * (facts.units + 1) >= 1), 1 / (facts.units + 1))
    return Choice("flagging", {"rule": "fpr", "alpha": round(alpha, 4)}, f"{facts.units} cases calibrate.")

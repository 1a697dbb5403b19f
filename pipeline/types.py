"""Values that travel between rooms: small, frozen, without behaviour beyond converting themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Label = Literal["normal", "abnormal", "unknown"]
SetName = Literal["train", "validate", "calibrate", "develop", "gate", "test"]
NORMAL_SETS: tuple[SetName, ...] = ("train", "validate", "calibrate")
LABELLED_SETS: tuple[SetName, ...] = ("develop", "gate", "test")
OPTIONAL = ("target", "condition", "findings")  # parts of a batch that every item of a data set has, or none


@dataclass(frozen=True, slots=True)
class Step:
    """One recorded operation on a scan's pixels; `params` is JSON and sufficient to undo or repeat the step."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dictionary for JSON."""
        return {"name": self.name, "params": dict(self.params)}


@dataclass(frozen=True, slots=True)
class Scan:
    """One series (or one projection image) in physical units.

    Attributes:
        pixels: float32 [C, D, H, W]; Hounsfield units for CT, modality units otherwise.
        valid: bool [D, H, W], False where the file declares padding; None when it declares none.
        spacing_mm: (z, y, x); None where the file does not give it.
        modality: DICOM (0008,0060).
        study_id, series_id, patient_id: pseudonyms, never identifiers.
        history: every step from stored values to `pixels`.
    """

    pixels: np.ndarray
    valid: np.ndarray | None
    spacing_mm: tuple[float | None, float | None, float | None]
    modality: str
    study_id: str
    series_id: str
    patient_id: str
    history: tuple[Step, ...] = ()


def stack_id(series_id: str, stack: str) -> str:
    """Return the id of a stack: the series where it is the only one."""
    return f"{series_id}/{stack}" if stack else series_id


@dataclass(frozen=True, slots=True)
class SliceRef:
    """One two-dimensional image in the catalogue: enough to fetch it, place it and judge it. Pseudonyms only.

    `relative_position` is 0..1 along the series (0.5 for a single image). `label` is the most specific label in effect
    (instance before series before study before patient), "unknown" where no level has one. `geometric_position` is the
    position in the files themselves, regardless of labels; None for a single image. `dismissed_flag`: the normal label
    rests only on a flag that a reader dismissed (`pipeline.data.labels.review_labels`). `slice_mm`: distance between
    the slices of the series, None where they are not a regular stack. `stack`: what tells its stack from the others of
    its series, "" where the series is one stack (`pipeline.dicom.decode.split_series`). `frame_of_reference_id`:
    positions of two slices can be compared only where both have the same (PS3.3 C.7.4.1); "" where the file has none.
    """

    instance_id: str
    frame: int
    series_id: str
    study_id: str
    patient_id: str
    pixel_key: str
    attributes: Mapping[str, Any]
    relative_position: float
    label: Label = "unknown"
    set_name: SetName | None = None
    mask_key: str | None = None
    image_is_subject: bool = False
    geometric_position: float | None = None
    dismissed_flag: bool = False
    slice_mm: float | None = None
    stack: str = ""
    frame_of_reference_id: str = ""

    @property
    def stack_id(self) -> str:
        """The series, or the stack within it: slices with the same one are loaded, normalised and scored together."""
        return stack_id(self.series_id, self.stack)

    @property
    def slice_id(self) -> str:
        """`instance_id/frame`: unique in the catalogue."""
        return f"{self.instance_id}/{self.frame}"

    @property
    def content_id(self) -> str:
        """`pixel_key/frame`: identifies the pixels whatever the pseudonyms; seeds the slice's randomness at scoring."""
        return f"{self.pixel_key}/{self.frame}"

    def scored(self, score: float) -> SliceScore:
        """Return the record of this slice's score."""
        return SliceScore(
            self.instance_id, self.frame, self.series_id, self.study_id, self.patient_id, score, self.stack
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Normalised slices (or cubes) on one grid; for a detector on volumes, all slices of one series in order.

    Attributes:
        images: float32 [B, C, *spatial] in [-1, 1].
        body: bool [B, 1, *spatial], True inside the body and inside the original frame (not in letterbox margins).
        ids: one id per item; at scoring it seeds the item's own randomness.
        about: what the files say about each item (`pipeline.data.images.conditions`), for conditional methods; else ().
        slice_mm: distance between neighbouring slices where the batch is a series; None where unknown or not a series.
        target: desired output for `images` in paired tasks: float32 [B, C', *spatial] in [-1, 1], on the same grid.
        condition: additional input of a conditional task, a row per image: [B, K, *spatial] (a mask, a second
            modality), [B, K] (a vector) or [B, L, K] (a text's embedding).
        findings: in training with unlabelled scans, a finding for each image to be pasted on it or on its neighbour:
            float32 [B, C + 1, *spatial], the image that it is in and its outline in [0, 1].
        held_out: whether these are validate normals, on which a method may be judged by another painter.
    """

    images: Tensor
    body: Tensor
    ids: tuple[str, ...]
    about: tuple[Mapping[str, Any], ...] = ()
    slice_mm: float | None = None
    target: Tensor | None = None
    condition: Tensor | None = None
    findings: Tensor | None = None
    held_out: bool = False

    def part(self, rows: slice) -> Batch:
        """Return some of the rows as a batch; their tensors are views."""
        optional: dict[str, Any] = {
            name: None if (one := getattr(self, name)) is None else one[rows] for name in OPTIONAL
        }
        return replace(
            self,
            images=self.images[rows],
            body=self.body[rows],
            ids=self.ids[rows],
            about=self.about[rows],
            **optional,
        )

    def to(self, device: torch.device | str, layout: torch.memory_format | None = None) -> Batch:
        """Return the batch with its tensors on a device, images and target in a memory format (None: as they are)."""
        kwargs: dict[str, Any] = {} if layout is None else {"memory_format": layout}
        return replace(
            self,
            images=self.images.to(device, **kwargs),
            body=self.body.to(device),
            target=None if self.target is None else self.target.to(device, **kwargs),
            condition=None if self.condition is None else self.condition.to(device),
            findings=None if self.findings is None else self.findings.to(device, **kwargs),
        )


@dataclass(frozen=True, slots=True)
class SliceResult:
    """A detector's answer for one slice; its arrays are on the model's grid, or on the slice's own (`Scorer.native`).

    Attributes:
        id: of the slice.
        score: raw, higher = more anomalous; NaN without a body.
        values: the anomaly map, float32 [H, W], higher = more anomalous, 0 outside the body; None if the method has no
            map.
        body: bool [H, W].
        reconstruction: float32 [H, W], in [-1, 1] on the model's grid, in physical units on the slice's own; None if
            the method has no reconstruction.
        history: the steps up to the model, the normaliser's last, which leads back to the slice's own grid; () if they
            were not recorded.
        members: z-scores of an ensemble's members; () for a single detector.
    """

    id: str
    score: float
    values: np.ndarray | None
    body: np.ndarray
    reconstruction: np.ndarray | None
    history: tuple[Step, ...] = ()
    members: tuple[float, ...] = ()

    def alone(self, slice_id: str) -> SliceResult:
        """Return the result under its id with copied arrays, so that keeping a slice does not keep the whole volume."""
        values, image = (None if item is None else item.copy() for item in (self.values, self.reconstruction))
        return replace(self, id=slice_id, values=values, body=self.body.copy(), reconstruction=image)


@dataclass(frozen=True, slots=True)
class SliceScore:
    """One slice's raw score: higher = more anomalous, never rescaled or clamped; `stack` as in `SliceRef`."""

    instance_id: str
    frame: int
    series_id: str
    study_id: str
    patient_id: str
    score: float
    stack: str = ""

    @property
    def stack_id(self) -> str:
        """As in `SliceRef`."""
        return stack_id(self.series_id, self.stack)


@dataclass(frozen=True, slots=True)
class Finding:
    """The result for one (study, route): the evidence of its slices and series, aggregated.

    Attributes:
        score: raw, higher = more anomalous.
        p_value: one-sided conformal p-value, None before calibration.
        n_calibration: number of normal units that the p-value rests on.
        guarantee: "conformal" when the units are independent patients, else "empirical, clustered, no guarantee".
        flagged: by `rule` (fpr, fdr or capacity), None before flagging.
        evidence: the slices, most anomalous first.
    """

    study_id: str
    patient_id: str
    route: str
    score: float
    p_value: float | None = None
    n_calibration: int = 0
    guarantee: str = ""
    flagged: bool | None = None
    rule: str = ""
    evidence: tuple[SliceScore, ...] = ()


@dataclass(frozen=True, slots=True)
class RunRef:
    """A run folder and the SHA-256 of its manifest, as stages and flows pass it on."""

    path: str
    sha256: str

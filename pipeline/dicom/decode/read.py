"""Read one DICOM file in this process: raw identity, allow-listed attributes and stored values.

`pipeline.dicom.intake.sandbox` does the same in a worker process that may die; use it for files from outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import UID

from pipeline.dicom.decode.attributes import InstanceAttributes, RawIdentity
from pipeline.dicom.decode.fields import has, read_text
from pipeline.dicom.decode.header import read_attributes, read_identity
from pipeline.dicom.decode.own_objects import ANY_CAPTURE, made_here, refuse_own
from pipeline.dicom.decode.own_pictures import is_stamped
from pipeline.dicom.decode.payload import PIXEL_KEYWORDS
from pipeline.dicom.decode.pixels import decode
from pipeline.dicom.decode.plausible import check_values
from pipeline.dicom.decode.source import guard, open_dataset, quietly
from pipeline.dicom.decode.vendors import PERHAPS_LOSSY_SYNTAXES
from pipeline.dicom.decode.waveform import decode_waveforms, has_waveform
from pipeline.errors import Rejected, RejectionCode
from pipeline.types import Step

if TYPE_CHECKING:
    from pipeline.config import DecodeLimits


@dataclass(frozen=True, slots=True)
class DecodedInstance:
    """One SOP instance.

    Attributes:
        identity: the identifiers as written in the file; PHI.
        attributes: the allow-listed attributes, with the photometric and bits of `stored`.
        stored: [F, H, W], the smallest integer type for BitsStored; float32 or float64 for (Double) Float Pixel Data;
            of a signal, [groups, channels, samples].
        history: every step from the file to `stored`.
    """

    identity: RawIdentity
    attributes: InstanceAttributes
    stored: np.ndarray
    history: tuple[Step, ...]


def read_instance(path: Path, limits: DecodeLimits) -> DecodedInstance:
    """Read and decode one file. The file is not changed.

    Raises:
        Rejected: for any content that cannot be read within `limits`; no other exception is raised.
    """
    with guard(RejectionCode.CORRUPT_HEADER), quietly():
        ds, syntax, deduced, assumed = open_dataset(Path(path), limits)
        _require_image(ds, with_pixels=True)
        identity = read_identity(ds)
        attributes = read_attributes(ds, str(syntax)).assuming(*assumed)
        first = [Step("assume-transfer-syntax", {"transfer_syntax": str(syntax)})] if deduced else []
    with guard(RejectionCode.DECODE_FAILED), quietly():
        if has_waveform(ds):
            stored, steps = decode_waveforms(ds, syntax, limits)
        else:
            stored, attributes, steps = decode(ds, attributes, syntax, limits)
            _refuse_own_picture(stored, attributes)
            attributes = check_values(stored, attributes)
    first += [Step("assume", {"deviations": list(attributes.assumed)})] if attributes.assumed else []
    return DecodedInstance(identity, attributes, stored, (*first, *steps))


def read_header(path: Path, limits: DecodeLimits) -> tuple[RawIdentity, InstanceAttributes]:
    """Read identity and attributes without pixels; photometric and bits are as in the file.

    Raises:
        Rejected: as `read_instance`, except for faults that only show in the pixels.
    """
    with guard(RejectionCode.CORRUPT_HEADER), quietly():
        ds, syntax, *_ = open_dataset(Path(path), limits, header_only=True)
        _require_image(ds, with_pixels=False)
        return read_identity(ds), read_attributes(ds, str(syntax))


def _refuse_own_picture(stored: np.ndarray, attributes: InstanceAttributes) -> None:
    lost = attributes.lossy or attributes.transfer_syntax_uid in PERHAPS_LOSSY_SYNTAXES
    lossy = lost and attributes.sop_class_uid.startswith(ANY_CAPTURE)
    if any(is_stamped(frame, lossy) for frame in stored):
        raise made_here("the stamp in its pixels")


def _require_image(ds: Dataset, with_pixels: bool) -> None:
    refuse_own(ds)
    has_pixels = has_waveform(ds) or any(has(ds, name) for name in PIXEL_KEYWORDS)
    if has_pixels or (not with_pixels and has(ds, "Rows")):
        return
    if has(ds, "Rows") or UID(read_text(ds, "SOPClassUID")).name.endswith("Image Storage"):
        raise Rejected(RejectionCode.NO_PIXEL_DATA, "The image has no pixel data. Export the complete object.")
    raise Rejected(
        RejectionCode.NOT_AN_IMAGE,
        "The object is neither an image nor a signal but a report, plan, index or the like. No action is needed.",
    )

"""Policy for text burned into pixels, Burned In Annotation (0028,0301), PS3.3 C.7.6.1: what to ingest, what to show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pipeline.errors import Rejected, RejectionCode

if TYPE_CHECKING:
    from pipeline.dicom.decode.attributes import InstanceAttributes

BurnedInPolicy = Literal["reject", "no-figures", "accept"]
# Scanners of these modalities write text into pixels only on secondary captures. For all others a missing
# BurnedInAnnotation proves nothing.
_TEXT_FREE = frozenset({"CT", "MR", "PT", "NM", "CR", "DX", "MG"})


def check_burned_in(attributes: InstanceAttributes, policy: BurnedInPolicy) -> None:
    """Refuse an instance that declares burned-in text where the policy is "reject".

    Raises:
        Rejected: with `BURNED_IN_TEXT`.
    """
    if policy == "reject" and attributes.burned_in:
        raise Rejected(
            RejectionCode.BURNED_IN_TEXT,
            "Burned In Annotation (0028,0301) is YES, and the policy `burned_in: reject` keeps such images out. "
            "Remove the text at its source, or choose the policy `no-figures`.",
        )


def figures_allowed(attributes: InstanceAttributes, policy: BurnedInPolicy) -> bool:
    """Whether a picture of this instance may leave the pixel store.

    A signal has no picture: it is drawn as a strip (`pipeline.review.ecg_strip`). Under "accept" every picture may.
    Otherwise a declared NO allows it and a declared YES forbids it. Where the attribute is absent, only modalities
    that write no text into primary images are allowed: not secondary captures (Conversion Type present or ImageType
    SECONDARY), ultrasound, endoscopy, fluoroscopy or unknown modalities.
    """
    if attributes.waveforms:
        return False
    if policy == "accept":
        return True
    if attributes.burned_in is not None:
        return not attributes.burned_in
    secondary = bool(attributes.conversion_type) or "SECONDARY" in attributes.image_type
    return attributes.modality in _TEXT_FREE and not secondary

"""Text burned into pixels, Burned In Annotation (0028,0301), PS3.3 C.7.6.1: what may be ingested, what may be shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pipeline.errors import Rejected, RejectionCode

if TYPE_CHECKING:
    from pipeline.dicom.decode.attributes import InstanceAttributes

BurnedInPolicy = Literal["reject", "no-figures", "accept"]
# Acquired by scanners that write text into pixels only on secondary captures; elsewhere silence proves nothing.
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
    """Say whether a picture of this instance may leave the pixel store.

    Under "accept" every one may. Else a declared NO may, a declared YES may not, and an instance that is silent may
    only where its modality writes no text into primary images: not for secondary captures (Conversion Type present
    or ImageType SECONDARY), ultrasound, endoscopy, fluoroscopy or anything unknown.
    """
    if policy == "accept":
        return True
    if attributes.burned_in is not None:
        return not attributes.burned_in
    secondary = bool(attributes.conversion_type) or "SECONDARY" in attributes.image_type
    return attributes.modality in _TEXT_FREE and not secondary

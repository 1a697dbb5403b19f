"""Objects that Nightread made, and synthetic images of any origin, are recognised and never enter the catalogue.

A picture of a flagged scan that comes back from the PACS would tell a reader what was flagged, and a generated image
that entered a training set would teach a model its own mistakes.
"""

from __future__ import annotations

from pydicom.dataset import Dataset

from pipeline.dicom.decode.fields import read_items, read_text
from pipeline.errors import Rejected, RejectionCode

MANUFACTURER = "Nightread"  # (0008,0070) of everything that Nightread makes, except wrapped images and phantoms


def refuse_own(ds: Dataset) -> None:
    """Refuse a synthetic image and an object that Nightread made.

    Raises:
        Rejected: SYNTHETIC, Synthetic Data (0008,001C) is YES (PS3.3 C.12.1); MADE_HERE, Nightread is the manufacturer,
            or contributed to the image as such (PS3.3 C.12.1, Contributing Equipment Sequence).
    """
    if read_text(ds, "SyntheticData").strip().upper() == "YES":
        raise Rejected(
            RejectionCode.SYNTHETIC,
            "Synthetic Data (0008,001C) is YES: the image was generated, and shows no patient. Remove it from the "
            "folder; synthetic images enter a training only by its configuration.",
        )
    if _names_us(ds) or any(_names_us(item) for item in read_items(ds, "ContributingEquipmentSequence")):
        raise Rejected(
            RejectionCode.MADE_HERE,
            "Nightread made this object itself, so it is a result and not a scan. No action is needed.",
        )


def _names_us(ds: Dataset) -> bool:
    """Return whether one of the names that we write is Nightread's, in any case: a gateway may rewrite one of them."""
    names = (read_text(ds, name).strip().casefold() for name in ("Manufacturer", "ManufacturerModelName"))
    title = read_text(ds, "SeriesDescription").strip().casefold()
    return MANUFACTURER.casefold() in names or title.startswith(f"{MANUFACTURER.casefold()}:")

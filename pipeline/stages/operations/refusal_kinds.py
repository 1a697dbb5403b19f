"""Kinds of refusals: the codes grouped by what was wrong, as a person who looks after the intake reads them."""

from __future__ import annotations

from pipeline.errors import RejectionCode as Code

KINDS: dict[str, tuple[Code, ...]] = {
    "Files that cannot be opened": (
        *(Code.EMPTY_FILE, Code.PERMISSION_DENIED, Code.SYMLINK, Code.NOT_A_FILE, Code.STILL_WRITING),
        *(Code.UNREADABLE, Code.FILE_TOO_LARGE),
    ),
    "Archives": (Code.ARCHIVE_PATH_TRAVERSAL, Code.ARCHIVE_BOMB, Code.ARCHIVE_UNREADABLE),
    "Files without an image": (*(Code.NOT_DICOM, Code.NO_PIXEL_DATA, Code.NOT_AN_IMAGE, Code.MANIFEST_ROW),),
    "Damaged or incomplete headers": (
        *(Code.CORRUPT_HEADER, Code.NESTED_TOO_DEEP, Code.MISSING_IDENTITY, Code.INVALID_UID),
        *(Code.MISSING_ATTRIBUTE,),
    ),
    "Images that do not belong here": (Code.SYNTHETIC, Code.MADE_HERE, Code.BURNED_IN_TEXT, Code.OUT_OF_DOMAIN),
    "Pixels that cannot be decoded": (
        *(Code.UNSUPPORTED_PIXELS, Code.UNSUPPORTED_TRANSFER_SYNTAX, Code.TRUNCATED_PIXELS, Code.FRAME_COUNT),
        *(Code.TOO_MANY_PIXELS, Code.DECOMPRESSION_BOMB, Code.DECODE_FAILED, Code.DECODE_TIMEOUT),
        *(Code.DECODE_MEMORY, Code.DECODER_CRASHED, Code.NON_FINITE, Code.SCORING_CRASHED),
    ),
    "Signals that cannot be read": (
        *(Code.NO_SAMPLING_FREQUENCY, Code.WAVEFORM_LENGTH, Code.UNSUPPORTED_WAVEFORM, Code.NO_UNIT),
        *(Code.MISSING_LEADS, Code.SIGNAL_TOO_SHORT),
    ),
    "Images without content": (Code.EMPTY_FOREGROUND, Code.NO_CONTRAST),
    "Contradicting identities": (Code.CONFLICTING_DUPLICATE, Code.DUPLICATE_ACROSS_SETS),
    "Patients whose data was erased": (Code.FORGOTTEN,),
    "Scans whose pixels were removed by retention": (Code.REMOVED,),
    "Series that are not one stack": (
        *(Code.MIXED_ORIENTATION, Code.MIXED_SIZES, Code.MIXED_SPACING, Code.IRREGULAR_SPACING),
        *(Code.MISSING_SLICES, Code.DUPLICATE_SLICES, Code.GANTRY_TILT, Code.NO_GEOMETRY, Code.NOT_A_VOLUME),
        *(Code.TOO_FEW_SLICES, Code.PARTLY_NORMAL),
    ),
}
_KIND = {code.value: kind for kind, codes in KINDS.items() for code in codes}
OTHER = "Other reasons"


def kind_of(code: str) -> str:
    """Return the kind of a code; a reason that is not a rejection code, such as that of a route, is another one."""
    return _KIND.get(code, OTHER)

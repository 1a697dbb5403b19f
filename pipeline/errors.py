"""Every error that Nightread raises on purpose, and every rejection code.

NightreadError                 exit code 1; the message gives what is wrong, the value, the rule and the next step
├── ConfigError        (2)     a setting, YAML file, override or command argument
├── Rejected           (3)     one file or series refused, with a RejectionCode; never stops a night
├── IdentityError      (4)     key file, crosswalk, pseudonyms
├── CatalogueError     (5)     database or pixel store
├── TooFewNormals      (6)     calibration needs more normals than there are
├── ArtefactError      (7)     a model or run folder is missing, altered or from another version
├── TrainingDiverged   (8)     NaN or infinity in a loss
├── EmptySelection     (9)     a query that must match scans matches none
├── SendError          (10)    a PACS did not accept or deliver what was requested
├── ReviewError        (11)    the reading list refuses a person's request
├── MachineError       (12)    the operating system refused: disk full, no permission, too many open files
└── UnforeseenError    (70)    a fault of the program, reported only by its type and place
"""

from __future__ import annotations

import errno
from enum import StrEnum
from pathlib import Path
from traceback import extract_tb

DEBUG = "NIGHTREAD_DEBUG"  # environment variable: show unforeseen errors in full, including any identifiers they quote


class NightreadError(Exception):
    """Base of every error raised on purpose; `exit_code` is what the command line returns."""

    exit_code = 1


class ConfigError(NightreadError):
    """A setting, YAML file, override or argument is wrong."""

    exit_code = 2


class RejectionCode(StrEnum):
    """Reason for refusing a file, instance or series. The value is stored in the catalogue and is never renamed."""

    # the file itself
    EMPTY_FILE = "empty-file"
    NOT_DICOM = "not-dicom"
    PERMISSION_DENIED = "permission-denied"
    SYMLINK = "symlink"
    NOT_A_FILE = "not-a-regular-file"
    STILL_WRITING = "still-being-written"
    UNREADABLE = "unreadable"
    FILE_TOO_LARGE = "file-too-large"
    ARCHIVE_PATH_TRAVERSAL = "archive-path-traversal"
    ARCHIVE_BOMB = "archive-bomb"
    ARCHIVE_UNREADABLE = "archive-unreadable"
    # the data set
    CORRUPT_HEADER = "corrupt-header"
    NESTED_TOO_DEEP = "nested-too-deep"
    MISSING_IDENTITY = "missing-identity"
    INVALID_UID = "invalid-uid"
    MISSING_ATTRIBUTE = "missing-attribute"
    NO_PIXEL_DATA = "no-pixel-data"
    NOT_AN_IMAGE = "not-an-image"
    SYNTHETIC = "synthetic-image"
    MADE_HERE = "made-by-nightread"
    UNSUPPORTED_PIXELS = "unsupported-pixel-format"
    UNSUPPORTED_TRANSFER_SYNTAX = "unsupported-transfer-syntax"
    BURNED_IN_TEXT = "burned-in-text"
    # decoding
    TRUNCATED_PIXELS = "truncated-pixel-data"
    FRAME_COUNT = "frame-count-mismatch"
    TOO_MANY_PIXELS = "too-many-pixels"
    DECOMPRESSION_BOMB = "decompression-bomb"
    DECODE_FAILED = "decode-failed"
    DECODE_TIMEOUT = "decode-timeout"
    DECODE_MEMORY = "decode-memory"
    DECODER_CRASHED = "decoder-crashed"
    NON_FINITE = "non-finite-pixels"
    NO_SAMPLING_FREQUENCY = "no-sampling-frequency"
    WAVEFORM_LENGTH = "waveform-length-mismatch"
    UNSUPPORTED_WAVEFORM = "unsupported-waveform-format"
    # normalisation
    EMPTY_FOREGROUND = "empty-foreground"
    NO_CONTRAST = "no-contrast"
    NO_UNIT = "no-physical-unit"
    MISSING_LEADS = "missing-leads"
    SIGNAL_TOO_SHORT = "signal-too-short"
    # wrapping
    MANIFEST_ROW = "bad-manifest-row"
    # identity in the catalogue
    CONFLICTING_DUPLICATE = "conflicting-duplicate"
    DUPLICATE_ACROSS_SETS = "duplicate-across-sets"
    FORGOTTEN = "patient-forgotten"
    REMOVED = "removed-by-retention"
    # series to volume
    MIXED_ORIENTATION = "mixed-orientation"
    MIXED_SIZES = "mixed-sizes"
    MIXED_SPACING = "mixed-pixel-spacing"
    IRREGULAR_SPACING = "irregular-slice-spacing"
    MISSING_SLICES = "missing-slices"
    DUPLICATE_SLICES = "duplicate-slices"
    GANTRY_TILT = "gantry-tilt"
    NO_GEOMETRY = "no-geometry"
    NOT_A_VOLUME = "not-a-volume"
    TOO_FEW_SLICES = "too-few-slices"
    PARTLY_NORMAL = "partly-normal"
    # before scoring
    OUT_OF_DOMAIN = "out-of-domain"
    # during scoring
    SCORING_CRASHED = "scoring-crashed"


class Rejected(NightreadError):
    """One file, instance or series is refused. `sentence` gives the value and the rule, and holds no PHI.

    Args:
        code: the stable reason.
        sentence: one sentence for a person: the value, the rule, and what to do.
    """

    exit_code = 3

    def __init__(self, code: RejectionCode, sentence: str) -> None:
        super().__init__(f"{code.value}: {sentence}")
        self.code = code
        self.sentence = sentence

    def __reduce__(self) -> tuple[type[Rejected], tuple[RejectionCode, str]]:
        """Survive pickling between processes: the default would pass only the joined message."""
        return type(self), (self.code, self.sentence)


class IdentityError(NightreadError):
    """Key file, crosswalk or pseudonyms cannot be used as they are; `passing` says whether trying again may help."""

    exit_code = 4
    passing = False


class CatalogueError(NightreadError):
    """The database or the pixel store cannot be used, or contradicts itself."""

    exit_code = 5


class TooFewNormals(NightreadError):
    """Calibration cannot give what was requested with so few normal units.

    Args:
        have: number of calibration units available.
        need: smallest number that would be enough.
        what: the request, e.g. "a threshold at 1 % false positives".
    """

    exit_code = 6

    def __init__(self, have: int, need: int, what: str) -> None:
        super().__init__(
            f"{what} needs at least {need} independent normal units, and only {have} are available. "
            "Label more normal patients, or request a higher false-positive rate."
        )
        self.have, self.need, self.what = have, need, what

    def __reduce__(self) -> tuple[type[TooFewNormals], tuple[int, int, str]]:
        """Keep the three numbers when the error crosses a process boundary."""
        return type(self), (self.have, self.need, self.what)


class ArtefactError(NightreadError):
    """A model or run folder is missing, altered, or written by an incompatible version."""

    exit_code = 7


class TrainingDiverged(NightreadError):
    """A loss became NaN or infinite; the last good checkpoint remains."""

    exit_code = 8


class EmptySelection(NightreadError):
    """A query that must match scans matches none."""

    exit_code = 9


class SendError(NightreadError):
    """A PACS did not accept, or deliver, what was requested. Holds no identifier.

    Args:
        reason: the request and the answer.
        passing: whether trying again may help.
    """

    exit_code = 10

    def __init__(self, reason: str, passing: bool) -> None:
        super().__init__(reason)
        self.passing = passing

    def __reduce__(self) -> tuple[type[SendError], tuple[str, bool]]:
        """Keep both values when the error crosses a process boundary."""
        return type(self), (str(self), self.passing)


class ReviewError(NightreadError):
    """The reading list refuses a person's request; the sentence may be shown and holds no identifier."""

    exit_code = 11


class PromotionRefused(NightreadError):
    """A model may not become its route's champion, or not without a person's approval."""

    exit_code = 13


_STEPS = {
    errno.ENOSPC: "Free disk space, then repeat the command; it goes on where it stopped",
    errno.EDQUOT: "Free disk space or raise the quota, then repeat the command; it goes on where it stopped",
    errno.EACCES: "Run as the user that owns the files, or give this user access with chmod or chown",
    errno.EPERM: "Run as the user that owns the files, or give this user access with chmod or chown",
    errno.EROFS: "Make the file system writable, or copy the workspace to one that is",
    errno.EMFILE: "Raise the limit on open files with ulimit -n",
    errno.EIO: "Check the disk, and restore the workspace from a backup if it is damaged",
}
_NAMED_BY_OTHERS = ("inbox", "outbox")  # parts of a workspace whose file names may identify a patient


class MachineError(NightreadError):
    """The operating system refused something that no change of the program would allow."""

    exit_code = 12

    @classmethod
    def of(cls, error: OSError, workspace: Path | None = None) -> MachineError:
        """Return the error with its reason, and with its path if that is in the workspace and our own."""
        place = _own_path(error.filename, workspace)
        return cls(f"{place}{error.strerror}. {_STEPS[error.errno or 0]}.")


def _own_path(name: object, workspace: Path | None) -> str:
    if workspace is None or not isinstance(name, str):
        return ""
    path, whole = Path(name).resolve(), workspace.resolve()
    if not path.is_relative_to(whole):
        return ""
    inside = path.relative_to(whole)
    return "" if inside.parts[:1] and inside.parts[0] in _NAMED_BY_OTHERS else f"{inside} in the workspace: "


def to_own_error(error: BaseException, workspace: Path | None = None) -> NightreadError:
    """Return the error to show in place of any exception; one of our own is returned as it is."""
    if isinstance(error, NightreadError):
        return error
    if isinstance(error, OSError) and error.errno in _STEPS:
        return MachineError.of(error, workspace)
    return UnforeseenError.of(error)


class UnforeseenError(NightreadError):
    """An error that nobody foresaw. Its own message may quote PHI, so only its type and place are reported."""

    exit_code = 70

    @classmethod
    def of(cls, error: BaseException) -> UnforeseenError:
        """Return the error to show in place of any other exception."""
        frames = [f for f in extract_tb(error.__traceback__) if "pipeline" in Path(f.filename).parts]
        place = f"{'/'.join(Path(frames[-1].filename).parts[-2:])}:{frames[-1].lineno}" if frames else "a library"
        return cls(f"{type(error).__name__} at {place}. This is a fault in Nightread; please report it.")

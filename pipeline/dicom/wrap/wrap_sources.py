"""Read the images that `nightread wrap` accepts (PNG, JPEG, TIFF, NIfTI, npy, npz), each as an array of frames.

Nothing is scaled here. Colour becomes luminance (ITU-R BT.601, as Pillow computes it), an image whose orientation tag
turns it is turned upright, and a note records either. `wrap_pictures` reads what Pillow opens.
"""

from __future__ import annotations

import os
import re
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.source import guard
from pipeline.dicom.wrap.wrap_geometry import FrameGeometry
from pipeline.dicom.wrap.wrap_manifest import bad_row
from pipeline.dicom.wrap.wrap_pictures import Picture, read_pages, to_grey, too_many
from pipeline.errors import Rejected, RejectionCode

_ADDRESS = re.compile(r"(?P<file>.+?)(?:::(?P<member>[^\[\]:]+))?(?:\[(?P<index>\d+)\])?")
_PICTURES = {".png", ".jpg", ".jpeg", ".tif", ".tiff"}


@dataclass(frozen=True, slots=True)
class Address:
    """A file and, where it holds several arrays, the member and index in it."""

    path: Path
    member: str
    index: int | None

    @classmethod
    def parse(cls, text: str, folder: Path) -> Address:
        """Read `file`, `file::member`, `file::member[index]` or `file[index]`, relative to `folder`.

        Raises:
            Rejected: the file lies outside `folder`. A downloaded manifest must not read other files of this machine.
        """
        match: Any = _ADDRESS.fullmatch(text)
        plain = folder / text
        whole = match is None or plain.is_file()
        path = plain if whole else folder / match["file"]
        if not Path(os.path.normpath(path)).is_relative_to(os.path.normpath(folder)):
            raise bad_row(
                "The file lies outside the folder of the manifest. Move the manifest to a folder above all its files."
            )
        if whole:
            return cls(plain, "", None)
        index = match["index"]
        return cls(path, match["member"] or "", None if index is None else int(index))


def read_picture(address: Address, limits: DecodeLimits) -> Picture:
    """Read one image or volume.

    Raises:
        Rejected: missing, unreadable, larger than `limits` allow, in an unsupported format, or not finite.
    """
    path = address.path
    if not path.is_file():
        raise Rejected(RejectionCode.UNREADABLE, "The file does not exist. Correct the row.")
    if path.stat().st_size > limits.file_bytes:
        raise Rejected(
            RejectionCode.FILE_TOO_LARGE,
            f"The file holds {path.stat().st_size} bytes, more than `decode.file_bytes` = {limits.file_bytes}. If it "
            "is genuine, raise that value in settings.yaml.",
        )
    with guard(RejectionCode.DECODE_FAILED):  # Pillow, nibabel and NumPy raise many types on damaged files
        picture = _read(address, limits)
    return _checked(picture)


def _read(address: Address, limits: DecodeLimits) -> Picture:
    name = address.path.name.lower()
    if name.endswith((".npz", ".npy")):
        return _from_array(_array(address, limits))
    if address.member or address.index is not None:
        raise bad_row("Only npz and npy files have members and indices. Give only the file name.")
    if name.endswith((".nii", ".nii.gz")):
        return _nifti(address.path, limits)
    if address.path.suffix.lower() in _PICTURES:
        return read_pages(address.path, limits)
    sentence = "The file is not a PNG, JPEG, TIFF, NIfTI, npy or npz file. Convert it to one of these."
    raise Rejected(RejectionCode.UNSUPPORTED_PIXELS, sentence)


def _checked(picture: Picture) -> Picture:
    frames = picture.frames
    if frames.size == 0 or max(frames.shape[1:]) > 65535:
        size = " x ".join(map(str, frames.shape[1:]))
        sentence = f"The image has {size} pixels; DICOM holds 1 to 65535 rows and columns. Crop or scale it."
        raise Rejected(RejectionCode.UNSUPPORTED_PIXELS, sentence)
    if frames.dtype.kind == "f" and not np.isfinite(frames).all():
        bad = int(frames.size - np.isfinite(frames).sum())
        sentence = (
            f"{bad} of {frames.size} pixels are NaN or infinite, but all must be finite. Replace them before wrapping."
        )
        raise Rejected(RejectionCode.NON_FINITE, sentence)
    return picture


def _nifti(path: Path, limits: DecodeLimits) -> Picture:
    """Return frames along the patient's axis, feet first, each seen from the feet (patient's right on the left)."""
    import nibabel
    from nibabel.orientations import OrientationError
    from nibabel.spatialimages import HeaderDataError

    try:
        return _seen_from_the_feet(nibabel.load(path), limits, path.stat().st_mtime)
    except (nibabel.filebasedimages.ImageFileError, HeaderDataError):
        sentence = "The file is not a NIfTI image, or it is damaged. Create it again."
        raise Rejected(RejectionCode.DECODE_FAILED, sentence) from None
    except (OrientationError, np.linalg.LinAlgError):
        sentence = "The affine of the NIfTI file gives an axis without direction. Correct its sform or qform."
        raise Rejected(RejectionCode.NO_GEOMETRY, sentence) from None


def _seen_from_the_feet(loaded: Any, limits: DecodeLimits, written: float) -> Picture:
    from nibabel import as_closest_canonical

    shape = loaded.shape[:3] if len(loaded.shape) > 3 and set(loaded.shape[3:]) == {1} else loaded.shape
    if len(shape) not in (2, 3) or loaded.get_data_dtype().kind not in "iuf":
        sentence = (
            f"The NIfTI image has the shape {loaded.shape} and holds {loaded.get_data_dtype()}; 2-D and 3-D images of "
            "real numbers are read. Split or convert it."
        )
        raise Rejected(RejectionCode.UNSUPPORTED_PIXELS, sentence)
    if int(np.prod(shape, dtype=np.int64)) * 8 > limits.decoded_bytes:
        raise too_many(limits)
    if len(shape) == 2:
        return Picture(np.ascontiguousarray(np.asanyarray(loaded.dataobj).reshape(shape)[::-1, ::-1].T)[None])
    canonical = as_closest_canonical(loaded)
    values = np.asanyarray(canonical.dataobj)
    values = values.reshape(values.shape[:3])
    frames, volume = np.ascontiguousarray(values[::-1, ::-1, :].transpose(2, 1, 0)), values.shape[2] > 1
    return Picture(
        frames, volume, geometry=FrameGeometry.of_nifti(loaded.header, canonical, written) if volume else None
    )


@lru_cache(maxsize=2)
def _loaded(path: Path, stamp: tuple[int, int], member: str, largest: int) -> np.ndarray:
    """Return one array of a file; two stay cached, because manifests address the same array row after row."""
    if path.suffix.lower() == ".npy":
        return np.load(path, mmap_mode="r", allow_pickle=False)
    with zipfile.ZipFile(path) as archive:
        sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in archive.infolist()}
    if member not in sizes:
        raise bad_row(f"The npz file does not have this member; it has {len(sizes)} others. Correct the row.")
    if sizes[member] > largest:
        sentence = (
            "The member is larger than `decode.decoded_bytes` allows. If it is genuine, raise it in settings.yaml."
        )
        raise Rejected(RejectionCode.TOO_MANY_PIXELS, sentence)
    with np.load(path, allow_pickle=False) as archive:
        return archive[member]


def _array(address: Address, limits: DecodeLimits) -> np.ndarray:
    status = address.path.stat()
    stamp = status.st_size, status.st_mtime_ns  # part of the cache key, so that a changed file is read again
    array = _loaded(address.path, stamp, address.member, limits.decoded_bytes)
    if address.index is None:
        return array
    if array.ndim == 0 or address.index >= len(array):
        raise bad_row("The index is beyond the end of the array. Correct the row.")
    return array[address.index]


def _from_array(array: np.ndarray) -> Picture:
    if array.dtype.kind not in "biuf" or array.ndim not in (2, 3):
        sentence = (
            f"The array has {array.ndim} dimensions of kind {array.dtype.kind!r}; numbers [H, W], [H, W, 3] or "
            "[F, H, W] are needed. Select one image with an index."
        )
        raise Rejected(RejectionCode.UNSUPPORTED_PIXELS, sentence)
    array = np.array(array, np.uint8 if array.dtype.kind == "b" else array.dtype)
    if array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8:
        values, note = to_grey(Image.fromarray(np.ascontiguousarray(array)))
        return Picture(values[None], notes=(note,))
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    return Picture(array[None] if array.ndim == 2 else array, volume=array.ndim == 3)

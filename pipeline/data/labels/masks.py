"""Lesion masks of a label table: read in bounded memory and checked against their instance."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from pipeline.errors import NightreadError

Shape = tuple[int, int, int]
_ONE_CHANNEL = {"1", "L", "P", "I", "I;16", "I;16B", "I;16L", "F"}


class MaskRefused(NightreadError):
    """A mask file cannot be used; the message names neither the file nor the patient."""


def read_mask(table: Path, name: str, shape: Shape) -> np.ndarray:
    """Return the mask as bool [F, H, W], True = lesion (any non-zero value).

    Args:
        table: the label table; masks must be in its folder or below.
        name: relative path, as in the table: PNG [H, W], npy or npz (its member `mask`, or its only one) [H, W] or
            [F, H, W].
        shape: (frames, rows, columns) of the instance. It is compared before any pixel is decoded.

    Raises:
        MaskRefused: the file is outside the folder, missing, unreadable, or has another type or shape.
    """
    path = _inside(table, name)
    readers = {".png": _png, ".npz": _npz, ".npy": _npy}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise MaskRefused("its mask must be a PNG, npz or npy file")
    try:
        return reader(path, shape) != 0
    except (OSError, ValueError, EOFError, SyntaxError, zipfile.BadZipFile, UnidentifiedImageError) as error:
        raise MaskRefused(f"its mask cannot be read ({type(error).__name__}); write it again") from None


def _inside(table: Path, name: str) -> Path:
    folder = table.absolute().parent.resolve()
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise MaskRefused("its mask is outside the folder of the label table; move it there")
    if not path.is_file():
        raise MaskRefused("its mask file does not exist; correct the path")
    return path


def _png(path: Path, shape: Shape) -> np.ndarray:
    with Image.open(path, formats=["PNG"]) as image:
        if image.mode not in _ONE_CHANNEL:
            raise MaskRefused(f"its mask has the colour mode {image.mode}; it must have one channel")
        _check((1, image.height, image.width), shape)
        return np.asarray(image)[np.newaxis]


def _npz(path: Path, shape: Shape) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        member = "mask.npy" if "mask.npy" in names else names[0] if len(names) == 1 else None
        if member is None:
            raise MaskRefused(f"its npz file has {len(names)} members, but no member `mask`")
        with archive.open(member) as file:
            return _array(file, shape)


def _npy(path: Path, shape: Shape) -> np.ndarray:
    with path.open("rb") as file:
        return _array(file, shape)


def _array(file: IO[bytes], shape: Shape) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    size, fortran, dtype = read_header(file)
    if dtype.hasobject or dtype.kind not in "buif":
        raise MaskRefused(f"its mask holds {dtype.kind!r} values; it must hold numbers")
    _check(size if len(size) == 3 else (1, *size), shape)
    data = file.read(int(np.prod(size)) * dtype.itemsize)
    values = np.frombuffer(data, dtype).reshape(size, order="F" if fortran else "C")
    return values.reshape(shape)


def _check(size: tuple[int, ...], shape: Shape) -> None:
    if tuple(size) != tuple(shape):
        raise MaskRefused(f"its mask is {list(size)} but its instance {list(shape)} (frames, rows, columns)")

"""Files that are still being written are recognised by watching them; a wrong clock keeps none out for years."""

from __future__ import annotations

import os
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from pipeline.config import DecodeLimits
from pipeline.dicom.decode.read import read_instance
from pipeline.dicom.decode.settled import is_changing
from pipeline.dicom.intake.find_files import discover
from pipeline.errors import Rejected, RejectionCode

YEARS = 3e8


@dataclass
class Times:
    """Stands for a stat result, whose change time no test can set."""

    st_mtime: float
    st_ctime: float


@pytest.mark.parametrize(
    ("modified", "changed", "settle", "changing"),
    [
        (-60, -60, 30, False),
        (-60, -1, 30, False),  # copied with its old time
        (-10, -10, 30, True),
        (YEARS, -60, 30, False),  # the scanner's clock is wrong, ours says that nothing happened for a minute
        (YEARS, -10, 30, True),  # longer to wait than a file is watched
        (YEARS, YEARS, 30, True),
        (YEARS, YEARS, 0, False),
        (-10, -10, 0, False),
    ],
)
def test_times(modified: float, changed: float, settle: float, changing: bool, tmp_path: Path) -> None:
    times = Times(time.time() + modified, time.time() + changed)
    assert is_changing(tmp_path, times, settle) is changing  # type: ignore[arg-type]


@pytest.mark.parametrize("settle", [0.0, 0.4])
def test_a_file_from_the_future_is_read_once_it_was_watched(
    settle: float, make_dataset: Callable[..., Dataset], write_dataset: Callable[..., Path]
) -> None:
    path = write_dataset(make_dataset(np.zeros((4, 4), np.uint8)))
    os.utime(path, (time.time() + YEARS,) * 2)
    assert read_instance(path, DecodeLimits(settle_seconds=settle)).stored.shape == (1, 4, 4)


def test_a_file_from_the_future_that_grows_is_still_being_written(
    make_dataset: Callable[..., Dataset], write_dataset: Callable[..., Path]
) -> None:
    path = write_dataset(make_dataset(np.zeros((4, 4), np.uint8)))
    stop = threading.Event()

    def grow() -> None:
        while not stop.wait(0.05):
            with path.open("ab") as file:
                file.write(b"\0\0")
            os.utime(path, (time.time() + YEARS,) * 2)

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        with pytest.raises(Rejected) as caught:
            time.sleep(0.2)
            read_instance(path, DecodeLimits(settle_seconds=1.0))
    finally:
        stop.set()
        writer.join()
    assert caught.value.code == RejectionCode.STILL_WRITING


def test_an_archive_from_the_future_is_opened(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("one.dcm", b"x" * 200)
    os.utime(tmp_path / "a.zip", (time.time() + YEARS,) * 2)
    names = [candidate.name.name for candidate in discover([tmp_path], DecodeLimits(settle_seconds=0.3))]
    assert names == ["one.dcm"]

"""A large scan is scored in memory that its grid decides: not the native pixels, not the number of cubes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# Prints the peak memory of a process in MiB before and after it scores `count` slices of 128 x 128.
SCRIPT = """
import re, sys, tempfile
from pathlib import Path
import numpy as np
from pipeline.data.images.dataset import SliceDataset
from pipeline.data.images.normalise import CTWindow, Normaliser
from pipeline.data.store.pixel_store import PixelStore
from pipeline.data.images.volume import VolumeConfig
from pipeline.detection.config import DetectionConfig
from pipeline.detection.detector import Detector
from pipeline.dicom.decode.attributes import InstanceAttributes
from pipeline.methods import parse_method
from pipeline.methods.stored_model import Model
from pipeline.types import SliceRef

count, at_once = int(sys.argv[1]), int(sys.argv[2])
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
known = InstanceAttributes(modality="CT", rows=128, columns=128, rescale=((1.0, -1024.0),)).to_json()
method = parse_method({"name": "ae", "widths": (8, 8), "hidden": 16, "latent": 4}).build(32, spatial_dims=3).eval()
config = DetectionConfig.model_validate({"residual": {"median": 3}, "tiles": {"overlap": 0.0, "at_once": at_once}})
detector = Detector(Model(method, Normaliser(CTWindow(image_size=128)), VolumeConfig()), config, "ct")
with tempfile.TemporaryDirectory() as folder:
    store = PixelStore(folder)
    keys = [store.put(np.full((1, 128, 128), 1064 + i, np.uint16)) for i in range(16)]
    refs = [SliceRef(f"i{i}", 0, "s", "t", "p", keys[i % 16], known, 0.5, slice_mm=1.0) for i in range(count)]
    data = SliceDataset(refs, store, detector.normaliser, "none", members={"s": refs}, whole=True)
    before = peak()
    assert sum(1 for _ in detector.score_slices(data)) == count
print(before, peak())
"""


def grown(count: int, at_once: int) -> float:
    """Return the number of MiB by which scoring raised the peak."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(count), str(at_once)], capture_output=True, text=True, check=True
    )
    before, after = map(float, done.stdout.split())
    return after - before


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
def test_memory_is_some_volumes_of_the_grid() -> None:
    more = 640 - 128
    volume = more * 128 * 128 * 4 / 2**20  # MiB
    long, short = grown(640, 4), grown(128, 4)
    print(f"\n640 slices of 128 x 128: {long:.0f} MiB, 128: {short:.0f} MiB; {(long - short) / volume:.1f} volumes")
    assert long - short < 8 * volume
    assert grown(640, 320) > long + volume  # so cubes that are not computed at once take no memory

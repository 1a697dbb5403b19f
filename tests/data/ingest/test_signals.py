"""Signals through ingest: pseudonyms, the pixel store and the catalogue treat them like images, and leak nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from sqlalchemy import select

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.data.catalogue.schema import Instance
from pipeline.data.images.load_slice import load_plane
from pipeline.data.images.normalise import Normaliser, SignalRange
from pipeline.data.ingest.ingest import ingest
from pipeline.data.sets.routes import Route
from pipeline.data.sets.selection import select_slices
from pipeline.data.store.pixel_store import PixelStore
from pipeline.dicom.phantom.waveform_folder import write_ecgs, write_speech

ROUTE = Route(name="ecg", modality=("ECG",))


def test_signals_are_catalogued_like_images(tmp_path: Path, settings: Settings) -> None:
    ecgs = write_ecgs(tmp_path / "in", 3, 0.34, 5, family="PLANTED")
    write_speech(tmp_path / "in", 1, 1, 5, family="PLANTED")
    assert (ingest([tmp_path / "in"], settings).added, ingest([tmp_path / "in"], settings).skipped) == (4, 4)
    store = PixelStore(settings.store)
    with Catalogue.open(settings) as catalogue:
        chosen = select_slices(catalogue, route="ecg", routes=[ROUTE])
        with catalogue.reading() as session:
            rows = session.scalars(select(Instance)).all()
    assert len(chosen.slices) == len(ecgs)
    assert sorted(row.attributes["modality"] for row in rows) == ["AU", "ECG", "ECG", "ECG"]
    by_samples = {one.signal.stored.tobytes(): one.signal for one in ecgs}
    for ref in chosen.slices:
        ecg = by_samples[store.get(ref.pixel_key)[0].tobytes()]
        plane = load_plane(store, ref)
        assert np.allclose(plane.pixels, ecg.stored * ecg.recorder.microvolts / 1000, atol=1e-6)
        assert Normaliser(SignalRange()).apply(plane).body.sum() == 12 * 1000
    written = [path for path in settings.workspace.rglob("*") if path.is_file() and "identity" not in path.parts]
    assert written
    assert not [path for path in written if b"PLANTED" in path.read_bytes()]

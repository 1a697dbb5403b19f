"""Folders of invented signals as DICOM Waveform objects, with their truth and a label table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from pipeline.dicom.phantom.ecg_model import LESIONS, EcgKind, PhantomEcg, make_ecg
from pipeline.dicom.phantom.folder import SEEDS_PER_FOLDER, choose_sick
from pipeline.dicom.phantom.formant_speech import Utterance, make_speaker, random_words, speak
from pipeline.dicom.phantom.objects import FIRST_DAY, Visit, encode
from pipeline.dicom.phantom.waveform_objects import make_audio_object, make_ecg_object
from pipeline.dicom.wrap.label_table import LabelTableRow, write_label_table
from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True)
class PhantomSignal:
    """One written recording; `repr` hides the identity."""

    path: Path = field(repr=False)
    study_uid: str = field(repr=False)
    sop_uid: str = field(repr=False)
    signal: PhantomEcg | Utterance = field(repr=False)
    index: int


def write_ecgs(
    folder: Path,
    n_patients: int,
    abnormal_fraction: float,
    seed: int,
    *,
    kinds: Sequence[EcgKind] = LESIONS,
    grades: Sequence[int] = (2, 3, 1),
    family: str = "PHANTOM",
) -> tuple[PhantomSignal, ...]:
    """Write one 12-lead ECG for each of `n_patients` invented people; kinds and grades rotate among the sick ones.

    Writing again with the same arguments writes the same bytes.

    Raises:
        ConfigError: a count or fraction is out of range.
    """
    if n_patients < 0 or not 0 <= abnormal_fraction <= 1 or not 0 <= seed < SEEDS_PER_FOLDER:
        raise ConfigError(
            f"Cannot write {n_patients} ECGs, {abnormal_fraction} of them abnormal, seed {seed}: the count must be 0 "
            f"or more, the share in 0..1 and the seed in 0..{SEEDS_PER_FOLDER - 1}."
        )
    sick, written = choose_sick(n_patients, abnormal_fraction, seed), []
    for index in range(n_patients):
        turn = sick.get(index)
        kind = EcgKind.SINUS if turn is None else kinds[turn % len(kinds)]
        grade = 2 if turn is None else grades[turn // len(kinds) % len(grades)]
        ecg = make_ecg(seed * SEEDS_PER_FOLDER + index, kind, grade)
        visit = _visit(family, f"ECG{seed * SEEDS_PER_FOLDER + index:09d}", index, f"{kind}/{grade}")
        written.append(_write(folder, make_ecg_object(ecg, visit), ecg, visit, index))
    return tuple(written)


def write_speech(
    folder: Path, speakers: int, utterances: int, seed: int, *, phonemes: int = 8, family: str = "PHANTOM"
) -> tuple[PhantomSignal, ...]:
    """Write utterances of several invented speakers as General Audio objects: a speaker is a patient, a study a day.

    Writing again with the same arguments writes the same bytes.
    """
    written = []
    for index in range(speakers * utterances):
        person, own = divmod(index, utterances)
        name = f"AU{seed * SEEDS_PER_FOLDER + person:09d}"
        words = random_words(np.random.default_rng([seed, 17, index]), phonemes)
        utterance = speak(make_speaker(seed * SEEDS_PER_FOLDER + person), words, seed * SEEDS_PER_FOLDER + index)
        visit = _visit(family, name, index, f"utterance {own}")
        written.append(_write(folder, make_audio_object(utterance, visit), utterance, visit, index))
    return tuple(written)


def write_ecg_labels(signals: Iterable[PhantomSignal], folder: Path) -> Path:
    """Write `labels.csv` (a `label_table`): a study is normal without a lesion, else abnormal; return its path."""
    rows = [
        LabelTableRow(
            "abnormal" if isinstance(one.signal, PhantomEcg) and one.signal.kind is not EcgKind.SINUS else "normal",
            StudyInstanceUID=one.study_uid,
            source="phantom",
            reader="phantom maker",
            date=(FIRST_DAY + timedelta(days=1)).isoformat(),
        )
        for one in signals
    ]
    return write_label_table(folder / "labels.csv", rows)


def _visit(family: str, code: str, index: int, content: str) -> Visit:
    number = f"{code[-9:]}{index % 1000:03d}"
    return Visit.plan(family, code, index, woman=bool(index % 2), number=number, content=f"{index}/{content}")


def _write(folder: Path, ds: Dataset, signal: PhantomEcg | Utterance, visit: Visit, index: int) -> PhantomSignal:
    place = folder / f"{str(ds.Modality).lower()}{index:05d}"
    place.mkdir(parents=True, exist_ok=True)
    path = place / "wave.dcm"
    path.write_bytes(encode(ds, ExplicitVRLittleEndian))
    return PhantomSignal(path, str(ds.StudyInstanceUID), str(ds.SOPInstanceUID), signal, index)

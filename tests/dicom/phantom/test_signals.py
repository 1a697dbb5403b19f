"""Invented ECGs and speech: their truth in closed form, and files that other programs read."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from scipy.signal import sosfreqz

from pipeline.dicom.decode.waveform import LEADS
from pipeline.dicom.phantom.ecg_model import (
    DOWER,
    LESIONS,
    EcgKind,
    heart_rate_series,
    make_ecg,
    to_electrodes,
    to_leads,
)
from pipeline.dicom.phantom.formant_speech import RATE_HZ, Speaker, make_speaker, random_words, resonator, speak
from pipeline.dicom.phantom.waveform_folder import write_ecg_labels, write_ecgs, write_speech


@pytest.mark.parametrize("kind", list(EcgKind))
def test_leads_obey_einthoven_and_goldberger(kind: EcgKind) -> None:
    leads = dict(zip(LEADS, make_ecg(4, kind).stored.astype(int), strict=True))
    assert np.abs(leads["I"] + leads["III"] - leads["II"]).max() <= 1  # each rounded by half a unit
    assert np.abs(leads["aVR"] + leads["aVL"] + leads["aVF"]).max() <= 1
    assert np.abs(leads["aVF"] - (leads["II"] + leads["III"]) / 2).max() <= 1


def test_leads_are_dowers_projection_of_the_dipole() -> None:
    dipole = np.array([[1.0], [2.0], [3.0]])
    leads = dict(zip(LEADS, to_leads(to_electrodes(DOWER @ dipole))[:, 0], strict=True))
    assert leads["I"] == pytest.approx(0.632 - 0.47 + 0.177)
    assert leads["V6"] == pytest.approx(0.831 + 0.152 + 0.69)


def test_a_raised_segment_is_the_projected_bump_and_nothing_else() -> None:
    well, ill = make_ecg(6), make_ecg(6, EcgKind.ST_ELEVATION, grade=2)
    assert well.beats == ill.beats
    times = np.arange(well.clean.shape[1]) / well.recorder.rate_hz
    bumps = sum(np.exp(-((times - beat.at - 0.115) ** 2) / (2 * 0.042**2)) for beat in ill.beats)
    change = ill.clean - well.clean
    scale = change @ bumps / (bumps @ bumps)  # millivolts of each lead
    inside = (times > 0.5) & (times < 9.5)
    assert np.abs(change - scale[:, None] * bumps)[:, inside].max() < 1e-9
    assert max(abs(scale)) > 0.1
    assert not well.lesion.any()
    assert 0.1 < ill.lesion.mean() < 0.3


def test_beats_are_where_the_truth_says() -> None:
    ecg = make_ecg(9)
    times = np.arange(ecg.clean.shape[1]) / ecg.recorder.rate_hz
    size = np.abs(ecg.clean[LEADS.index("V4")])
    highest = [
        times[np.abs(times - beat.at) < 0.15][size[np.abs(times - beat.at) < 0.15].argmax()] for beat in ecg.beats
    ]
    assert np.abs(np.array(highest) - [beat.at for beat in ecg.beats]).max() < 0.03


def test_rhythms_differ_as_they_must() -> None:
    def spread(kind: EcgKind) -> float:
        return float(np.mean([np.std(np.diff([beat.at for beat in make_ecg(seed, kind).beats])) for seed in range(8)]))

    assert spread(EcgKind.FIBRILLATION) > 3 * spread(EcgKind.SINUS)
    assert all(any(beat.premature for beat in make_ecg(seed, EcgKind.PREMATURE, 1).beats) for seed in range(20))
    assert not any(beat.premature for seed in range(5) for beat in make_ecg(seed).beats)


def test_heart_rate_varies_at_the_two_frequencies_of_mcsharry() -> None:
    frequencies, sizes, _ = heart_rate_series(np.random.default_rng(0))
    power = sizes**2 / 2
    assert power.sum() == pytest.approx(1)
    near = {centre: power[np.abs(frequencies - centre) < 0.03].sum() for centre in (0.1, 0.25)}
    assert near[0.25] / near[0.1] == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize(("hertz", "width"), [(500.0, 60.0), (2500.0, 150.0)])
def test_a_resonator_has_its_formant_and_bandwidth(hertz: float, width: float) -> None:
    frequencies, response = sosfreqz(resonator(hertz, width)[None], 2**15, fs=RATE_HZ)
    gain = np.abs(response)
    above = frequencies[gain > gain.max() / np.sqrt(2)]
    assert frequencies[gain.argmax()] == pytest.approx(hertz, rel=0.01)
    assert np.ptp(above) == pytest.approx(width, rel=0.05)
    assert gain[0] == pytest.approx(1)


def test_a_vowel_has_the_speakers_pitch_and_formants() -> None:
    speaker = Speaker("X", 120.0, 1.1, 0.0, 0.4, 0.1)
    first, last = speak(speaker, ("a", "i", "a"), 1).spoken[1][1:]
    sound = speak(speaker, ("a", "i", "a"), 1).sound[first + 1600 : last - 1600]
    lags = np.correlate(sound, sound, "full")[len(sound) - 1 :]
    period = 100 + lags[100:200].argmax()
    assert RATE_HZ / period == pytest.approx(120, rel=0.12)
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound)), 2**14))
    hertz = np.fft.rfftfreq(2**14, 1 / RATE_HZ)
    assert abs(hertz[hertz < 1000][spectrum[hertz < 1000].argmax()] - 270 * 1.1) < 80
    second = (hertz > 1500) & (hertz < 3000)
    assert abs(hertz[second][spectrum[second].argmax()] - 2290 * 1.1) < 150


def test_speakers_and_words_differ_and_repeat() -> None:
    assert make_speaker(1).tract > 1.05 > make_speaker(0).tract
    words = random_words(np.random.default_rng(3), 9)
    assert len(words) == 9
    assert all(one != other for one, other in zip(words, words[1:], strict=False))
    one, again = (speak(make_speaker(2), words, 5) for _ in range(2))
    assert np.array_equal(one.sound, again.sound)
    assert one.spoken[-1][2] == len(one.sound)


def test_other_programs_read_the_files(tmp_path: Path, dciodvfy: Callable) -> None:
    ecgs = write_ecgs(tmp_path / "ecg", 6, 0.5, 2)
    assert {one.path.parent.name: dciodvfy(one.path) for one in ecgs} == {one.path.parent.name: [] for one in ecgs}


def test_pydicom_reads_the_same_values(tmp_path: Path) -> None:
    (one,) = write_ecgs(tmp_path, 1, 0.0, 2)
    ds = pydicom.dcmread(one.path)
    assert np.allclose(ds.waveform_array(0).T, one.signal.stored * one.signal.recorder.microvolts)
    assert ds.WaveformSequence[0].SamplingFrequency == one.signal.recorder.rate_hz
    (spoken,) = write_speech(tmp_path, 1, 1, 3, phonemes=4)  # dciodvfy does not know General Audio
    sound = pydicom.dcmread(spoken.path).waveform_array(0)[:, 0]
    assert np.abs(sound / 32767 - spoken.signal.sound).max() < 1 / 32767


def test_a_folder_repeats_and_labels_itself(tmp_path: Path) -> None:
    first, again = (write_ecgs(tmp_path / name, 8, 0.5, 1) for name in ("a", "b"))
    assert [one.path.read_bytes() for one in first] == [one.path.read_bytes() for one in again]
    with write_ecg_labels(first, tmp_path).open() as file:
        labels = [row["label"] for row in csv.DictReader(file)]
    assert labels == ["normal" if one.signal.kind is EcgKind.SINUS else "abnormal" for one in first]
    assert {one.signal.kind for one in first} == {EcgKind.SINUS, *LESIONS}

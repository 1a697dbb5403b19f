"""`python -m pipeline.dicom.phantom.write_signals KIND FOLDER`: invented ECGs or speech, with labels and truth."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline import durable
from pipeline.dicom.phantom.ecg_model import PhantomEcg
from pipeline.dicom.phantom.formant_speech import RATE_HZ
from pipeline.dicom.phantom.waveform_folder import PhantomSignal, write_ecg_labels, write_ecgs, write_speech

ECGS, ABNORMAL = 440, 3 / 11
SPEAKERS, UTTERANCES, PHONEMES = 30, 12, 12  # longer than the 1.28 s that a model sees
SEED = 7


def main(arguments: list[str]) -> None:
    """Write `inbox/`, `labels.csv` and `truth.csv` of the kind `ecg` or `speech` into a folder.

    A seed and a number of ECGs may follow: other people, for more recordings in the same workspace.
    """
    if not 2 <= len(arguments) <= 4 or arguments[0] not in ("ecg", "speech"):
        print("Usage: python -m pipeline.dicom.phantom.write_signals ecg|speech FOLDER [SEED [ECGS]]", file=sys.stderr)
        raise SystemExit(2)
    kind, folder = arguments[0], Path(arguments[1])
    seed = int(arguments[2]) if len(arguments) > 2 else SEED
    inbox = folder / "inbox"
    if kind == "ecg":
        signals = write_ecgs(inbox, int(arguments[3]) if len(arguments) > 3 else ECGS, ABNORMAL, seed)
    else:
        signals = write_speech(inbox, SPEAKERS, UTTERANCES, seed, phonemes=PHONEMES)
    write_ecg_labels(signals, folder)
    write_truth(signals, folder / "truth.csv")
    print(f"{len(signals)} recordings: {inbox}, with {folder / 'labels.csv'} and {folder / 'truth.csv'}")


def write_truth(signals: Iterable[PhantomSignal], path: Path) -> Path:
    """Write what each stretch is, in seconds: the phonemes of speech, the rhythm or lesion of a whole ECG."""
    with durable.writing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["SOPInstanceUID", "first", "last", "unit"])
        for one in signals:
            writer.writerows(
                [one.sop_uid, f"{first:.4f}", f"{last:.4f}", unit] for first, last, unit in _stretches(one)
            )
    return path


def _stretches(one: PhantomSignal) -> Iterator[tuple[float, float, str]]:
    if isinstance(one.signal, PhantomEcg):
        yield 0.0, one.signal.stored.shape[1] / one.signal.recorder.rate_hz, one.signal.kind.value
        return
    for name, first, last in one.signal.spoken:
        yield first / RATE_HZ, last / RATE_HZ, name


if __name__ == "__main__":
    main(sys.argv[1:])

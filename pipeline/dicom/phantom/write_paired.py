"""`python -m pipeline.dicom.phantom.write_paired KIND FOLDER`: phantom heads as MR and CT, or on scanners A and B."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.dicom.phantom.folder import write_labels
from pipeline.dicom.phantom.pair_folder import write_pairs
from pipeline.dicom.phantom.pairs import SIDES

PATIENTS, SLICES, SIZE, ABNORMAL = 400, 3, 64, 0.3
SEED = 5


def main(arguments: list[str]) -> None:
    """Write `inbox/`, `labels.csv` and `masks/` of the kind `modalities` or `scanners` into a folder.

    A seed and a number of patients may follow: other people, for more scans in the same workspace.
    """
    numbers = arguments[2:]
    if not 2 <= len(arguments) <= 4 or arguments[0] not in SIDES or not all(map(str.isdigit, numbers)):
        usage = "Usage: python -m pipeline.dicom.phantom.write_paired modalities|scanners FOLDER [SEED [PATIENTS]]"
        print(usage, file=sys.stderr)
        raise SystemExit(2)
    folder = Path(arguments[1])
    seed, patients = (int(one) for one in (*numbers, *(str(SEED), str(PATIENTS))[len(numbers) :]))
    kind = next(one for one in SIDES if one == arguments[0])
    written = write_pairs(folder / "inbox", patients, kind, ABNORMAL, seed, size=SIZE, slices=SLICES)
    table = write_labels(written.studies, folder)
    print(f"{len(written.studies)} studies of {patients} patients: {folder / 'inbox'}, labels: {table}")


if __name__ == "__main__":
    main(sys.argv[1:])

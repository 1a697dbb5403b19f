"""The patients that a run learned from and was calibrated on, by pseudonym: `patients.json` in its folder.

A fingerprint of slices says whether data is the same, but not whose it is. An auditor asks for the patients' number and
hash, and an erasure must find the models that learned from one patient, years later and without the sets of then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pipeline.detection.detector_file import CALIBRATED, DETECTOR, UNCALIBRATED
from pipeline.errors import ArtefactError
from pipeline.stages.run.run_folder import RunFolder

if TYPE_CHECKING:
    from pipeline.data.sets.selection import Selection

FILE = "patients.json"


def record_patients(folder: RunFolder, sets: Mapping[str, Selection]) -> None:
    """Write down the patients of some sets of a run, beside those of other sets that were written before."""
    fresh = {str(name): sorted({ref.patient_id for ref in chosen.slices}) for name, chosen in sets.items()}
    folder.write(FILE, {**read_patients_of(folder), **fresh})


def read_patients_of(folder: RunFolder) -> dict[str, list[str]]:
    """Return the patients' pseudonyms by set, as of the training; {} where the run did not record them."""
    return {str(name): [str(one) for one in patients] for name, patients in _read(folder, FILE).items()}


def fingerprint_patients(patients: Collection[str]) -> dict[str, Any]:
    """Return the number of patients, and the SHA-256 of their sorted pseudonyms, one per line."""
    return {"patients": len(patients), "sha256": hashlib.sha256("\n".join(sorted(patients)).encode()).hexdigest()}


def list_runs_behind(folder: RunFolder) -> list[RunFolder]:
    """Return a run's folder and those of the runs whose models it uses: members, components, and what it rescores."""
    behind: dict[str, RunFolder] = {}
    waiting = [folder]
    while waiting:
        one = waiting.pop()
        if one.run_id not in behind and (one.path / "config.json").is_file():
            behind[one.run_id] = one
            named = [RunFolder(folder.path.parent / name) for name in _named_runs(_read(one, "config.json"))]
            waiting += [*named, *_runs_of_models(one)]
    return list(behind.values())


def _runs_of_models(folder: RunFolder) -> Iterator[RunFolder]:
    """Yield the runs whose models the detector of a run names."""
    for place in (CALIBRATED, UNCALIBRATED):
        models = _read(folder, f"{place}/{DETECTOR}").get("models", [])
        for item in models if isinstance(models, list) else []:
            yield RunFolder((folder.path / place / str(item.get("folder", ""))).resolve().parent)


def _read(folder: RunFolder, name: str) -> dict[str, Any]:
    try:
        return dict(folder.read(name))
    except (ArtefactError, TypeError, ValueError):
        return {}


def _named_runs(value: Any) -> Iterator[str]:
    """Yield every `run: NAME` of a configuration, however deep."""
    if isinstance(value, Mapping):
        if isinstance(run := value.get("run"), str) and run:
            yield run
        for item in value.values():
            yield from _named_runs(item)
    elif isinstance(value, list):
        for item in value:
            yield from _named_runs(item)

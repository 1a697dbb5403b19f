"""Session inside a network namespace of its own: a real Orthanc, our originals, pushes and queries.

`python orthanc_session.py push WORKSPACE RUN ORIGINALS SCRATCH` and `... night WORKSPACE HOSPITAL CONFIG LABELS
SCRATCH` print one JSON document. Orthanc listens on every address, therefore the namespace.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmread
from pynetdicom import AE
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Find

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.network.config import PullConfig
from pipeline.dicom.network.send import require_destination
from pipeline.stages.pacs.pull import pull
from pipeline.stages.pacs.push import push

PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
URL = "http://127.0.0.1:8042"
ADDRESS, MOVE_PORT = "ORTHANC@127.0.0.1:4242", 11113
# Which option lets storescu propose a transfer syntax; it knows no other.
PROPOSED = {"2": "-xi", "2.1": "-xe", "2.2": "-xb", "2.1.99": "-xd", "2.4.50": "-xy", "2.4.51": "-xx", "2.4.70": "-xs"}
PROPOSED |= {"2.4.80": "-xt", "2.4.81": "-xu", "2.4.90": "-xv", "2.4.91": "-xw", "2.5": "-xr"}


@contextmanager
def orthanc(scratch: Path) -> Iterator[None]:
    """Run Orthanc with an empty storage."""
    config = {
        "StorageDirectory": str(scratch / "db"),
        "IndexDirectory": str(scratch / "db"),
        "Plugins": [PLUGIN],
        "DicomAet": "ORTHANC",
        "DicomPort": 4242,
        "HttpPort": 8042,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowFind": True,
        "DicomAlwaysAllowGet": True,
        "DicomAlwaysAllowMove": True,
        "DicomModalities": {"us": ["NIGHTREAD", "127.0.0.1", MOVE_PORT]},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    scratch.mkdir(exist_ok=True)
    (scratch / "orthanc.json").write_text(json.dumps(config))
    log = (scratch / "log").open("w")
    process = subprocess.Popen(["Orthanc", str(scratch / "orthanc.json")], stdout=log, stderr=log)
    try:
        for _ in range(1200):
            try:
                httpx.get(f"{URL}/system", trust_env=False).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(240)


def c_find(study_uid: str) -> list[str]:
    """Return the modalities of a study's series, by C-FIND."""
    entity = AE()
    entity.add_requested_context(Find)
    association = entity.associate("127.0.0.1", 4242, ae_title="ORTHANC")
    query = Dataset()
    query.QueryRetrieveLevel, query.StudyInstanceUID, query.SeriesInstanceUID, query.Modality = (
        "SERIES",
        study_uid,
        "",
        "",
    )
    modalities = [answer.Modality for _, answer in association.send_c_find(query, Find) if answer is not None]
    association.release()
    return sorted(modalities)


def qido(study_uid: str) -> list[str]:
    """Return the modalities of a study's series, by QIDO-RS."""
    client = DICOMwebClient(f"{URL}/dicom-web")
    return sorted(item["00080060"]["Value"][0] for item in client.search_for_series(study_uid))


def report_of(study_uid: str, scratch: Path) -> str:
    """Fetch the structured report by WADO-RS and return what dsrdump reads."""
    client = DICOMwebClient(f"{URL}/dicom-web")
    series = client.search_for_series(study_uid, search_filters={"Modality": "SR"})
    datasets = client.retrieve_series(study_uid, series[0]["0020000E"]["Value"][0])
    datasets[0].save_as(scratch / "sr.dcm", enforce_file_format=True)
    return subprocess.run(["dsrdump", "+Pl", str(scratch / "sr.dcm")], capture_output=True, text=True).stdout


def send(files: list[str]) -> dict[str, int]:
    """Send files with storescu, each as encoded, and by HTTP those it cannot propose; return the number of each."""
    groups: dict[str, list[str]] = {}
    for file in files:
        syntax = str(dcmread(file, stop_before_pixels=True).file_meta.TransferSyntaxUID)
        groups.setdefault(PROPOSED.get(syntax.removeprefix("1.2.840.10008.1."), ""), []).append(file)
    for option, part in groups.items():
        if option:
            subprocess.run(["storescu", "-R", option, "-aec", "ORTHANC", "127.0.0.1", "4242", *part], check=True)
    for file in groups.get("", []):
        httpx.post(f"{URL}/instances", content=Path(file).read_bytes(), trust_env=False).raise_for_status()
    other = len(groups.get("", []))
    return {"storescu": len(files) - other, "http": other}


def files_of(inbox: Path) -> dict[str, str]:
    """Return the digest of every complete object by its SOP Instance UID."""
    paths = [*(inbox / "complete").rglob("*.dcm")]
    return {dcmread(path).SOPInstanceUID: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def night(workspace: str, hospital: str, config: str, labels: str, scratch: str) -> dict[str, Any]:
    """Send a hospital's scans to Orthanc, pull them in every way, run a night, and push the flagged studies."""
    from flows.nightly import run_nightly

    place, settings = Path(scratch), Settings(workspace=Path(workspace))
    asked = {"modalities": ("MR",), "reserve_bytes": 0, "move_port": MOVE_PORT, "associations": 2}
    ways = {
        "get": PullConfig(source=ADDRESS, inbox=settings.inbox, method="get", **asked),
        "move": PullConfig(source=ADDRESS, inbox=place / "moved", method="move", **asked),
        "web": PullConfig(source=f"{URL}/dicom-web", inbox=place / "web", **asked),
    }
    with orthanc(place):
        sent = send(sorted(str(path) for path in Path(hospital).rglob("*.dcm")))
        pulled = {name: pull(way).to_json() for name, way in ways.items()}
        again = {name: pull(way).to_json() for name, way in ways.items()}
        files = {name: files_of(way.inbox) for name, way in ways.items()}
        report = run_nightly([], [config], [labels], workspace)
        run_id = report["scored"][0]["run_id"]
        pushed = push(run_id, settings, require_destination(ADDRESS, place)).to_json()
        with Crosswalk.open(settings) as crosswalk, Catalogue.open(settings) as catalogue:
            uids = [
                crosswalk.find_identity(row.study_id).study_uid for row in catalogue.list_findings(run_id, flagged=True)
            ]
        return {
            "sent": sent,
            "pulled": pulled,
            "again": again,
            "same": [files["get"].keys() == other.keys() for other in files.values()],
            "equal bytes": [sum(files["get"][uid] == digest for uid, digest in o.items()) for o in files.values()],
            "night": {name: report[name] for name in ("failures", "new")},
            "pushed": pushed,
            "find": [c_find(uid) for uid in uids],
            "qido": [qido(uid) for uid in uids],
        }


def main(workspace: str, run_id: str, originals: str, scratch: str) -> dict[str, Any]:
    """Send the originals, push by C-STORE and by STOW-RS, and query the result."""
    place, settings = Path(scratch), Settings(workspace=Path(workspace))
    files = sorted(str(path) for path in Path(originals).rglob("*.dcm"))
    with orthanc(place):
        syntaxes = {str(dcmread(file, stop_before_pixels=True).file_meta.TransferSyntaxUID) for file in files}
        sent = subprocess.run(["storescu", "-R", "-xs", "-aec", "ORTHANC", "127.0.0.1", "4242", *files])
        if sent.returncode:  # some syntaxes are not among those that this option proposes
            for file in files:
                httpx.post(f"{URL}/instances", content=Path(file).read_bytes(), trust_env=False).raise_for_status()
        by_store = push(run_id, settings, require_destination("ORTHANC@127.0.0.1:4242", place))
        counted = httpx.get(f"{URL}/statistics", trust_env=False).json()["CountInstances"]
        by_stow = push(run_id, settings, require_destination(f"{URL}/dicom-web", place))
        repeated = push(run_id, settings, require_destination(f"{URL}/dicom-web", place))
        studies = DICOMwebClient(f"{URL}/dicom-web").search_for_studies()
        uids = [item["0020000D"]["Value"][0] for item in studies]
        return {
            "syntaxes": len(syntaxes),
            "reports": [report.to_json() for report in (by_store, by_stow, repeated)],
            "instances": [counted, httpx.get(f"{URL}/statistics", trust_env=False).json()["CountInstances"]],
            "find": [c_find(uid) for uid in uids],
            "qido": [qido(uid) for uid in uids],
            "dump": report_of(next(uid for uid in uids if "SR" in qido(uid)), place),
        }


if __name__ == "__main__":
    print(json.dumps({"push": main, "night": night}[sys.argv[1]](*sys.argv[2:])))

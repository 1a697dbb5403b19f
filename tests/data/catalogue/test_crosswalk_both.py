"""The crosswalk on PostgreSQL: created by several processes at once, and written in batches."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

from pipeline.config import Settings
from pipeline.dicom.decode.attributes import RawIdentity
from pipeline.dicom.identity.crosswalk import Crosswalk
from pipeline.dicom.identity.pseudonyms import Pseudonyms

CODE = (
    "import sys; from pipeline.config import Settings; from pipeline.dicom.identity.crosswalk import Crosswalk;"
    "settings = Settings.model_validate_json(sys.argv[1]); print(flush=True); sys.stdin.readline();"
    "Crosswalk.open(settings).close()"
)


def test_several_processes_make_it_and_a_batch_fills_it(settings: Settings, new_database: Callable[[], str]) -> None:
    settings = settings.model_copy(update={"crosswalk_url": new_database()})
    command = [sys.executable, "-c", CODE, settings.model_dump_json()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = [subprocess.Popen(command, text=True, **pipes) for _ in range(4)]  # type: ignore[call-overload]
    for process in running:
        process.stdout.readline()
    for process in running:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [(process.communicate()[1][-600:], process.returncode) for process in running] == [("", 0)] * 4
    raws = [RawIdentity("I", f"P{n}", f"1.{n}", f"1.{n}.1", f"1.{n}.1.{m}", "", "") for n in range(3) for m in range(4)]
    raws.append(RawIdentity("I", "P1", "1.1", "1.1.1", "1.1.1.0", "ACC", ""))
    with Pseudonyms.open(settings) as keys, Crosswalk.open(settings) as crosswalk:
        crosswalk.remember_many([(keys.of(raw, "local"), raw) for raw in raws])
        crosswalk.remember_paths([(keys.path("/a"), "/a"), (keys.path("/a"), "/a")])
        assert [crosswalk.count(kind) for kind in ("patient", "study", "instance", "path")] == [3, 3, 12, 1]  # type: ignore[arg-type]
        assert crosswalk.find_studies(accession="ACC", issuer="I") == [keys.study("1.1")]
        assert crosswalk.find_identity(keys.instance("1.1.1.3")).accession_number == "ACC"

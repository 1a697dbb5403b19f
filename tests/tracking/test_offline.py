"""Everything works with the network cut off, and nothing tries to phone home."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
STORY = """
import sys
from pathlib import Path
from pipeline.config import Settings, load_config
from pipeline.data.ingest.ingest import ingest
from pipeline.data.labels.labels import import_labels
from pipeline.stages.detect.calibrate import calibrate
from pipeline.stages.run.run_config import RunConfig
from pipeline.stages.detect.score import find_detectors_to_run, score
from pipeline.stages.detect.train import train
archive, inbox, labels, config, workspace = sys.argv[1:]
settings = Settings(workspace=Path(workspace))
ingest([Path(archive), Path(inbox)], settings)
import_labels(Path(labels), settings)
report = calibrate(train(load_config(config, RunConfig), settings), settings)
scored = [score(run, settings) for run in find_detectors_to_run(settings)]
import mlflow
from mlflow.telemetry.client import get_telemetry_client
assert get_telemetry_client() is None
model = mlflow.pyfunc.load_model('models:/nightread-phantom-mr@champion')
answer = model.predict(model.input_example)
assert answer['error'][0] == '', answer
print('STORY', report.version, scored[0].studies)
"""


@pytest.mark.slow
def test_train_log_register_score_and_load_without_a_network(
    phantom_night: Any, new_hospital: Any, cut_off: Any, tmp_path: Path
) -> None:
    night = phantom_night
    files = [night.archive, night.inbox, night.labels, night.config, new_hospital().workspace]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}  # no switch from outside
    done = subprocess.run(
        [*cut_off.prefix, sys.executable, "-c", cut_off.code + STORY, *map(str, files)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "STORY 1 6"
    assert {entry.name for entry in tmp_path.iterdir()} <= {".cache", ".config"}  # no files of ours


@pytest.mark.slow
def test_telemetry_is_off_whoever_imports_mlflow_first() -> None:
    code = (
        "import pipeline\n"
        "import monai\n"  # it imports mlflow on its own
        "import mlflow\n"
        "from mlflow.telemetry.client import get_telemetry_client\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\n"
        "assert is_telemetry_disabled() and get_telemetry_client() is None\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}  # nothing from outside that would switch it off
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=ROOT)

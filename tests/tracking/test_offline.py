"""Everything works with the network cut off, and nothing tries to phone home."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOOPBACK = """
import fcntl, socket, struct
link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
request = struct.pack('16sh', b'lo', 0x1 | 0x40)  # IFF_UP | IFF_RUNNING
fcntl.ioctl(link, 0x8914, request)  # SIOCSIFFLAGS
"""
STORY = """
import sys
from pathlib import Path
from pipeline.config import Settings, load_config
from pipeline.data.ingest import ingest
from pipeline.data.labels import import_labels
from pipeline.stages.calibrate import calibrate
from pipeline.stages.config import RunConfig
from pipeline.stages.score import detectors_to_run, score
from pipeline.stages.train import train
import socket
try:
    socket.create_connection(('192.0.2.1', 80), timeout=2)
except OSError as error:
    assert error.errno == 101, error  # network is unreachable: the cut is real
else:
    raise SystemExit('the network is there')
archive, inbox, labels, config, workspace = sys.argv[1:]
settings = Settings(workspace=Path(workspace))
ingest([Path(archive), Path(inbox)], settings)
import_labels(Path(labels), settings)
report = calibrate(train(load_config(config, RunConfig), settings), settings)
scored = [score(run, settings) for run in detectors_to_run(settings)]
import mlflow
from mlflow.telemetry.client import get_telemetry_client
assert get_telemetry_client() is None
model = mlflow.pyfunc.load_model('models:/nightread-phantom-mr@champion')
answer = model.predict(model.input_example)
assert answer['error'][0] == '', answer
print('STORY', report.version, scored[0].studies)
"""


def without_network() -> list[str]:
    """The command prefix that cuts the network, or a skip where that is forbidden."""
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed")
    for prefix in (["unshare", "-n"], ["unshare", "-rn"]):
        if subprocess.run([*prefix, "true"], capture_output=True).returncode == 0:
            return prefix
    pytest.skip("network namespaces are forbidden here")


@pytest.mark.slow
def test_train_log_register_score_and_load_without_a_network(phantom_night: Any, tmp_path: Path) -> None:
    night = phantom_night
    files = [night.archive, night.inbox, night.labels, night.config, tmp_path / "workspace"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}  # no switch from outside
    done = subprocess.run(
        [*without_network(), sys.executable, "-c", LOOPBACK + STORY, *map(str, files)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "STORY 1 6"
    assert {entry.name for entry in tmp_path.iterdir()} <= {"workspace", ".cache", ".config"}  # nothing where we stood


def test_telemetry_is_off_whoever_imports_mlflow_first() -> None:
    code = (
        "import pipeline\n"
        "import monai\n"  # it imports mlflow unasked
        "import mlflow\n"
        "from mlflow.telemetry.client import get_telemetry_client\n"
        "from mlflow.telemetry.utils import is_telemetry_disabled\n"
        "assert is_telemetry_disabled() and get_telemetry_client() is None\n"
    )
    environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}  # nothing from outside that would switch it off
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=ROOT)

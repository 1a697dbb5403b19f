"""Session inside a network namespace of its own: objects are sent to us and to DCMTK's storescp, in turns.

`python speed_session.py FOLDER SCRATCH ROUNDS` prints one JSON document. storescp listens on every address, therefore
the namespace.
"""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TITLES = ("-aet", "SCANNER1", "-aec", "NIGHTREAD")


@contextmanager
def ours(scratch: Path) -> Iterator[int]:
    """Run `nightread listen`."""
    program = [sys.executable, "-c", "from pipeline.cli import main; main()", "-w", str(scratch / "w"), "listen"]
    options = ["--json", "--port", "0", "--allow", "SCANNER1", "--inbox", str(scratch), "--reserve-gib", "0"]
    process = subprocess.Popen([*program, *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield json.loads(process.stdout.readline())["port"]
    process.terminate()
    process.wait(60)


@contextmanager
def theirs(scratch: Path) -> Iterator[int]:
    """Run storescp, with one process per association."""
    scratch.mkdir()
    process = subprocess.Popen(["storescp", "--fork", "-od", str(scratch), "-aet", "NIGHTREAD", "11113"])
    for _ in range(2000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", 11113)) == 0:
                break
        time.sleep(0.05)
    yield 11113
    process.terminate()
    process.wait(60)


def send(port: int, files: list[str], associations: int) -> float:
    """Send files with storescu over a number of associations at once; return the seconds."""
    started = time.perf_counter()
    command = ["storescu", *TITLES, "127.0.0.1", str(port)]
    senders = [subprocess.Popen([*command, *files[part::associations]]) for part in range(associations)]
    assert [sender.wait() for sender in senders] == [0] * associations
    return time.perf_counter() - started


def main(folder: str, scratch: str, rounds: str) -> list[dict[str, Any]]:
    """Return one row per number of associations: the medians of all rounds."""
    files, rows = sorted(str(path) for path in Path(folder).glob("*.dcm")), []
    megabytes = sum(Path(file).stat().st_size for file in files) / 1e6
    for associations in (1, 8):
        seconds: dict[str, list[float]] = {"ours": [], "storescp": []}
        for turn in range(int(rounds)):
            for name, receiver in (("ours", ours), ("storescp", theirs)):
                place = Path(scratch) / f"{name}-{associations}-{turn}"
                with receiver(place) as port:
                    seconds[name].append(send(port, files, associations))
                written = [*place.glob("open/*/*.dcm"), *place.glob("complete/*/*.dcm"), *place.glob("CT.*")]
                assert len(written) == len(files), (name, len(written))
        middle = {name: statistics.median(values) for name, values in seconds.items()}
        row: dict[str, Any] = {"associations": associations, "objects": len(files)}
        for name, value in middle.items():
            row |= {f"{name}/s": round(len(files) / value, 1), f"{name} MB/s": round(megabytes / value, 1)}
        ratios = [a / b for a, b in zip(seconds["storescp"], seconds["ours"], strict=True)]
        rows.append({**row, "ratio": round(statistics.median(ratios), 2)})
    return rows


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))

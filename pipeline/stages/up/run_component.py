"""Start of one component under the process manager: `python -m pipeline.stages.up.run_component PLAN NAME`

It ends what a killed predecessor left behind, asks the kernel to be ended with the process manager, and becomes the
component's program.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from pipeline.stages.up.leftovers import end_marked
from pipeline.stages.up.parts import MARK

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent() -> None:
    """Let the kernel send SIGTERM when the parent dies, however it dies; elsewhere than on Linux nothing happens."""
    if not sys.platform.startswith("linux"):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died just before
        raise SystemExit(1)


def main(plan: str, name: str) -> None:
    """Become the component `name` of a plan."""
    end_with_parent()
    values = json.loads(Path(plan).read_text(encoding="utf-8"))
    part = values["parts"][name]
    mark = f"{values['mark']}{name}"
    if not part["keeps_children"]:
        end_marked(mark)
    if part["folder"]:
        Path(part["folder"]).mkdir(parents=True, exist_ok=True)
        os.chdir(part["folder"])
    environment = {**os.environ, **part["environment"], MARK: mark, "PYTHONUNBUFFERED": "1"}
    os.execve(part["command"][0], part["command"], environment)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])

"""The code and the machine that made a result: what an auditor compares when the result is made again."""

from __future__ import annotations

import platform
from typing import Any


def read_environment() -> dict[str, Any]:
    """Return the commit, the package versions, the processor and the threads of this process, by name."""
    import torch

    from pipeline.tracking.software import git_state, versions
    from pipeline.training.precision import name_processor

    packages = {name.removeprefix("version."): version for name, version in versions().items()}
    return {
        **packages,
        "torch": torch.__version__,  # with its build, such as +cpu
        "python": platform.python_version(),
        "processor": name_processor("cpu"),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "threads": torch.get_num_threads(),
        **git_state(),
    }

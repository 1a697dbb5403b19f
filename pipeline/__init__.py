"""Nightread's library: from DICOM to a flagged list. Importing it imports neither torch nor prefect.

MLflow reads its environment when it is imported, and MONAI imports it unasked: that it neither phones home nor talks
between the lines of a progress bar must be settled before either of them is.
"""

import os

__version__ = "0.1.0"

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

"""Nightread's library: from DICOM to a flagged list. Importing it imports neither torch nor prefect.

MLflow reads its environment when it is imported, and MONAI imports MLflow by itself. So the settings that keep MLflow
from sending telemetry and from printing into progress bars must be set before either is imported.
"""

import os

__version__ = "0.1.0"

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

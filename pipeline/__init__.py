"""Nightread's library: from DICOM to a flagged list. Importing it imports neither torch nor prefect."""

__version__ = "0.1.0"

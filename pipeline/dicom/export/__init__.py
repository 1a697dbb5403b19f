"""Findings as DICOM objects (structured report, segmentation, picture, key objects) and as FHIR."""

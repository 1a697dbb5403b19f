"""A finding in DICOM's own language: structured report, segmentation, picture, and key objects."""

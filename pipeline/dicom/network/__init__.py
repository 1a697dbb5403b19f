"""The network side of DICOM (PS3.7, PS3.8): objects that arrive by C-STORE, and objects that are sent."""

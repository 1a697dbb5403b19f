"""Network side of DICOM (PS3.7, PS3.8): receiving objects by C-STORE, fetching them, and sending results."""

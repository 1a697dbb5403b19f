"""Reading list of flagged scans, the readers' decisions, and the permissions of each role."""

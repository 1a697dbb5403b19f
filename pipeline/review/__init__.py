"""Review: the reading list of flagged scans, the readers' decisions, and who may do and see what."""

"""Monitoring of streams of scans: tests that may be read after every scan, and what they promise over all nights."""

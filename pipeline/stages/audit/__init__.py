"""Audit of findings, and what becomes of a patient's data: reproduction, trail, export, erasure and retention."""

"""Figures of reliability: whole nights that are killed, and a year of them."""

"""Prefect flows: the only package that imports prefect. A flow tells the story; the arithmetic is in `pipeline`."""

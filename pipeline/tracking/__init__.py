"""MLflow: the only room that imports it. Its silence is settled in `pipeline/__init__.py`."""

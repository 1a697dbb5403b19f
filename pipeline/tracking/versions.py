"""Registered version of a detector, looked up once in the background, since the registry is slow."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from pipeline.config import Settings
from pipeline.data.catalogue.catalogue import Catalogue
from pipeline.errors import NightreadError


class ModelVersions:
    """Cache of versions by a detector's SHA-256; safe to share between threads. Close it after use."""

    def __init__(self, catalogue: Catalogue, settings: Settings) -> None:
        self._catalogue, self._settings, self._lock = catalogue, settings, threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="versions")
        self._known: dict[str, str] = {}

    def close(self) -> None:
        """Stop, after waiting for a running look-up."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def of(self, sha256: str, run_id: str) -> str:
        """Return a detector's version; "" until it has been looked up, or if the registry does not have it."""
        with self._lock:
            if sha256 not in self._known:
                self._known[sha256] = ""
                self._pool.submit(self._ask, sha256, run_id)
            return self._known[sha256]

    def _ask(self, sha256: str, run_id: str) -> None:
        from pipeline.tracking.registry import find_version

        try:
            run = self._catalogue.run(run_id)
            version = str(find_version(self._settings, run.route, run.folder))
        except NightreadError:
            return
        with self._lock:
            self._known[sha256] = version

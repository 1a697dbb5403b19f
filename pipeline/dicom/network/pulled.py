"""List of the series that were pulled and need not be requested again: a file in the inbox, with its pseudonyms."""

from __future__ import annotations

import json
import os
import threading
from typing import Self

from pipeline import durable
from pipeline.dicom.network.inbox import Inbox
from pipeline.dicom.network.query import FoundSeries


class Pulled:
    """Append-only list; a line is added once every object of a series is on disk or was refused."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox, self._file = inbox, inbox.folder / "pulled.jsonl"
        self._guard = threading.Lock()
        self._counts: dict[str, int] = {}

    @classmethod
    def open(cls, inbox: Inbox) -> Self:
        """Read the list; a last line torn by a power cut is dropped, so its series is requested again."""
        pulled = cls(inbox)
        new = not pulled._file.exists()
        with os.fdopen(os.open(pulled._file, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:
            whole = 0
            for line in file:
                if not line.endswith(b"\n"):
                    break
                row = json.loads(line)
                pulled._counts[row["series"]] = row["objects"]
                whole += len(line)
            file.truncate(whole)
        if new:
            durable.sync_folder(inbox.folder)
        return pulled

    def knows(self, series: FoundSeries) -> bool:
        """Whether a series was pulled and has the same size since; False where the PACS gives no count."""
        objects = self._counts.get(self._inbox.pseudonym("series", series.uid))
        return objects is not None and objects == series.objects

    def note(self, series: FoundSeries, objects: int) -> None:
        """Add a series with the number of objects that the PACS has; durable when this returns."""
        name = self._inbox.pseudonym("series", series.uid)
        line = json.dumps({"series": name, "objects": objects}) + "\n"
        with self._guard:
            durable.append(self._file, line)
            self._counts[name] = objects

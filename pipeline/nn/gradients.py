"""Gradients of answers, which are otherwise computed without them: for attacks, which follow them to the image.

Answers of methods and scores of detectors carry no gradient. Within `keep_gradients` they do: eval mode and randomness
are as ever, and only the graph is kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

import torch

_KEPT: ContextVar[bool] = ContextVar("gradients_kept", default=False)


@contextmanager
def keep_gradients() -> Iterator[None]:
    """Let `unless_kept` keep gradients within this context, in this thread and its tasks only."""
    token = _KEPT.set(True)
    try:
        with torch.enable_grad():
            yield
    finally:
        _KEPT.reset(token)


def unless_kept() -> AbstractContextManager[object]:
    """Return a context without gradients, unless `keep_gradients` is around it."""
    return nullcontext() if _KEPT.get() else torch.no_grad()

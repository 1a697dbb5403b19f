"""The build hooks of the documentation can be imported, as mkdocs imports them."""

from __future__ import annotations

import sys
from pathlib import Path

HOOKS = Path(__file__).resolve().parents[2] / "docs" / "hooks"
sys.path.insert(0, str(HOOKS))

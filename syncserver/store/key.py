"""How the store names a register."""

from __future__ import annotations

Key = tuple[str, str, str, str]
"""school, class, date, session."""

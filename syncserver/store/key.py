"""How the store names a register."""

from __future__ import annotations

from collections.abc import Sequence

Key = tuple[str, str, str, str]
"""school, class, date, session."""


def wanted(keys: Sequence[Key]) -> str:
    """The head of a query about some registers: a table `wanted` to join, one row for each; its parameters: `flat`.

    `(school, …) IN (VALUES …)` reads alike, but SQLite looks through the whole table for it; a join goes by the index.
    """
    rows = ", ".join(["(?, ?, ?, ?)"] * _padded(len(keys)))
    return f"WITH wanted (school, class_id, date, session) AS (VALUES {rows})"


def flat(keys: Sequence[Key]) -> list[str]:
    """The parameters of `wanted`."""
    return [name for key in keys for name in key] + [""] * 4 * (_padded(len(keys)) - len(keys))


def _padded(count: int) -> int:
    """The next power of two, filled up with what no register is called: a server keeps every statement it has planned,
    each of some 300 kB on PostgreSQL, and one for every count would be hundreds of MB a connection.
    """
    return 1 << max(count - 1, 0).bit_length()


BY_KEY = "o.school = w.school AND o.class_id = w.class_id AND o.date = w.date AND o.session = w.session"
"""Joins `wanted w` to a table `o` of registers."""

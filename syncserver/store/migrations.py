"""From one version of the schema to the next, while servers of both run. Pure.

A migration only adds: columns that may be missing or have a default, tables, indexes, views. So a server of the version
before goes on beside it, and a step that was cut short is simply done again. What it adds beyond columns is not written
twice: it is whatever the schema has and the store has not. What is *inside* a column (`packed.py`) changes in two
versions: the first reads the new form, the second writes it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

_CREATE = re.compile(r"CREATE (TABLE|INDEX|VIEW) (\w+)\b(?: ON (\w+))?")
FIRST = 3
"""The oldest version that can be migrated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column that a version adds."""

    table: str
    name: str
    rest: str


COLUMNS: dict[int, tuple[Column, ...]] = {
    4: (
        Column(table="outcomes", name="first_seq", rest="INTEGER"),
        Column(table="outcomes", name="last_seq", rest="INTEGER"),
        Column(table="consumers", name="fence", rest="INTEGER NOT NULL DEFAULT 0"),
    ),
    5: (
        Column(table="outcomes", name="source_offset", rest="INTEGER"),
        Column(table="outcomes", name="counts", rest="BLOB"),
    ),
}


def columns_since(version: int) -> Iterator[Column]:
    """Every column that was added after a version, oldest first."""
    for later in sorted(COLUMNS):
        if later > version:
            yield from COLUMNS[later]


def missing(statements: Iterator[str], known: Collection[str]) -> Iterator[str]:
    """Those of the schema's statements whose table or index the store has not, and every view: it may read otherwise
    now.
    """
    for statement in statements:
        found = _CREATE.match(statement)
        if found is not None and (found[1] == "VIEW" or found[2] not in known):
            yield statement


def view_of(statement: str) -> str | None:
    """Name of a view; None for another statement."""
    found = _CREATE.match(statement)
    return found[2] if found is not None and found[1] == "VIEW" else None


def index_of(statement: str) -> tuple[str, str] | None:
    """Name and table of an index; None for another statement."""
    found = _CREATE.match(statement)
    return (found[2], found[3]) if found is not None and found[1] == "INDEX" else None

"""The schema: every `sql/*.sql`, executed in name order when a store is made."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

SCHEMA_VERSION = 5


def schema_statements() -> Iterator[str]:
    """The statements that make an empty store, one by one."""
    folder = files("syncserver.store") / "sql"
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".sql"):
            text = "\n".join(line.split("--", 1)[0] for line in entry.read_text("utf-8").splitlines())
            yield from (statement.strip() for statement in text.split(";") if statement.strip())

"""JSON Schemas (2020-12) of the data of every type of event, as they are served at `/v1/schemas/<type>.json`.

Closed: every set of words is an enumeration and nothing beyond the named properties is let in. *Not taken* and *no
session* are in none of them, so an event that told either would break its own schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

MEDIA_TYPE = "application/schema+json"


def _load() -> dict[str, bytes]:
    folder = files(__name__)
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.name.endswith(".json")}


SCHEMAS: Mapping[str, bytes] = _load()
"""By file name, e.g. `eg.hudur.mark.recorded.v1.json`."""

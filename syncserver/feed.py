"""The events feed: CloudEvents 1.0 in JSON batches, in the order in which they were settled, for ever the same."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from typing import Any

from syncserver.store.port import Reader

MEDIA_TYPE = "application/cloudevents-batch+json"
LIMIT_DEFAULT, LIMIT_MAX = 500, 5_000
AFTER_MAX = (1 << 53) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page: events, and the sequence to ask after next (the one asked for when there is nothing new)."""

    events: list[dict[str, Any]]
    next_after: int

    def to_bytes(self) -> bytes:
        """The JSON batch."""
        return json.dumps(self.events, ensure_ascii=False, separators=(",", ":")).encode()


async def read_page(reader: Reader, *, after: int, limit: int = LIMIT_DEFAULT, school: str | None = None) -> Page:
    """Events with a sequence greater than `after`, at most `limit`.

    Each carries its position as the extension attribute `sequence` (CloudEvents' sequence extension: a string that
    sorts), so that a consumer can go on exactly where it stopped.
    """
    where, params = ("AND school = ?", [school]) if school is not None else ("", [])
    rows = await reader.fetch_all(
        f"SELECT first_seq, body FROM events WHERE last_seq > ? {where} ORDER BY first_seq LIMIT ?",
        (after, *params, limit),
    )
    found: list[dict[str, Any]] = []
    next_after = after
    for first_seq, body in rows:
        for seq, event in enumerate(json.loads(zlib.decompress(body)), first_seq):
            if seq > after and len(found) < limit:
                found.append({**event, "sequence": f"{seq:020d}"})
                next_after = seq
        if len(found) >= limit:
            break
    return Page(events=found, next_after=next_after)

"""The events feed: CloudEvents 1.0 in JSON batches, in the order in which they were settled, for ever the same."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from clientcore.errors import BadInput
from reconciliation.events import schema_of
from reconciliation.wire import iso
from syncserver.store.port import Reader
from syncserver.store.told import last_seq, read_told

MEDIA_TYPE = "application/cloudevents-batch+json"
LIMIT_DEFAULT, LIMIT_MAX = 500, 5_000
AFTER_MAX = (1 << 53) - 1

RESTORED = "eg.hudur.log.restored.v1"
"""Type of the event that stands where the log was restored; see `restored_event`."""

EVERY_SCHOOL = "*"
_STEP_PER_EPOCH = 20  # bits: a million events a second of an epoch's length, so the next begins beyond all of them
_GAP = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page: events, and the sequence to ask after next (the one asked for when there is nothing new)."""

    events: list[dict[str, Any]]
    next_after: int

    def to_bytes(self) -> bytes:
        """The JSON batch."""
        return json.dumps(self.events, ensure_ascii=False, separators=(",", ":")).encode()


def first_after_restore(epoch: int, last_seq: int) -> int:
    """Where the feed goes on in a new log epoch: behind everything that can have been told in any earlier one.

    A restored feed ends at `last_seq`, but consumers may have read further before the restore. An epoch is at least the
    second in which the restore was made, so no earlier epoch can have come this far, and a consumer that asks for what
    lies behind its position always gets what was settled since.

    Raises:
        BadInput: `bad-epoch`, when the epoch leaves no room for sequences below 2^53.
    """
    first = epoch << _STEP_PER_EPOCH  # epochs only rise, so no two restores begin at one place
    if first <= last_seq:
        first = last_seq + _GAP
    if first >= AFTER_MAX:
        raise BadInput("bad-epoch", f"epoch {epoch} leaves no room for the feed")
    return first


def restored_event(*, epoch: int, continues: int, last_seq: int, first_seq: int, at_ms: int) -> dict[str, Any]:
    """The mark of a restore in the feed: what lies between `last_seq` and `first_seq`, whoever read it, is void.

    That holds for a consumer in epoch `continues`, the one the backup was made in. One that has seen another mark in
    between followed a log that is no more, and calls void what has come back with this backup: it reads the feed again.

    The phones bring the changes again; what follows from them comes as new events with new ids.
    """
    return {
        "specversion": "1.0",
        "id": f"restore/{epoch}",
        "source": "/",
        "type": RESTORED,
        "subject": f"restore/{epoch}",
        "time": iso(at_ms),
        "datacontenttype": "application/json",
        "dataschema": schema_of(RESTORED),
        "data": {
            "epoch": epoch,
            "continues": continues,
            "void_after": f"{last_seq:020d}",
            "void_before": f"{first_seq:020d}",
        },
    }


async def read_head(reader: Reader) -> int:
    """Sequence of the last event; 0 before the first."""
    return await last_seq(reader)


async def read_page(
    reader: Reader,
    *,
    after: int,
    limit: int = LIMIT_DEFAULT,
    schools: Collection[str] | None = None,
    up_to: int = AFTER_MAX,
) -> Page:
    """Events with a sequence greater than `after`, at most `limit`.

    Each carries its position as the extension attribute `sequence` (CloudEvents' sequence extension: a string that
    sorts), so that a consumer can go on exactly where it stopped. What concerns every school (`RESTORED`) stands in the
    feed of each.

    Args:
        reader: The store.
        after: Sequence to go on from.
        limit: Events on the page.
        schools: Only theirs; None: every school's.
        up_to: The last sequence to look at.
    """
    names = None if schools is None else sorted({*schools, EVERY_SCHOOL})
    rows = await read_told(reader, after=after, limit=limit, schools=names)
    found: list[dict[str, Any]] = []
    next_after = after
    for first_seq, events in rows:
        for seq, event in enumerate(events, first_seq):
            if after < seq <= up_to and len(found) < limit:
                found.append({**event, "sequence": f"{seq:020d}"})
                next_after = seq
        if len(found) >= limit:
            break
    return Page(events=found, next_after=next_after)

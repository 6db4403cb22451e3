"""One register as JSON: every mark ever made, by whom, when it came, and what stands. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from clientcore.change import parse
from clientcore.history import merge
from syncserver.store.registers import StoredChange


def export_json(register: str, stored: Sequence[StoredChange]) -> bytes:
    """UTF-8 JSON: `register`, `heads`, `marks` (oldest first; `visible` when nothing supersedes it), `set_aside`."""
    history = merge(parse(one.chunk) for one in stored)
    receipts = {one.hash: one.receipt for one in stored}
    shown = {put.id for puts in history.visible().values() for put in puts}
    marks = [
        {
            "key": put.key,
            "value": put.value,
            "visible": put.id in shown,
            "change": put.change_hash.hex(),
            "device": receipts[put.change_hash].device.hex(),
            "user": receipts[put.change_hash].user_id,
            "received_at_ms": receipts[put.change_hash].received_at_ms,
        }
        for put in history.puts()
    ]
    aside = {
        **{digest.hex(): "pending" for digest in sorted(history.pending)},
        **{digest.hex(): f"inconsistent: {why}" for digest, why in sorted(history.inconsistent.items())},
        **{digest.hex(): "equivocation" for digest in sorted(history.equivocations)},
    }
    document = {
        "register": register,
        "heads": [head.hex() for head in history.heads],
        "marks": marks,
        "set_aside": aside,
    }
    return (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode()

"""Decisions about registers, and aliases of pupils, as the rules take them.

`body_json` of a decision by kind: release `{"reason"}` · approve, reject `{"reason", "asked_by_ms", "decide_by_ms"}` ·
choose `{"among": [hex], "chosen": hex, "value"}` · rule `{"among": [hex], "code", "reason": slug or null}`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from clientcore.register import Code
from reconciliation.decisions import NONE, Approval, Choice, Decisions, Level, Reason, Release, Ruling
from reconciliation.identity import follow
from syncserver.store.key import BY_KEY, Key, flat, wanted
from syncserver.store.port import Reader, Row, placeholders

_IN_MAX = 500  # names in one IN list

_OF_REGISTER = """
SELECT id, kind, pupil, change_hash, body_json, by_id, level, reference, at_ms, bulk_id FROM decisions
WHERE school = ? AND class_id = ? AND date = ? AND session = ? AND undone_ms IS NULL ORDER BY id"""


async def decisions_of(reader: Reader, key: Key) -> Decisions:
    """Every decision about a register that nobody took back."""
    rows = await reader.fetch_all(_OF_REGISTER, key)
    return read_decisions(rows) if rows else NONE


async def decisions_of_all(reader: Reader, keys: Sequence[Key]) -> dict[Key, Decisions]:
    """The decisions of those of the given registers that have any."""
    held = await reader.fetch_all(
        f"""{wanted(keys)} SELECT DISTINCT o.school, o.class_id, o.date, o.session
        FROM wanted w JOIN decisions o ON {BY_KEY}""",
        flat(keys),
    )
    return {(a, b, c, d): await decisions_of(reader, (a, b, c, d)) for a, b, c, d in held}


def read_decisions(rows: list[Row]) -> Decisions:
    """Decisions from their rows, in the order of their ids; of several choices about one pupil the last counts."""
    releases: dict[bytes, Release] = {}
    approvals: dict[bytes, tuple[Approval, ...]] = {}
    choices: dict[str, Choice] = {}
    rulings: dict[str, tuple[Ruling, ...]] = {}
    for number, kind, pupil, digest, body_json, by, level, reference, at_ms, bulk_id in rows:
        body: dict[str, Any] = json.loads(body_json)
        if kind == "release":
            releases.setdefault(digest, Release(change_hash=digest, by=by, reason=body["reason"], at_ms=at_ms))
        elif kind in ("approve", "reject"):
            word = Approval(
                id=number,
                change_hash=digest,
                approved=kind == "approve",
                reason=Reason(body["reason"]),
                by=by,
                level=Level(level),
                reference=reference,
                at_ms=at_ms,
                asked_by_ms=body.get("asked_by_ms", 0),
                decide_by_ms=body.get("decide_by_ms", 0),
            )
            approvals[digest] = (*approvals.get(digest, ()), word)
        elif kind == "choose":
            choices[pupil] = Choice(
                pupil=pupil,
                among=_hashes(body["among"]),
                chosen=bytes.fromhex(body["chosen"]),
                value=body["value"],
                by=by,
                at_ms=at_ms,
            )
        elif kind == "rule":
            ruling = Ruling(
                pupil=pupil,
                among=_hashes(body["among"]),
                code=Code(body["code"]),
                reason=body["reason"],
                bulk=bulk_id,
                by=by,
                at_ms=at_ms,
            )
            rulings[pupil] = (*rulings.get(pupil, ()), ruling)
    return Decisions(releases=releases, approvals=approvals, choices=choices, rulings=rulings)


def _hashes(names: list[str]) -> frozenset[bytes]:
    return frozenset(bytes.fromhex(name) for name in names)


async def aliases_of(reader: Reader, school: str) -> dict[str, str]:
    """Duplicate pupil ids of a school and the ids that stand for them."""
    return (await aliases_of_all(reader, [school])).get(school, {})


async def aliases_of_all(reader: Reader, schools: Sequence[str]) -> dict[str, dict[str, str]]:
    """See `aliases_of`, for those of the given schools that have any."""
    pairs: dict[str, list[tuple[str, str]]] = {}
    for at in range(0, len(schools), _IN_MAX):
        some = schools[at : at + _IN_MAX]
        for school, alias, canonical in await reader.fetch_all(
            f"""SELECT school, alias, canonical FROM aliases
            WHERE school IN ({placeholders(len(some))}) AND undone_ms IS NULL ORDER BY id""",
            some,
        ):
            pairs.setdefault(school, []).append((alias, canonical))
    return {school: follow(some) for school, some in pairs.items()}

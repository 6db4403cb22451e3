"""`syncserver/store/packed.py` as it was in version 4 of the schema: how servers of that version write and
read outcomes. Frozen: what is written beside them is tested with it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from typing import Any

from reconciliation.model import Answer, Outcome
from reconciliation.wire import answer_to_wire, held_to_wire, sources_of

VERSION = 3
_LEVEL = 6
# The commonest words last. A store's rows name it by its checksum: it is never changed, only followed by another.
_DICTIONARY = (
    b'","adjustment","late_arrival","low","held","no_session","window-closed","unknown-pupil","disputed","calendar"'
    b'000 p000 s000 E0 U0 D0 S0 X0 L0 A1 A2 P1 P2 P1 P2 ",null,null,[],[],[["'
    b',0,0,"s101001 s101002 s101003 P28800000 P1000 P1500 P2000'
    b'[3,"1","unstated",null,null,[],[],[["",[[0,"medium",false,"late_arrival",[[0,"high",false,"on_time",'
    b'"]],"",{},[],[["",1,null,null]]]'
)


def pack_outcome(outcome: Outcome) -> bytes:
    """An outcome without its register, which names the row."""
    sources = sources_of(outcome)
    index = {one[0]: place for place, one in enumerate(sources)}
    groups: dict[tuple[Any, ...], tuple[list[str], list[str]]] = {}
    last: dict[tuple[Any, ...], int] = {}
    silent, other = [], []
    for pupil, answer in outcome.answers.items():
        mark = answer.mark
        if mark is None and not answer.values and answer == _NOTHING:
            silent.append(pupil)
        elif mark is None or len(answer.values) != 1 or not _is_plain(answer):
            other.append(pupil)
        else:
            captured, value = mark.captured, mark.value
            digits, colon, reason = value[1:].partition(":")
            tap, at = int(digits), captured.at_ms
            first, latest = captured.interval
            head = (
                index[mark.change_hash], captured.confidence._value_, captured.clock_flag, mark.timeliness._value_,
                at - tap, at - first, latest - at,
            )  # fmt: skip
            group = groups.get(head)
            if group is None:
                group = groups[head] = ([], [])
            group[0].append(pupil)
            group[1].append(f"{value[0]}{tap - last.get(head, 0)}{colon}{reason}")
            last[head] = tap
    row = [
        VERSION,
        outcome.roster_version,
        outcome.occasion._value_,
        outcome.no_session_reason,
        outcome.closed,
        outcome.labels,
        outcome.bulk_at_ms,
        [[digest.hex(), user, received_ms] for digest, user, received_ms in sources],
        [[*head, " ".join(pupils), " ".join(marks)] for head, (pupils, marks) in groups.items()],
        " ".join(silent),
        {pupil: answer_to_wire(outcome.answers[pupil], index) for pupil in other},
        held_to_wire(outcome),
        [[digest.hex(), int(one.state), one.slug, one.detail] for digest, one in outcome.changes.items()],
    ]
    packer = zlib.compressobj(_LEVEL, zdict=_DICTIONARY)
    return packer.compress(json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode()) + packer.flush()


_NOTHING = Answer()


def _is_plain(answer: Answer) -> bool:
    return not (
        answer.disputed or answer.labels or answer.ruling is not None or answer.original is not None
        or answer.chosen_by is not None
    )  # fmt: skip


def unpack_wire(data: bytes, register: str) -> dict[str, Any]:
    """An outcome in its plain spelling (`reconciliation/wire.py`).

    Args:
        data: As stored, by this version or an earlier one.
        register: The text of its register.
    """
    unpacker = zlib.decompressobj(zdict=_DICTIONARY)
    row = json.loads(unpacker.decompress(data) + unpacker.flush())
    if isinstance(row, dict):
        return row
    _, roster_version, occasion, why, closed, labels, bulk, sources, groups, silent, other, held, changes = row
    answers: dict[str, Any] = {**dict.fromkeys(silent.split()), **other}
    for *head, pupils, marks in groups:
        answers |= _ungrouped(head, pupils.split(), marks.split())
    return {
        "v": 2,
        "register": register,
        "roster_version": roster_version,
        "occasion": occasion,
        "no_session_reason": why,
        "closed": closed,
        "labels": labels,
        "bulk": bulk,
        "sources": sources,
        "answers": dict(sorted(answers.items())),
        "held": held,
        "changes": changes,
    }


def _ungrouped(head: list[Any], pupils: list[str], marks: list[str]) -> Iterable[tuple[str, Any]]:
    source, confidence, flag, timeliness, base, before, after = head
    tap = 0
    for pupil, text in zip(pupils, marks, strict=True):
        digits, colon, reason = text[1:].partition(":")
        tap += int(digits)
        at = base + tap
        mark = [f"{text[0]}{tap}{colon}{reason}", source, at, at - before, at + after, confidence, flag, timeliness]
        yield pupil, [[mark], 0, False, []]


def unpack_outcome(data: bytes, register: str) -> Outcome:
    """The outcome that `pack_outcome` was given.

    Raises:
        BadOutcome: something else is stored.
    """
    return Outcome.from_wire(unpack_wire(data, register))

"""Outcomes and events as bytes in the store: small, and read back without loss.

An outcome is kept as a JSON array, deflated with a fixed dictionary. Marks that differ only in who, what and when are
written as one group: what they share once, then their pupils, then code and milliseconds, each as the difference from
the one before (a register of 40 is 0.3 kB instead of 0.9). Whatever is not so plain stands as `reconciliation/wire.py`
spells it. Rows of stores before version 4 hold that spelling alone; both are read.

    [form, roster version, occasion, why no session, closed, [label], [bulk at_ms],
     [[change hex, user, received_ms]],
     [[source, confidence, clock flag, timeliness, at - tap, at - from, to - at, "pupil …", "P28812345 A1831 …"]],
     "pupil …" not taken, {pupil: as in the wire}, held, changes]

`tap` is the mark's own number, so the groups hold moments to the millisecond.

An outcome of one change, which is nine of ten, says again what that change says: who was marked, as what, and when. It
is written in form 4: 0 stands for the hash of the change, and a group that holds its marks, no more and no fewer,
ends before them (0.06 kB). It is read with the stored chunk of the change behind it, as `whole_outcomes` gives it
(docs/decisions/0040).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from clientcore.change import Change, parse
from clientcore.errors import ChangeRefused
from reconciliation.errors import BadOutcome
from reconciliation.events import events
from reconciliation.model import Answer, Outcome
from reconciliation.wire import answer_to_wire, canonical, held_to_wire, sources_of

_WHOLE, _REFERRING = 3, 4  # forms
_ITS_CHANGE = 0  # in the place of a hash
_LEVEL = 6
# The commonest words last. A row names the one it was written with by its checksum: none is ever changed, only followed
# by another. The second is for form 4 alone: what refers to nothing is read by older servers too.
_FIRST = (
    b'","adjustment","late_arrival","low","held","no_session","window-closed","unknown-pupil","disputed","calendar"'
    b'000 p000 s000 E0 U0 D0 S0 X0 L0 A1 A2 P1 P2 P1 P2 ",null,null,[],[],[["'
    b',0,0,"s101001 s101002 s101003 P28800000 P1000 P1500 P2000'
    b'[3,"1","unstated",null,null,[],[],[["",[[0,"medium",false,"late_arrival",[[0,"high",false,"on_time",'
    b'"]],"",{},[],[["",1,null,null]]]'
)
_SECOND = _FIRST + (
    b'[4,"1","held",null,null,[],[],[[0,"t101001",1795]],[[0,"medium",false,"on_time",1794175200000,0,0]],"",{},[],'
    b'[[0,1,null,null]]][4,"2","unstated",null,null,[],[],[[0,"t1010",17959]],[[0,"high",false,"late_arrival",179417520'
    b',0,0]],"",{},[],[[0,1,null,null]]][4,"1","unstated",null,null,[],[],[[0,"t10101",1795]],[[0,"high",false,"on_time",'
    b'17941752,0,0]],"",{},[],[[0,1,null,null]]]'
)
_DICTIONARIES = {zlib.adler32(one): one for one in (_FIRST, _SECOND)}
_HEAD_ITEMS = 7  # of a group, before its pupils and marks
FIRST_REVISIONS = b""
"""What stands for revisions that are those of a register's first outcome."""


def pack_json(data: Any) -> bytes:
    """Canonical JSON, compressed."""
    return zlib.compress(canonical(data), 1)


def unpack_json(data: bytes) -> Any:
    """What `pack_json` was given."""
    return json.loads(zlib.decompress(data))


# ---- outcomes ---------------------------------------------------------------------------------------------------


def pack_outcome(outcome: Outcome, change: Change | None = None) -> bytes:
    """An outcome without its register, which names the row.

    Args:
        outcome: The outcome.
        change: The one change of its register, if what it says need not be written again. Whoever reads the outcome
            then has to have its stored chunk behind these bytes.
    """
    sources = sources_of(outcome)
    index = {one[0]: place for place, one in enumerate(sources)}
    groups: dict[tuple[Any, ...], list[tuple[str, str]]] = {}
    silent, other = [], []
    for pupil, answer in outcome.answers.items():
        mark = answer.mark
        if mark is None and not answer.values and answer == _NOTHING:
            silent.append(pupil)
        elif mark is None or len(answer.values) != 1 or not _is_plain(answer):
            other.append(pupil)
        else:
            captured, value = mark.captured, mark.value
            tap, at = int(value[1:].partition(":")[0]), captured.at_ms
            first, latest = captured.interval
            head = (
                index[mark.change_hash], captured.confidence._value_, captured.clock_flag, mark.timeliness._value_,
                at - tap, at - first, latest - at,
            )  # fmt: skip
            group = groups.get(head)
            if group is None:
                group = groups[head] = []
            group.append((pupil, value))
    said = None if change is None else _marks_of(change)
    row = [
        _WHOLE if change is None else _REFERRING,
        outcome.roster_version,
        outcome.occasion._value_,
        outcome.no_session_reason,
        outcome.closed,
        outcome.labels,
        outcome.bulk_at_ms,
        [[_name(digest, change), user, received_ms] for digest, user, received_ms in sources],
        [list(head) if marks == said else [*head, *_grouped(marks)] for head, marks in groups.items()],
        " ".join(silent),
        {pupil: answer_to_wire(outcome.answers[pupil], index) for pupil in other},
        held_to_wire(outcome),
        [[_name(digest, change), int(one.state), one.slug, one.detail] for digest, one in outcome.changes.items()],
    ]
    packer = zlib.compressobj(_LEVEL, zdict=_FIRST if change is None else _SECOND)
    return packer.compress(json.dumps(row, separators=(",", ":"), ensure_ascii=False).encode()) + packer.flush()


_NOTHING = Answer()


def _is_plain(answer: Answer) -> bool:
    return not (
        answer.disputed or answer.labels or answer.ruling is not None or answer.original is not None
        or answer.chosen_by is not None
    )  # fmt: skip


def _name(digest: bytes, change: Change | None) -> str | int:
    return _ITS_CHANGE if change is not None and digest == change.hash else digest.hex()


def _named(rows: Iterable[Sequence[Any]], change: Change) -> list[list[Any]]:
    return [[change.hash.hex() if name == _ITS_CHANGE else name, *rest] for name, *rest in rows]


def _marks_of(change: Change) -> list[tuple[str, str]]:
    """Pupil and value of each mark of a change, by pupil, as an outcome has them."""
    return sorted((op.key, op.value) for op in change.ops if op.value is not None and op.key[0] != "~")


def _grouped(marks: Sequence[tuple[str, str]]) -> tuple[str, str]:
    """Pupils, and their values with each number as the difference from the one before."""
    last, texts = 0, []
    for _, value in marks:
        digits, colon, reason = value[1:].partition(":")
        tap = int(digits)
        texts.append(f"{value[0]}{tap - last}{colon}{reason}")
        last = tap
    return " ".join([pupil for pupil, _ in marks]), " ".join(texts)


def unpack_wire(data: bytes, register: str) -> dict[str, Any]:
    """An outcome in its plain spelling (`reconciliation/wire.py`).

    Args:
        data: As stored, by this version or an earlier one, and behind it the chunk of the change it refers to.
        register: The text of its register.

    Raises:
        BadOutcome: the change it refers to is not there.
    """
    unpacker = _unpacker(data)
    row = json.loads(unpacker.decompress(data) + unpacker.flush())
    if isinstance(row, dict):
        return row
    form, roster_version, occasion, why, closed, labels, bulk, sources, groups, silent, other, held, changes = row
    said: list[tuple[str, str]] = []
    if form == _REFERRING:
        change = _referred(unpacker.unused_data, register)
        said = _marks_of(change)
        sources, changes = _named(sources, change), _named(changes, change)
    answers: dict[str, Any] = {**dict.fromkeys(silent.split()), **other}
    for group in groups:
        head, texts = group[:_HEAD_ITEMS], group[_HEAD_ITEMS:]
        answers |= _answered(head, _ungrouped(*texts) if texts else said)
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


def _unpacker(data: bytes) -> zlib._Decompress:
    """A zlib stream with a preset dictionary names it behind its two bytes of flags (RFC 1950, 2.2)."""
    return zlib.decompressobj(zdict=_DICTIONARIES.get(int.from_bytes(data[2:6], "big"), _FIRST))


def _referred(chunk: bytes, register: str) -> Change:
    try:
        return parse(chunk)
    except ChangeRefused as refused:
        raise BadOutcome("bad-outcome", f"the change of {register} is not there: {refused}") from None


def _ungrouped(pupils: str, marks: str) -> Iterable[tuple[str, str]]:
    tap = 0
    for pupil, text in zip(pupils.split(), marks.split(), strict=True):
        digits, colon, reason = text[1:].partition(":")
        tap += int(digits)
        yield pupil, f"{text[0]}{tap}{colon}{reason}"


def _answered(head: Sequence[Any], marks: Iterable[tuple[str, str]]) -> Iterable[tuple[str, Any]]:
    source, confidence, flag, timeliness, base, before, after = head
    for pupil, value in marks:
        at = base + int(value[1:].partition(":")[0])
        mark = [value, source, at, at - before, at + after, confidence, flag, timeliness]
        yield pupil, [[mark], 0, False, []]


def unpack_outcome(data: bytes, register: str) -> Outcome:
    """The outcome that `pack_outcome` was given.

    Raises:
        BadOutcome: something else is stored, or the change it refers to is not there.
    """
    return Outcome.from_wire(unpack_wire(data, register))


# ---- revisions and events ---------------------------------------------------------------------------------------


def pack_revisions(outcome: Outcome, revisions: Mapping[str, int]) -> bytes:
    """Numbers of the last events; nothing at all where they are those of a register's first outcome."""
    return FIRST_REVISIONS if revisions == first_revisions(outcome) else pack_json(dict(revisions))


def unpack_revisions(data: bytes, outcome: Outcome) -> dict[str, int]:
    """The numbers that were stored beside `outcome`."""
    found: dict[str, int] = first_revisions(outcome) if data == FIRST_REVISIONS else unpack_json(data)
    return found


def first_revisions(outcome: Outcome) -> dict[str, int]:
    """Number one for every pupil of whom a first outcome says something."""
    return {pupil: 1 for pupil, answer in outcome.answers.items() if answer.code is not None}


def first_events(outcome: Outcome, *, time_ms: int) -> list[dict[str, Any]]:
    """What a register's first settling told: it follows from the outcome and its time alone, and so is not stored.

    With keys in the order in which they are read back once they are stored: who reads twice reads the same bytes.
    """
    return [_sorted(event.to_wire()) for event in events(None, outcome, {}, time_ms=time_ms)[0]]


def _sorted(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _sorted(data[key]) for key in sorted(data)}
    return [_sorted(one) for one in data] if isinstance(data, list) else data

"""A pull payload → rows for the log and news for the cache (docs/protocol.md section 6). Pure.

One item that cannot be read is counted and left; it never keeps the others back. Unknown words are skipped: an older
device must live with a newer server.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from clientcore.cache import Calendar, ClassInfo
from clientcore.change import parse
from clientcore.errors import BadInput, FrameRefused, RemoteError
from clientcore.exchange import Payload
from clientcore.fold import DeviceState
from clientcore.register import RegisterId
from clientcore.states import FROM_SERVER, RESTORED_COPY, SHORT_BYTES
from clientcore.wire import Value, shape

NewRow = tuple[str, str | None, list[Value]]


@dataclass(slots=True, kw_only=True)
class Inbox:
    """What one payload brought.

    Attributes:
        rows: (kind, register, body) to append in the transaction that logs the answer.
        wanted: Short hashes of our changes that the server lacks.
        classes, rosters, calendar: News for the cache, written after the log.
        pulled: Changes that are new to this device.
        settled: Registers with news of their settlement.
        says_copied: The server has seen another copy of this device.
        unreadable: Items that broke the protocol.
    """

    rows: list[NewRow] = field(default_factory=list)
    wanted: list[bytes] = field(default_factory=list)
    classes: list[ClassInfo] | None = None
    rosters: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    calendar: Calendar | None = None
    pulled: int = 0
    settled: int = 0
    says_copied: bool = False
    unreadable: int = 0


def read_items(state: DeviceState, school: str, payload: Payload) -> Inbox:
    """Sort the items of `payload` out against what `state` already holds."""
    inbox = Inbox()
    fresh: set[bytes] = set()
    for item in payload.items:
        try:
            _read(state, school, list(item), inbox, fresh)
        except (RemoteError, BadInput):
            inbox.unreadable += 1
    inbox.rows.sort(key=lambda row: row[0] != "pulled")  # a settlement speaks of changes that must be known by then
    return inbox


def _read(state: DeviceState, school: str, item: list[Any], inbox: Inbox, fresh: set[bytes]) -> None:
    word = item[0]
    if word == "change":
        _, register, user_id, chunk = shape(item, str, str, str, bytes)
        change = parse(chunk)
        short = change.hash[:SHORT_BYTES]
        if short not in state.entries and short not in fresh:
            fresh.add(short)
            inbox.rows.append(("pulled", _register(school, register), [user_id, change.chunk]))
            inbox.pulled += 1
    elif word == "settled":
        _read_settled(state, school, item, inbox)
    elif word == "classes":
        rows = [shape(row, str, str, str) for row in shape(item, str, list)[1]]
        inbox.classes = [ClassInfo(id=i, name=n, grade=g) for i, n, g in rows]
    elif word == "roster":
        _, class_id, version, rows = shape(item, str, str, int, list)
        pupils = [(pupil, name) for pupil, name in (shape(row, str, str) for row in rows)]
        inbox.rosters[class_id] = pupils
        if state.roster_versions.get(class_id) != version:
            inbox.rows.append(("roster", None, [class_id, version, len(pupils)]))
    elif word == "calendar":
        inbox.calendar = _calendar(item)
        inbox.rows.append(("calendar", None, [inbox.calendar.version]))
    elif word == "directive":
        _, number, level, reason, _ = shape(item, str, int, str, str, int)
        if number not in state.directives:
            inbox.rows.append(("directive", None, [number, level, reason, "received"]))
    elif word == "want":
        names = shape(item, str, bytes)[1]
        inbox.wanted += [names[at : at + SHORT_BYTES] for at in range(0, len(names), SHORT_BYTES)]
    elif word == "archived":
        names = shape(item, str, bytes)[1]
        shorts = [names[at : at + SHORT_BYTES] for at in range(0, len(names), SHORT_BYTES)]
        news = [one for one in shorts if one in state.entries and one not in state.archived]
        if news:  # told again at every fresh cursor
            inbox.rows.append(("archived", None, [b"".join(news)]))
    elif word == "notice":
        slug = shape(item, str, str)[1]
        if not any(known == slug and detail == FROM_SERVER for known, detail, _ in state.notices):
            inbox.rows.append(("notice", None, [slug, FROM_SERVER]))  # told at every fresh cursor, acted upon once
            inbox.says_copied = inbox.says_copied or slug == RESTORED_COPY


def _read_settled(state: DeviceState, school: str, item: list[Any], inbox: Inbox) -> None:
    _, register, revision, states = shape(item, str, str, int, list)
    name = _register(school, register)
    rows = [shape(row, SHORT_BYTES, int, (str, None)) for row in states]
    known = state.registers.get(name)
    entries = {} if known is None else known.entries
    told = all(h in entries and (entries[h].settled, entries[h].slug) == (s, slug) for h, s, slug in rows)
    if known is None or known.revision != revision or not told:
        inbox.rows.append(("settled", name, [revision, [list(row) for row in rows]]))
        inbox.settled += 1


def _calendar(item: list[Any]) -> Calendar:
    _, version, offsets, closed, sessions = shape(item, str, int, list, list, list)
    if not offsets or not all(type(session) is str for session in sessions):
        raise FrameRefused("bad-frame", "calendar")
    return Calendar(
        version=version,
        offsets=tuple((start, seconds) for start, seconds in (shape(row, int, int) for row in offsets)),
        closed=tuple((date, slug) for date, slug in (shape(row, str, str) for row in closed)),
        sessions=tuple(sessions),
    )


def _register(school: str, text: str) -> str:
    """The short form `class/date/session`, checked.

    Raises:
        BadInput: `bad-register`.
    """
    return RegisterId.parse(f"{school}/{text}").within_school

"""Bytes and round trips on the wire: first push, correction, a class day pulled, a forced rebuild; then with TLS 1.3.

The client writes its HTTP request by hand, with the headers any client must send, so that every byte is counted; what
a browser adds is printed by `python -m bench phone`. Round trips count the TCP handshake as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta

from rich.console import Console

from bench.results import Goal, Result, Row
from bench.site import Phone, Site, site
from bench.sockets import Count, Wire, tls_front
from clientcore.change import Change
from clientcore.exchange import DURABLE, MEDIA_TYPE, Payload, SignedAnswer, read_answer, read_payload, write_sync

DAYS = 180
SHARE_CORRECTED = 5  # every fifth register was corrected later
PUSH, PULL, REBUILD, TLS = "pushes", "pulls", f"forced rebuild of a phone with {DAYS} school days", "TLS 1.3"


@dataclass(slots=True)
class Talk:
    """One exchange: the bodies, the bytes on the wire, and what was answered."""

    body_up: int
    body_down: int
    count: Count
    answer: SignedAnswer
    payload: Payload | None = field(default=None)


def request_of(body: bytes) -> bytes:
    """The HTTP request of a sync body."""
    head = f"POST /v1/sync HTTP/1.1\r\nHost: sync.hudur.example\r\nContent-Type: {MEDIA_TYPE}\r\n"
    return (head + f"Content-Length: {len(body)}\r\n\r\n").encode() + body


def talk(wire: Wire, phone: Phone, frames: Sequence[bytes]) -> Talk:
    """Sync once; the phone learns its next nonce and cursor."""
    body = write_sync(frames)
    before = wire.count.copy()
    reply = wire.exchange(request_of(body))
    answer_body = reply.partition(b"\r\n\r\n")[2]
    if not reply.startswith(b"HTTP/1.1 200"):
        raise SystemExit(reply[:400].decode(errors="replace"))
    signed = read_answer(answer_body, server_key=phone.enrolled.server_key, request=body)
    phone.nonce = signed.answer.nonce
    payload = None if signed.answer.payload is None else read_payload(signed.answer.payload)
    if payload is not None:
        phone.cursor = payload.cursor
    return Talk(len(body), len(answer_body), wire.count.since(before), signed, payload)


def push_once(place: Site, phone: Phone, register: str, change: Change) -> Talk:
    """Push one change on a fresh connection; it must become durable. The count includes the connection."""
    wire = Wire(place.port)
    found = talk(wire, phone, [phone.frame([(register, change)]).raw])
    kinds = [verdict.kind for entry in found.answer.answer.receipts if not isinstance(entry, str) for verdict in entry]
    if kinds != [DURABLE]:
        raise SystemExit(f"not durable: {found.answer.answer.receipts}")
    wire.close()
    found.count = wire.count
    return found


def catch_up(place: Site, phone: Phone, *, have: bytes | None = None) -> Talk:
    """Greet until nothing more is to be told; the sum of it, on one connection."""
    wire = Wire(place.port)
    first = talk(wire, phone, [phone.frame([], have=have).raw])
    total = Talk(first.body_up, first.body_down, wire.count, first.answer, first.payload)
    items = list(first.payload.items) if first.payload else []
    last = first
    while last.payload is not None and last.payload.more:
        last = talk(wire, phone, [phone.frame([]).raw])
        total.body_up, total.body_down = total.body_up + last.body_up, total.body_down + last.body_down
        items += last.payload.items if last.payload else []
    wire.close()
    if first.payload is not None:
        total.payload = Payload(cursor=phone.cursor, more=False, items=tuple(items))
    return total


# ---- what is measured -------------------------------------------------------------------------------------------


def run(*, quick: bool, console: Console) -> Result:
    """Measure every exchange; `quick` changes nothing here."""
    del quick
    with site(phones=2, settle=True, teachers=99) as place:
        room = next(room for room, pupils in place.classes.items() if len(pupils) == 40)
        codes = [code for code, rooms in place.teachers if room in rooms]
        taker, reader = (place.enrol(seed=number, code=code) for number, code in enumerate(codes[:2]))
        for phone in (taker, reader):
            catch_up(place, phone)
        first = taker.register(place.classes[room])
        corrected = taker.correction(first)
        rows = push_rows(place, taker, reader, room, first, corrected)
        console.print("filling a phone with its days")
        rows += rebuild_rows(place, taker, room, [first, corrected])
        rows += tls_rows(place)
    return Result(name="wire", title="Wire", rows=tuple(rows))


def push_rows(place: Site, taker: Phone, reader: Phone, room: str, change: Change, correction: Change) -> list[Row]:
    """First push, correction, and the same day on the phone of another teacher of the class."""
    register = f"{room}/{place.today}/day"
    first = push_once(place, taker, register, change)
    place.wait_settled()
    day = catch_up(place, reader)
    if not any(item[0] == "change" for item in (day.payload.items if day.payload else ())):
        raise SystemExit("the second phone did not get the register")
    confirmed = catch_up(place, taker)
    corrected = push_once(place, taker, register, correction)
    place.wait_settled()
    catch_up(place, reader)
    nothing = catch_up(place, reader)
    sizes = [
        len(write_sync([reader.frame([(register, reader.register(place.classes[room]))]).raw])) for _ in range(200)
    ]
    return [
        Row(
            name="first push, 40 marks: body up, longest of 200",
            value=max(sizes),
            unit="B",
            goal=Goal(limit=560),
            group=PUSH,
            note="the times of the taps decide, and how well they deflate",
        ),
        *counted("first push, 40 marks", first, PUSH, up=560, down=200, all_=1_000, trips=2),
        *counted("correction, 3 marks", corrected, PUSH, up=370, down=200, all_=800, trips=2),
        *counted("confirmation, asked for after 3 s", confirmed, PULL, trips=2),
        *counted("a class day, by another teacher's phone", day, PULL, trips=2),
        *counted("nothing new", nothing, PULL, trips=2),
    ]


def counted(
    name: str,
    found: Talk,
    group: str,
    *,
    up: int | None = None,
    down: int | None = None,
    all_: int | None = None,
    trips: int | None = None,
) -> list[Row]:
    """The four figures of an exchange with their goals."""

    def goal(limit: int | None) -> Goal | None:
        return None if limit is None else Goal(limit=limit)

    return [
        Row(name=f"{name}: body up", value=found.body_up, unit="B", goal=goal(up), group=group),
        Row(name=f"{name}: body down", value=found.body_down, unit="B", goal=goal(down), group=group),
        Row(name=f"{name}: both ways, with HTTP", value=found.count.both, unit="B", goal=goal(all_), group=group),
        Row(name=f"{name}: round trips, TCP included", value=found.count.trips, unit="", goal=goal(trips), group=group),
    ]


def school_days(until: str, count: int) -> list[str]:
    """The last `count` days before `until` that are Sunday to Thursday, the oldest first."""
    day = date.fromisoformat(until)
    found: list[str] = []
    while len(found) < count:
        day -= timedelta(days=1)
        if day.isoweekday() not in (5, 6):
            found.append(day.isoformat())
    return found[::-1]


def rebuild_rows(place: Site, phone: Phone, room: str, today: Sequence[Change]) -> list[Row]:
    """A rebuild of a phone that lacks nothing: all it holds is offered, `today` too; nobody has anything to send."""
    made: list[tuple[str, Change]] = []
    for number, day in enumerate(school_days(place.today, DAYS)):
        register, change = f"{room}/{day}/day", phone.register(place.classes[room])
        made.append((register, change))
        if number % SHARE_CORRECTED == 0:
            made.append((register, phone.correction(change)))
    wire = Wire(place.port)
    for at in range(0, len(made), 20):
        talk(wire, phone, [phone.frame([one]).raw for one in made[at : at + 20]])
    wire.close()
    place.wait_settled()
    catch_up(place, phone)
    held = [*(change for _, change in made), *today]
    have = b"".join(change.hash[:8] for change in held)
    found = catch_up(place, phone, have=have)
    items = found.payload.items if found.payload else ()
    wanted = [item for item in items if item[0] == "want"]
    if [item[1] for item in wanted] != [b""] or any(item[0] == "change" for item in items):
        raise SystemExit("a phone that lacks nothing was sent changes, or was asked for some")
    kinds = ", ".join(sorted({str(item[0]) for item in items}))
    return [
        Row(name="changes offered", value=len(held), unit="", group=REBUILD,
            note=f"one register a day, every fifth corrected; told in the answer: {kinds}"),
        Row(name="body up", value=found.body_up, unit="B", group=REBUILD),
        Row(name="body down", value=found.body_down, unit="B", group=REBUILD),
        Row(name="both ways, with HTTP", value=found.count.both, unit="B", goal=Goal(limit=16_000), group=REBUILD),
        Row(name="both ways, for each change held", value=found.count.both / len(held), unit="B", group=REBUILD,
            note="what a teacher of more classes adds for each"),
        Row(name="round trips, TCP included", value=found.count.trips, unit="", group=REBUILD),
        Row(name="round trips of the rebuild itself", value=found.count.trips - 1, unit="", goal=Goal(limit=2),
            group=REBUILD),
    ]  # fmt: skip


def tls_rows(place: Site) -> list[Row]:
    """What TLS 1.3 adds, counted at the TCP socket: handshakes full and resumed, and the cost of each request."""
    phone = place.enrol(seed=9)
    with tls_front(place.port, place.folder) as (port, context):
        wire = Wire(port, tls=context)
        full = wire.count.copy()
        one = talk(wire, phone, [phone.frame([]).raw])
        first = wire.count.copy()
        two = talk(wire, phone, [phone.frame([]).raw])
        again = wire.count.since(first)
        session = wire.session
        wire.close()
        wire = Wire(port, tls=context, session=session)
        if not wire.is_resumed:
            raise SystemExit("the session was not resumed")
        resumed = wire.count.copy()
        talk(wire, phone, [phone.frame([]).raw])
        after = wire.count.copy()
        wire.close()
    plain = Wire(place.port)
    same = talk(plain, phone, [phone.frame([]).raw])
    plain.close()
    overhead = again.both - same.count.both - (two.body_up + two.body_down - same.body_up - same.body_down)
    tickets = first.since(full).both - again.both - (one.body_up + one.body_down - two.body_up - two.body_down)
    return [
        Row(name="full handshake, up", value=full.up, unit="B", group=TLS),
        Row(name="full handshake, down", value=full.down, unit="B", group=TLS,
            note="leaf and intermediate, ECDSA P-256; a public CA's leaf carries some 250 B more"),
        Row(name="session tickets, once after a handshake", value=tickets, unit="B", group=TLS),
        Row(name="resumed handshake, up", value=resumed.up, unit="B", group=TLS),
        Row(name="resumed handshake, down", value=resumed.down, unit="B", group=TLS),
        Row(name="added to each request and its answer", value=overhead, unit="B", group=TLS),
        Row(name="round trips to an answer, full handshake", value=first.trips, unit="", group=TLS,
            goal=Goal(limit=3)),
        Row(name="round trips to an answer, resumed", value=after.trips, unit="", group=TLS,
            note="the standard ssl module sends no early data; nor should a push be replayable before its nonce"),
    ]  # fmt: skip

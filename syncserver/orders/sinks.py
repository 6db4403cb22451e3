"""Orders about sinks: who downstream is sent events, from where on, and when that pauses, begins anew or ends."""

from __future__ import annotations

import base64
import ipaddress
import re
import socket
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from syncserver import feed
from syncserver.access import ApiRole, Args, Desk, Order, every_school, number, refusal, roles, text
from syncserver.calendar import local_date
from syncserver.config import is_loopback
from syncserver.errors import RequestProblem
from syncserver.store import audit
from syncserver.store import sinks as rows
from syncserver.store.port import Reader, Transaction
from syncserver.store.sinks import ACTIVE, ENDED, PAUSED, Sink

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")  # no full stop: it parts what is signed
_URL_CHARS_MAX = 2_000
_SCHOOLS_MAX = 2_000
_SINKS_MAX = 100  # that have not ended; each costs a task and a connection
_SECRET_BYTES = 32


async def order_add(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`name`, `url`, one of `schools` (ids) and `all` (true); `after` (a sequence, 0) or `from_now` (true); `reason`.

    The secret is shown this once.
    """
    name, url = text(args, "name"), text(args, "url", chars_max=_URL_CHARS_MAX)
    if _NAME.fullmatch(name) is None:
        raise RequestProblem("bad-request", "a name is 1 to 40 of a-z 0-9 - (of an office or program, no person's)")
    _check_url(desk, url)
    schools = await _schools(desk.db, args)
    secret = f"whsec_{base64.b64encode(desk.ports.random.bytes(_SECRET_BYTES)).decode()}"
    async with desk.db.transaction() as tx:
        await _check_free(tx, name)
        sent_seq = await _begin(tx, args)
        sink = Sink(
            name=name, url=url, secret=secret, schools=schools, state=ACTIVE, sent_seq=sent_seq, planned_seq=None,
            generation=1, failures=0, next_try_ms=0, last_result="", last_try_ms=None, last_taken_ms=None,
            made_by=desk.who.actor, made_ms=desk.now_ms, ended_ms=None,
        )  # fmt: skip
        audit_id = await _record(tx, desk, "sink-add", sink, str(args.get("reason") or ""), after=_said(sink))
        await rows.write_sink(tx, sink, audit_id=audit_id)
    return {**told(sink), "secret": secret}


def _check_url(desk: Desk, url: str) -> None:
    """Only https; to this machine itself also http, and only if whoever runs it says so."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        valid = url.isascii() and url.isprintable() and " " not in url and parts.port != 0
    except ValueError:
        host, valid = "", False
    if not valid or not host or parts.scheme not in ("https", "http") or parts.username is not None or parts.fragment:
        raise RequestProblem("bad-request", "url is https://host/path, without a name, a password or a fragment in it")
    if _is_this_machine(host) and desk.who.role is not ApiRole.OPERATOR:
        raise refusal(
            "sink-on-this-machine",
            "a sink on the server's own machine is added by whoever runs it",
            arabic="إضافة وجهة على جهاز الخادم نفسه من صلاحية مشغّل الخادم",
            who="operator",
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise refusal(
            "sink-needs-https",
            "events go over https only; http reaches this machine alone",
            arabic="إرسال الأحداث لا يكون إلا عبر https",
            who="the consumer, with a certificate",
        )


def _is_this_machine(host: str) -> bool:
    """Whether an address means the server's own machine, in any spelling a resolver takes; no name is looked up."""
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(name))  # 127.1, 2130706433, 0x7f000001
        except OSError:
            return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback or address.is_unspecified


async def _schools(reader: Reader, args: Args) -> frozenset[str] | None:
    given = args.get("schools") or []
    if bool(given) == (args.get("all") is True):
        raise RequestProblem("bad-request", "say one of: schools, all")
    if args.get("all") is True:
        return None
    if type(given) is not list or len(given) > _SCHOOLS_MAX or any(type(school) is not str for school in given):
        raise RequestProblem("bad-request", f"schools is a list of at most {_SCHOOLS_MAX} ids")
    for school in given:
        if await reader.fetch_one("SELECT 1 FROM schools WHERE school = ?", (school,)) is None:
            raise RequestProblem("not-found", f"{school}: no such school")
    return frozenset(given)


async def _check_free(reader: Reader, name: str) -> None:
    if await rows.read_sink(reader, name) is not None:
        raise RequestProblem("bad-request", f"{name} was added before; a name belongs to one consumer for ever")
    row = await reader.fetch_one("SELECT count(*) FROM sinks WHERE state <> ?", (ENDED,))
    assert row is not None
    if row[0] >= _SINKS_MAX:
        raise RequestProblem("bad-request", f"there are {_SINKS_MAX} sinks already; remove one that is not used")


async def _begin(reader: Reader, args: Args) -> int:
    head = await feed.read_head(reader)
    if args.get("from_now") is True:
        return head
    after = number(args, "after") if "after" in args else 0
    if not 0 <= after <= head:
        raise RequestProblem("bad-request", f"after is a sequence of the feed: 0 to {head}")
    return after


async def order_list(desk: Desk, _: Args, __: bytes) -> dict[str, Any]:
    """Every sink there ever was: how far it is, what waits for it, what became of the last try. Without secrets."""
    found = []
    for sink in await rows.read_sinks(desk.db):
        waiting = 0 if sink.state == ENDED else (await rows.read_backlog(desk.db, sink)).events
        found.append({**told(sink), "waiting": waiting})
    return {"sinks": found, "feed": await feed.read_head(desk.db)}


def told(sink: Sink) -> dict[str, Any]:
    """What may be shown of a sink."""
    return {
        "name": sink.name,
        **_said(sink),
        "failures": sink.failures,
        "next_try_ms": sink.next_try_ms if sink.state == ACTIVE and sink.failures else None,
        "last_result": sink.last_result,
        "last_try_ms": sink.last_try_ms,
        "last_taken_ms": sink.last_taken_ms,
        "made_by": sink.made_by,
        "made_ms": sink.made_ms,
        "ended_ms": sink.ended_ms,
    }


def _said(sink: Sink) -> dict[str, Any]:
    """What it is and where it stands, also for the audit. A query may hold a secret of the consumer's."""
    base, query, _ = sink.url.partition("?")
    return {
        "url": f"{base}?…" if query else base,
        "schools": None if sink.schools is None else sorted(sink.schools),
        "state": sink.state,
        "sent_seq": sink.sent_seq,
    }


async def order_pause(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`name`, `reason`: nothing is sent until `sink-resume`; its place in the feed is kept."""
    return await _change(desk, args, "sink-pause", PAUSED)


async def order_resume(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`name`, `reason`: go on where it stopped, at once; also when it waits after failures."""
    return await _change(desk, args, "sink-resume", ACTIVE)


async def order_remove(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`name`, `reason`: ended for ever; what was is kept."""
    return await _change(desk, args, "sink-remove", ENDED)


async def _change(desk: Desk, args: Args, action: str, state: str) -> dict[str, Any]:
    name, reason = text(args, "name"), text(args, "reason")
    async with desk.db.transaction() as tx:
        before = await _open_sink(tx, desk, name)
        await rows.set_state(tx, name, state, ended_ms=desk.now_ms if state == ENDED else None)
        return await _changed(tx, desk, action, before, reason)


async def order_requeue(desk: Desk, args: Args, _: bytes) -> dict[str, Any]:
    """`name`, `from` (a sequence), `reason`: send that event and everything behind it again, under new webhook ids.

    One behind the feed's head skips all that waits; the audit keeps from where to where.
    """
    name, first, reason = text(args, "name"), number(args, "from"), text(args, "reason")
    async with desk.db.transaction() as tx:
        before = await _open_sink(tx, desk, name)
        head = await feed.read_head(tx)
        if not 1 <= first <= head + 1:
            raise RequestProblem("bad-request", f"from is a sequence of the feed: 1 to {head + 1}")
        await rows.send_anew(tx, name, sent_seq=first - 1)
        return await _changed(tx, desk, "sink-requeue", before, reason)


async def _open_sink(reader: Reader, desk: Desk, name: str) -> Sink:
    """A sink that has not ended."""
    sink = await rows.read_sink(reader, name)
    if sink is None:
        raise RequestProblem("not-found", f"{name}: no such sink")
    if sink.state == ENDED:
        assert sink.ended_ms is not None
        raise refusal(
            "sink-ended",
            f"{name} has ended; add a new one, which may begin where this one stopped",
            arabic="انتهاء هذه الوجهة نهائي؛ يُرجى إضافة وجهة جديدة",
            who="central, operator",
            closed_on=local_date(sink.ended_ms, desk.config.zone).isoformat(),
        )
    return sink


async def _changed(tx: Transaction, desk: Desk, action: str, before: Sink, reason: str) -> dict[str, Any]:
    after = await rows.read_sink(tx, before.name)
    assert after is not None
    await _record(tx, desk, action, after, reason, before=_said(before), after=_said(after))
    return told(after)


async def _record(
    tx: Transaction,
    desk: Desk,
    action: str,
    sink: Sink,
    reason: str,
    *,
    before: Mapping[str, object] | None = None,
    after: Mapping[str, object],
) -> int:
    return await audit.record(
        tx,
        at_ms=desk.now_ms,
        actor=desk.who.actor,
        action=action,
        subject=f"sink:{sink.name}",
        reason=reason,
        before=before,
        after=after,
    )


_OFFICES = roles(ApiRole.CENTRAL)
ORDERS: Mapping[str, Order] = {
    "sink-add": Order(run=order_add, roles=_OFFICES, about=every_school),
    "sink-list": Order(run=order_list, roles=roles(ApiRole.CENTRAL, ApiRole.AUDITOR), about=every_school),
    "sink-pause": Order(run=order_pause, roles=_OFFICES, about=every_school),
    "sink-remove": Order(run=order_remove, roles=_OFFICES, about=every_school),
    "sink-requeue": Order(run=order_requeue, roles=_OFFICES, about=every_school),
    "sink-resume": Order(run=order_resume, roles=_OFFICES, about=every_school),
}

"""A school system that speaks OneRoster 1.2 over REST, and our own routes for attendance (docs/handoff.md)."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from reconciliation.wire import iso
from syncserver.config import Config
from syncserver.errors import ConfigError
from syncserver.feed import MEDIA_TYPE
from syncserver.oneroster import ROLES, ROLES_DROPPED
from syncserver.ports import ServerPorts
from syncserver.rostermodel import Role
from syncserver.upstream.contract import Item, Seen, items_of
from syncserver.upstream.digests import ClassKey, Line, Tally
from syncserver.upstream.http import UpstreamHttp, open_http
from syncserver.upstream.port import ContractBroken, DayThere, PersonNow, Pulled, Reply, Upstream
from syncserver.upstream.tables import Tables

ATTENDANCE = "/hudur/v1/attendance"
_STATUS = frozenset(("active", "tobedeleted"))
_ROLE_WORDS = frozenset((*ROLES, *ROLES_DROPPED))
_STAFF_WORDS = frozenset(word for word, role in ROLES.items() if role is not Role.PUPIL)
_ANSWERS = frozenset(("accepted", "rejected"))
_CAUSE = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_CAUSE_CHARS_MAX = 40
_HEX = re.compile(r"[0-9a-f]{64}")


@asynccontextmanager
async def open_upstream(config: Config, ports: ServerPorts) -> AsyncIterator[Upstream]:
    """The school system of a server's settings.

    Raises:
        ConfigError: there is none.
    """
    if config.upstream is None:
        raise ConfigError("no-upstream", "no school system is set: HUDUR_UPSTREAM_URL (docs/handoff.md)")
    async with open_http() as http:
        yield RestUpstream(UpstreamHttp(config.upstream, ports, http))


class RestUpstream:
    """See `Upstream`."""

    def __init__(self, http: UpstreamHttp) -> None:
        self._http = http

    async def roster(self) -> Pulled:
        """See `Upstream`. Collections in the order in which each may refer to those before it."""
        tables = Tables()
        seen = Seen()
        used: dict[str, Sequence[str]] = {}
        for name, take in tables.takers().items():
            part = Seen()
            async for items in self._http.pages(name, part):
                for item in items:
                    take(item)
                    item.close()
            used[name] = sorted(part.used)
            seen.dropped.update(part.dropped)
        return Pulled(archive=tables.archive(), dropped=dict(sorted(seen.dropped.items())), fields=used)

    async def people_changed(self, since_ms: int) -> list[PersonNow]:
        """See `Upstream`."""
        return [
            _person(item)
            async for items in self._http.pages("users", Seen(), where=_changed_after(since_ms))
            for item in items
        ]

    async def enrolments_changed(self, since_ms: int) -> list[int]:
        """See `Upstream`."""
        return [
            item.moment("dateLastModified")
            async for items in self._http.pages("enrollments", Seen(), where=_changed_after(since_ms))
            for item in items
        ]

    async def send(self, events: Sequence[Mapping[str, Any]]) -> list[Reply]:
        """See `Upstream`. The same bytes as the feed gives for these events."""
        body = json.dumps(list(events), ensure_ascii=False, separators=(",", ":")).encode()
        name = "attendance/events"
        answer = await self._http.post(name, f"{ATTENDANCE}/events", body, MEDIA_TYPE)
        replies = [_reply(item) for item in items_of(name, "results", answer, Seen())]
        if sorted(one.id for one in replies) != sorted(str(event["id"]) for event in events):
            raise ContractBroken(name, ".results", "one answer for each event that was sent", "others")
        return replies

    async def day(self, date: str) -> DayThere:
        """See `Upstream`."""
        name = "attendance/digests"
        answer = await self._http.get(name, f"{ATTENDANCE}/digests", {"date": date})
        found: dict[ClassKey, Tally] = {}
        for item in items_of(name, "classes", answer, Seen()):
            key = (item.id("school"), item.id("class"))
            if key in found:
                raise ContractBroken(name, ".classes", "each class once", "one that comes twice")
            digest = item.text("digest")
            if _HEX.fullmatch(digest) is None:
                raise item.wrong("digest", "64 hex digits")
            found[key] = Tally(count=item.count("count"), digest=digest)
        return DayThere(classes=found)

    async def lines(self, key: ClassKey, date: str) -> list[Line]:
        """See `Upstream`."""
        name = "attendance/class"
        params = {"date": date, "school": key[0]}
        answer = await self._http.get(name, f"{ATTENDANCE}/classes/{key[1]}", params)
        return [_line(item) for item in items_of(name, "marks", answer, Seen())]


def _changed_after(since_ms: int) -> str:
    return f"dateLastModified>'{iso(since_ms)}'"


def _person(item: Item) -> PersonNow:
    """A changed user. A word we do not know is a fault: read as *no role*, it would end somebody."""
    status = item.word("status", _STATUS)
    if status == "tobedeleted":  # nothing else of a withdrawn person needs to be readable to end them
        return PersonNow(user_id=item.text("sourcedId"), modified_ms=item.moment("dateLastModified"), withdrawn=True)
    posts: dict[str, str | None] = {}
    for role in item.many("roles"):
        word, school, until = role.word("role", _ROLE_WORDS), role.ref("org"), role.date("endDate") or None
        if word in _STAFF_WORDS:
            known = posts.get(school, "")
            posts[school] = None if until is None or known is None else max(until, known)
    enabled = item.flag("enabledUser")
    return PersonNow(
        user_id=item.text("sourcedId"),
        modified_ms=item.moment("dateLastModified"),
        withdrawn=not enabled,
        posts=posts,
    )


def _line(item: Item) -> Line:
    return Line(
        session=item.text("session"), pupil=item.id("pupil"), code=item.text("code"), reason=item.maybe("reason")
    )


def _reply(item: Item) -> Reply:
    event, status = item.text("id"), item.word("status", _ANSWERS)
    if status == "accepted":
        return Reply(id=event, cause=None)
    cause = item.text("cause")
    if _CAUSE.fullmatch(cause) is None or len(cause) > _CAUSE_CHARS_MAX:
        raise item.wrong("cause", f"a slug: a-z 0-9 -, at most {_CAUSE_CHARS_MAX} characters")
    return Reply(id=event, cause=cause)

"""Pull: what a device lacks since its cursor, in rounds of bounded size.

The cursor is opaque to devices: a few bytes that say how far each kind of item was told. A cursor of another log epoch,
one that cannot be read, or one that is ahead of the log (a copy was restored without a new epoch) starts from the
beginning; what is told twice does no harm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, timedelta

from clientcore.change import plain_chunk
from clientcore.exchange import Payload, write_payload
from clientcore.frame import Ask
from clientcore.limits import PAYLOAD_BYTES_MAX
from clientcore.wire import Value, pack
from syncserver.calendar import calendar_item, calendar_of, local_date
from syncserver.config import Config
from syncserver.cursor import ALL_ROSTERS, CALENDAR_MASK, CLASSES_BYTES, REBUILDS, TEACHING_BYTES, Cursor
from syncserver.errors import ReplicaBehind
from syncserver.ports import ServerPorts
from syncserver.rostermodel import Role
from syncserver.store import pulled, roster
from syncserver.store.devices import Identity
from syncserver.store.heads import read_heads
from syncserver.store.lists import list_of, merges_in
from syncserver.store.log import Contact, read_contact
from syncserver.store.port import Database, Reader
from syncserver.store.replica import AS_OF, Replica
from syncserver.store.roster import ClassRow

_BUDGET_BYTES = PAYLOAD_BYTES_MAX - 2_048  # room for the cursor, the envelope and the last item's head
_WORDS_PER_ROUND = 400
_GLANCE_WORDS_MAX = 2_000  # of everybody, for a phone whose classes are many
_ARCHIVED_PER_ROUND = 1_000
_RECENT = timedelta(days=21)  # what the screen shows (14 days) and a week for late phones; a rebuild takes everything
_NOTICE_BITS = {"restored-copy": 1, "revoked": 2}

_USERS_MAX = 32_768

Item = tuple[object, ...]


def _is_little(ask: Ask, cursor: Cursor, contact: Contact) -> bool:
    """Whether a pull reads so little that nobody is held up by it.

    What a teacher's phone was not told yet of a few classes is little, however much of others' lies between; a new
    phone walks over the year of those classes, once: some milliseconds. A champion has all classes of the school.
    """
    if ask.have is not None or cursor.notices & REBUILDS:  # a rebuild
        return False
    return contact.role != Role.CHAMPION or contact.settled_seq - cursor.seq <= _GLANCE_WORDS_MAX


class _Round:
    """Items of one answer within their budget."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.room = _BUDGET_BYTES

    def copy(self) -> _Round:
        """One to go on with, or to throw away."""
        other = _Round()
        other.items, other.room = list(self.items), self.room
        return other

    def add(self, item: Item) -> bool:
        """Take an item unless it does not fit any more; an answer always takes its first."""
        size = len(pack(list(item)))  # type: ignore[arg-type]
        if size > self.room and self.items:
            return False
        self.items.append(item)
        self.room -= size
        return True


class Puller:
    """Builds pull payloads from the store."""

    def __init__(
        self, config: Config, db: Database, ports: ServerPorts, epoch: int, replica: Replica | None = None
    ) -> None:
        self._config, self._db, self._ports, self._epoch, self._replica = config, db, ports, epoch, replica
        self._calendars: dict[str, tuple[tuple[str, date, int, int], tuple[int, Item]]] = {}
        self._teaching: dict[tuple[str, str], tuple[tuple[date, int], list[ClassRow]]] = {}
        self._schools: dict[str, tuple[tuple[date, int], list[ClassRow]]] = {}

    async def first(self, identity: Identity, notices: Sequence[str]) -> bytes:
        """The payload of an enrolment: classes, rosters and calendar come with the key."""
        ask = Ask(nonce=None, cursor=None, have=None, app="", unsent=0, done=0)
        contact = await read_contact(self._db, identity.device)
        assert contact is not None  # it was enrolled a moment ago
        return await self.build(identity, contact, ask, [("notice", slug) for slug in notices])

    async def build(self, identity: Identity, contact: Contact, ask: Ask, extra: Sequence[Item] = ()) -> bytes:
        """One round for a device that proved it is the one talking now."""
        today = local_date(self._ports.clock.wall_ms(), self._config.zone)
        cursor = Cursor.read(ask.cursor, self._epoch)
        if cursor.seq > contact.settled_seq:
            await pulled.note_ahead(
                self._db, identity.device, told=cursor.seq, head=contact.settled_seq, now_ms=self._ports.clock.wall_ms()
            )
            cursor = Cursor(epoch=self._epoch)
        if ask.cursor is None and ask.have is not None:
            cursor = replace(cursor, notices=cursor.notices | REBUILDS)
        out = _Round()
        for item in extra:
            out.add(item)
        cursor = self._add_notices(out, cursor, contact)
        if contact.waiting_directives:
            await self._add_directives(out, identity, ask)

        cursor, more = await self._told(out, cursor, identity, contact, ask, today)
        return write_payload(Payload(cursor=cursor.to_bytes(), more=more, items=tuple(out.items)))

    async def _told(
        self, out: _Round, cursor: Cursor, identity: Identity, contact: Contact, ask: Ask, today: date
    ) -> tuple[Cursor, bool]:
        """Read it from the store, or from its replica; a replica that is behind tells nothing, and the cursor stays."""
        if self._replica is None:
            read = self._db.glance if _is_little(ask, cursor, contact) else self._db.snapshot
            return await read(lambda reader: self._look(reader, out, cursor, identity, contact, ask, today))
        if ask.have is not None:  # about the log as it is now: a change the replica lacks would be asked for again
            await self._add_want(self._db, out, identity, contact, ask.have, today)
        # Before the replica is read: what it lacks of this is then known to be missing.
        unsettled = bool(cursor.notices & REBUILDS) and await pulled.has_unsettled(self._db, identity.device)
        head = await read_heads(self._db, contact.school) if cursor.notices & REBUILDS else None

        async def look(reader: Reader) -> tuple[_Round, Cursor, bool] | None:
            theirs = await read_heads(reader, contact.school)
            if theirs.roster < contact.roster_version or theirs.calendar < contact.calendar_version:
                return None  # known to be outdated
            if theirs.settled < cursor.seq:
                return None  # the device was told more, by a copy that was further
            seen = replace(
                contact, roster_version=theirs.roster, calendar_version=theirs.calendar, settled_seq=theirs.settled,
                archived=theirs.archived,
            )  # fmt: skip
            tried = out.copy()
            told, more = await self._look(reader, tried, cursor, identity, seen, ask, today)
            if head is not None and (unsettled or theirs.settled < head.settled):
                told = replace(told, notices=told.notices | REBUILDS)
            return tried, told, more

        try:
            found, as_of_ms = await self._replica.read(look)
        except ReplicaBehind:
            return cursor, False
        if found is None:
            return cursor, False
        tried, told, more = found
        AS_OF.set(as_of_ms)
        out.items, out.room = tried.items, tried.room
        return told, more

    async def _look(
        self, reader: Reader, out: _Round, cursor: Cursor, identity: Identity, contact: Contact, ask: Ask, today: date
    ) -> tuple[Cursor, bool]:
        """Everything that is read, at one moment of the store; returns the cursor and whether there is more."""
        if ask.have is not None and self._replica is None:
            await self._add_want(reader, out, identity, contact, ask.have, today)
        cursor = await self._add_calendar(reader, out, cursor, contact, today)
        cursor, whole, classes = await self._add_classes(reader, out, cursor, contact, today)
        more = not whole
        if whole:
            cursor, more = await self._add_words(reader, out, cursor, identity, contact, classes, ask.have, today)
        if whole and not more and contact.archived > cursor.archived:
            cursor, more = await self._add_archived(reader, out, cursor, identity, contact)
        return cursor, more

    @staticmethod
    def _add_notices(out: _Round, cursor: Cursor, contact: Contact) -> Cursor:
        bit = _NOTICE_BITS.get(contact.flag or "", 0)
        if not bit or cursor.notices & bit:
            return cursor
        out.add(("notice", contact.flag))
        return replace(cursor, notices=cursor.notices | bit)

    async def _add_directives(self, out: _Round, identity: Identity, ask: Ask) -> None:
        now_ms = self._ports.clock.wall_ms()
        for one in await pulled.take_directives(self._db, identity.device, done=ask.done, now_ms=now_ms):
            out.add(("directive", one.id, one.level, one.reason, one.made_ms))

    async def _add_want(
        self, reader: Reader, out: _Round, identity: Identity, contact: Contact, have: bytes, today: date
    ) -> None:
        names = [have[at : at + 8] for at in range(0, len(have), 8)]
        classes = [one.id for one in await self._classes(reader, contact, today)]
        known = await pulled.known_names(reader, identity.device, identity.school, classes, names)
        out.add(("want", b"".join(name for name in names if name not in known)))

    async def _add_calendar(self, reader: Reader, out: _Round, cursor: Cursor, contact: Contact, today: date) -> Cursor:
        version, item = await self._calendar(reader, contact, today)
        if version & CALENDAR_MASK == cursor.calendar or not out.add(item):
            return cursor
        return replace(cursor, calendar=version & CALENDAR_MASK)

    async def _calendar(self, reader: Reader, contact: Contact, today: date) -> tuple[int, Item]:
        """The school's calendar item; read again only when its calendar, its roster or the date has changed."""
        name = (contact.school, today, contact.roster_version, contact.calendar_version)
        found = self._calendars.get(contact.school)
        if found is None or found[0] != name:
            calendar = await calendar_of(reader, contact.school, self._config.zone, today.year)
            found = (name, calendar_item(today, calendar))
            self._calendars[contact.school] = found
        return found[1]

    async def _classes(self, reader: Reader, contact: Contact, today: date) -> list[ClassRow]:
        """The user's classes; read again only when the roster or the date has changed."""
        user, name = (contact.school, contact.user_id), (today, contact.roster_version)
        found = self._teaching.get(user)
        if found is None or found[0] != name:
            rows = await self._school(reader, contact.school, name)
            ids = await roster.class_ids_of(reader, *user, today.isoformat())
            found = (name, [one for one in rows if ids is None or one.id in ids])
            if len(self._teaching) >= _USERS_MAX:
                self._teaching.clear()
            self._teaching[user] = found
        return found[1]

    async def _school(self, reader: Reader, school: str, name: tuple[date, int]) -> list[ClassRow]:
        """All classes of a school, with the merges of their lists in their versions: its teachers ask one by one."""
        found = self._schools.get(school)
        if found is None or found[0] != name:
            merges = await merges_in(reader, school)
            classes = await roster.classes_in(reader, school, name[0].isoformat())
            found = (name, [replace(one, version=one.version + merges.get(one.id, 0)) for one in classes])
            self._schools[school] = found
        return found[1]

    async def _add_classes(
        self, reader: Reader, out: _Round, cursor: Cursor, contact: Contact, today: date
    ) -> tuple[Cursor, bool, list[ClassRow]]:
        """Classes and rosters; returns the cursor, whether everything of them is told, and the classes."""
        classes = await self._classes(reader, contact, today)
        teaching = _digest([[one.id, one.name, one.grade, one.version] for one in classes], TEACHING_BYTES)
        if teaching == cursor.teaching and cursor.next_roster == ALL_ROSTERS:
            return cursor, True, classes
        at = cursor.next_roster - 1 if teaching == cursor.teaching and cursor.next_roster else 0
        if at == 0 and not out.add(("classes", [[one.id, one.name, one.grade] for one in classes])):
            return cursor, False, classes
        which = _digest([one.id for one in classes], CLASSES_BYTES)
        if which != cursor.classes:  # a new class brings what was marked there before; the rest comes twice
            cursor = replace(cursor, classes=which, seq=0)
        while at < len(classes):
            one = classes[at]
            pupils = await list_of(reader, contact.school, one.id, today.isoformat())
            if not out.add(("roster", one.id, one.version, [list(pupil) for pupil in pupils])):
                return replace(cursor, teaching=teaching, next_roster=at + 1), False, classes
            at += 1
        return replace(cursor, teaching=teaching, next_roster=ALL_ROSTERS), True, classes

    async def _add_words(
        self,
        reader: Reader,
        out: _Round,
        cursor: Cursor,
        identity: Identity,
        contact: Contact,
        classes: Sequence[ClassRow],
        have: bytes | None,
        today: date,
    ) -> tuple[Cursor, bool]:
        """What was settled of the device's own changes, and changes it lacks: others' and, in a rebuild, its own."""
        if contact.settled_seq <= cursor.seq:
            return await self._at_the_end(reader, cursor, identity), False
        whole = bool(cursor.notices & REBUILDS)
        since = "0000-00-00" if whole else (today - _RECENT).isoformat()
        words = await pulled.read_words(
            reader, identity, [one.id for one in classes], cursor.seq, since, _WORDS_PER_ROUND, own_chunks=whole
        )
        held = {have[at : at + 8] for at in range(0, len(have), 8)} if have else set()
        settled: dict[tuple[str, int], list[list[object]]] = {}
        told = cursor.seq
        full = len(words) == _WORDS_PER_ROUND
        for word in words:
            lacking = word.chunk is not None and word.hash[:8] not in held
            if lacking and not out.add(("change", word.register, word.user_id, plain_chunk(word.chunk or b""))):
                full = True
                break
            if word.is_own:
                settled.setdefault((word.register, word.revision), []).append([word.hash[:8], word.state, word.slug])
                out.room -= 64  # an upper bound of one entry and its register's name
            told = word.seq
            if out.room < 0:
                full = True
                break
        out.items += [("settled", register, revision, entries) for (register, revision), entries in settled.items()]
        cursor = replace(cursor, seq=told)
        return (cursor if full else await self._at_the_end(reader, cursor, identity)), full

    async def _add_archived(
        self, reader: Reader, out: _Round, cursor: Cursor, identity: Identity, contact: Contact
    ) -> tuple[Cursor, bool]:
        """Which of its own changes lie in a verified backup; said last, when everything else was told."""
        names = await pulled.read_archived(
            reader, identity.device, cursor.archived, contact.archived, _ARCHIVED_PER_ROUND
        )
        if names and not out.add(("archived", b"".join(digest[:8] for _, digest in names))):
            return cursor, True
        full = len(names) == _ARCHIVED_PER_ROUND
        return replace(cursor, archived=names[-1][0] if full else contact.archived), full

    async def _at_the_end(self, reader: Reader, cursor: Cursor, identity: Identity) -> Cursor:
        """The cursor of a walk that has told all there is: a rebuild is over, own changes are not sent back any more.

        Unless some of them are not settled yet: a phone restored from an old copy lacks those as well.
        """
        if not cursor.notices & REBUILDS or await pulled.has_unsettled(reader, identity.device):
            return cursor
        return replace(cursor, notices=cursor.notices & ~REBUILDS)


def _digest(told: Value, size: int) -> int:
    return int.from_bytes(hashlib.sha256(pack(told)).digest()[:size], "big")

"""Signed commands of a device's user (docs/protocol.md section 8): who asks, may they, and what they get."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from clientcore.errors import FrameRefused
from clientcore.exchange import Answer, Call, Receipts, read_call, request_digest, sign_answer
from clientcore.wire import Value, pack, shape
from syncserver.access import ApiRole, Desk, Principal, give
from syncserver.bundles import Bundles
from syncserver.calendar import calendar_of, local_date
from syncserver.config import Config
from syncserver.enrol import check_code, make_code
from syncserver.errors import RequestProblem
from syncserver.orders import ORDERS
from syncserver.ports import ServerPorts
from syncserver.quota import SAME_BYTES_PER_MINUTE, Quota
from syncserver.store import audit, champion, roster
from syncserver.store.devices import DeviceBook, Identity
from syncserver.store.meta import Meta
from syncserver.store.port import Database

CHAMPION, TEACHER = "champion", "teacher"
_REASON_MAX = 200
_DEVICES_MAX = 800  # rows that fit an answer of 128 kB


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A proven caller: the device, its user and the user's role now."""

    identity: Identity
    role: str
    last_number: int

    @property
    def actor(self) -> str:
        """How the audit names them."""
        return f"user:{self.identity.school}/{self.identity.user_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a command gives: plain data, and receipts where frames were carried."""

    value: Value
    receipts: Receipts = ()


Command = Callable[[Caller, list[Any]], Awaitable[Result]]


class Calls:
    """Checks calls and carries them out."""

    def __init__(
        self,
        config: Config,
        db: Database,
        ports: ServerPorts,
        meta: Meta,
        book: DeviceBook,
        bundles: Bundles,
        settled_wake: asyncio.Event,
    ) -> None:
        self._config, self._db, self._ports, self._meta, self._book = config, db, ports, meta, book
        self._bundles, self._settled_wake = bundles, settled_wake
        self._quota = Quota(ports.clock, burst=config.device_burst, per_minute=config.device_per_minute)
        self._same = Quota(ports.clock, burst=SAME_BYTES_PER_MINUTE, per_minute=SAME_BYTES_PER_MINUTE)
        self._commands: dict[str, tuple[frozenset[str], Command]] = {
            "devices": (frozenset((CHAMPION,)), self._devices),
            "users": (frozenset((CHAMPION,)), self._users),
            "code": (frozenset((CHAMPION,)), self._code),
            "resync": (frozenset((CHAMPION,)), self._resync),
            "order": (frozenset((TEACHER, CHAMPION)), self._order),  # each order has roles of its own
        }

    async def call(self, body: bytes) -> bytes:
        """Answer `POST /v1/call`.

        Raises:
            FrameRefused: by shape and limits.
            RequestProblem: by the table.
        """
        call = read_call(body)
        roles, command = self._commands.get(call.command, (None, None))
        if roles is None or command is None:
            raise FrameRefused("bad-frame", "no such command")
        return await self._answer(body, call, roles, command)

    async def bundle(self, body: bytes) -> bytes:
        """Answer `POST /v1/bundles`."""
        call = read_call(body)
        if call.command != "bundle":
            raise FrameRefused("bad-frame", "only bundle is taken here")
        return await self._answer(body, call, frozenset((TEACHER, CHAMPION)), self._bundle)

    async def _answer(self, body: bytes, call: Call, roles: frozenset[str], command: Command) -> bytes:
        caller = await self._prove(call)
        if caller.role not in roles:
            raise RequestProblem("forbidden", "ask your school's champion")
        nonce = await self._renew_nonce(call)
        result = await command(caller, list(call.args))
        head = await self._db.fetch_one("SELECT hash FROM audit ORDER BY id DESC LIMIT 1")
        return sign_answer(
            self._meta.key,
            Answer(
                request=request_digest(body),
                server_ms=self._ports.clock.wall_ms(),
                epoch=self._meta.epoch,
                nonce=nonce,
                last_number=caller.last_number,
                receipts=result.receipts,
                head=None if head is None else head[0][:16],
                payload=pack(result.value),
            ),
        )

    async def _prove(self, call: Call) -> Caller:
        identity = await self._book.identity(call.device)
        if identity is None:
            raise RequestProblem("unknown-device", "enrol again; the work on the device stays")
        if call.env != self._config.env or call.school != identity.school:
            raise RequestProblem("wrong-audience", "made for another school or environment")
        if not call.is_signed_by(identity.public_key):
            raise RequestProblem("bad-signature", "the call was not signed by this device")
        self._quota.check(identity.device)  # charged with the nonce: an old call that is replayed costs nothing
        self._same.take(request_digest(call.signed))
        today = local_date(self._ports.clock.wall_ms(), self._config.zone).isoformat()
        person = await roster.user(self._db, identity.school, identity.user_id, today)
        row = await self._db.fetch_one("SELECT revoked_ms, last_number FROM devices WHERE id = ?", (call.device,))
        if person is None or not person.active or row is None or row[0] is not None:
            raise RequestProblem("revoked", "ask your school's champion")
        return Caller(identity=identity, role=str(person.role), last_number=row[1])

    async def _renew_nonce(self, call: Call) -> bytes:
        """Use the call's nonce up, so that the same call never counts twice."""
        now_ms = self._ports.clock.wall_ms()
        async with self._db.transaction() as tx:
            fresh = audit.witnessing_nonce(self._ports.random.bytes(8), await audit.read_head(tx))
            used = await tx.execute(
                "UPDATE devices SET nonce = ?, last_contact_ms = ? WHERE id = ? AND nonce = ?",
                (fresh, now_ms, call.device, call.nonce),
            )
            row = await tx.fetch_one("SELECT nonce FROM devices WHERE id = ?", (call.device,))
        if not used:
            # The current nonce, not a new one: whoever replays an old call must not use up the real device's.
            assert row is not None
            raise RequestProblem("stale-nonce", "sign again", extra={"nonce": (row[0] or b"").hex()})
        self._quota.charge(call.device)
        return fresh

    async def _devices(self, caller: Caller, args: list[Any]) -> Result:
        shape(args)
        school, now_ms, zone = caller.identity.school, self._ports.clock.wall_ms(), self._config.zone
        calendar = await calendar_of(self._db, school, zone, local_date(now_ms, zone).year)
        rows = await champion.devices_of(self._db, school, now_ms=now_ms, zone=zone, calendar=calendar)
        return Result(
            value=[
                [
                    one.device,
                    one.user_id,
                    one.user_name,
                    one.role,
                    one.label,
                    list(one.classes),
                    one.last_contact_ms,
                    one.school_days_silent,
                    one.unsent,
                    one.clock_offset_ms,
                    one.app,
                    one.state,
                    None if one.directive is None else list(one.directive),
                    one.short_number,
                ]
                for one in rows[:_DEVICES_MAX]
            ]
        )

    async def _users(self, caller: Caller, args: list[Any]) -> Result:
        shape(args)
        school = caller.identity.school
        today = local_date(self._ports.clock.wall_ms(), self._config.zone).isoformat()
        counts = await champion.device_counts(self._db, school)
        staff = await roster.staff_of(self._db, school, today)
        return Result(
            value=[
                [one.id, one.name, str(one.role), list(one.classes), counts.get(one.id, 0)]
                for one in staff
                if one.active
            ]
        )

    async def _code(self, caller: Caller, args: list[Any]) -> Result:
        (user_id,) = shape(args, str)
        school = caller.identity.school
        today = local_date(self._ports.clock.wall_ms(), self._config.zone).isoformat()
        person = await roster.user(self._db, school, user_id, today)
        if person is None or not person.active or str(person.role) not in (TEACHER, CHAMPION):
            raise RequestProblem("forbidden", "no teacher of your school has this id")
        check_code(caller.identity.user_id, user_id, str(person.role))
        code, expires_ms = await make_code(self._db, self._ports, school=school, user_id=user_id, made_by=caller.actor)
        return Result(value=[code, expires_ms])

    async def _resync(self, caller: Caller, args: list[Any]) -> Result:
        device, level, reason = shape(args, (16, None), str, str)
        school = caller.identity.school
        if level not in champion.LEVELS or not reason.strip() or len(reason) > _REASON_MAX:
            raise FrameRefused("bad-frame", "a level and a reason are needed")
        living = await champion.living_devices(self._db, school)
        if device is not None and device not in living:
            raise RequestProblem("forbidden", "no living device of your school has this id")
        ids = await champion.order_resync(
            self._db,
            devices=living if device is None else [device],
            level=level,
            reason=reason.strip(),
            actor=caller.actor,
            subject=school if device is None else device.hex(),
            now_ms=self._ports.clock.wall_ms(),
        )
        return Result(value=list(ids))

    async def _order(self, caller: Caller, args: list[Any]) -> Result:
        """One of `ORDERS`, with the same check as behind every other door; a phone speaks about its own school."""
        name, written = shape(args, str, str)
        order = ORDERS.get(name)
        if order is None:
            raise RequestProblem("not-found", "no such order")
        try:
            given = json.loads(written)
        except (ValueError, RecursionError):
            given = None
        if not isinstance(given, dict):
            raise RequestProblem("bad-request", "the arguments are a JSON object")
        who = Principal(
            role=ApiRole(caller.role),
            actor=caller.actor,
            schools=frozenset((caller.identity.school,)),
            user_id=caller.identity.user_id,
        )
        result = await give(order, Desk(config=self._config, db=self._db, ports=self._ports, who=who), given)
        self._settled_wake.set()
        return Result(value=json.dumps(result, ensure_ascii=False))

    async def _bundle(self, caller: Caller, args: list[Any]) -> Result:
        (file,) = shape(args, bytes)
        taken = await self._bundles.take(caller.identity, file)
        return Result(value=taken.value, receipts=taken.receipts)

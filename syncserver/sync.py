"""The conversations of docs/protocol.md sections 4 and 7: a request's bytes in, the signed answer out."""

from __future__ import annotations

from clientcore.exchange import (
    DURABLE,
    Answer,
    Enrolled,
    Payload,
    read_enrol,
    request_digest,
    sign_answer,
    sign_enrolled,
    write_payload,
)
from clientcore.frame import Ask
from clientcore.keys import short_number
from syncserver.calendar import local_date
from syncserver.checking import Checker
from syncserver.config import Config
from syncserver.cursor import Cursor
from syncserver.enrol import enrol
from syncserver.entrance import Asked, Entrance, claimed_device
from syncserver.errors import RequestProblem
from syncserver.intake import Intake
from syncserver.metrics import Metrics
from syncserver.ports import ServerPorts
from syncserver.pull import Puller
from syncserver.quota import SAME_BYTES_PER_MINUTE, Quota
from syncserver.store import roster
from syncserver.store.devices import Identity
from syncserver.store.log import Appended, Push
from syncserver.store.meta import Meta
from syncserver.store.port import Database


class Conversations:
    """Sync and enrolment."""

    def __init__(
        self,
        config: Config,
        db: Database,
        ports: ServerPorts,
        metrics: Metrics,
        meta: Meta,
        checker: Checker,
        intake: Intake,
        puller: Puller,
        entrance: Entrance,
    ) -> None:
        self._config, self._db, self._ports, self._metrics, self._meta = config, db, ports, metrics, meta
        self._checker, self._intake, self._puller, self._entrance = checker, intake, puller, entrance
        self._devices = Quota(ports.clock, burst=config.device_burst, per_minute=config.device_per_minute)
        self._same = Quota(ports.clock, burst=SAME_BYTES_PER_MINUTE, per_minute=SAME_BYTES_PER_MINUTE)
        self._codes = Quota(ports.clock, burst=config.codes_per_minute, per_minute=config.codes_per_minute)

    def asked(self, body: bytes) -> Asked:
        """What a sync request asks for, from outside: nothing of it is proved yet.

        A device that is over its quota is told so here, before its signature costs anything. Only what a device itself
        has signed is ever charged to it, so whoever claims another's name slows nobody but themselves.

        Raises:
            RequestProblem: `slow-down`.
        """
        device = claimed_device(body)
        if device is not None:
            self._devices.check_known(device)
        return self._entrance.pushed(body)

    async def sync(self, body: bytes) -> bytes:
        """Answer `POST /v1/sync`.

        Raises:
            FrameRefused: by shape and limits.
            RequestProblem: every other row of the table.
            StoreFailed: nothing was acknowledged.
        """
        device = claimed_device(body)
        if device is not None:
            self._devices.check_known(device)  # again: others of it may have been counted while this one waited
        identity, arrivals = await self._checker.read(body)
        # Known bytes cost their device nothing: whoever replays them must not use up its quota, only that of the bytes.
        self._devices.check(identity.device)
        self._same.take(arrivals[-1].frame.hash)
        ask = arrivals[-1].frame.ask
        push = Push(
            device=identity.device,
            arrivals=tuple(arrivals),
            nonce=self._intake.nonce(),
            asked_nonce=None if ask is None else ask.nonce,
        )
        appended = await self._intake.commit(push)
        if appended.new_frames:
            self._devices.charge(identity.device)
        if appended.contact.revoked:
            raise RequestProblem("revoked", "your work is kept for your champion to decide", held=appended.held)
        payload = None
        if ask is not None and appended.fresh:
            payload = self._receipt_alone(ask, appended) or await self._puller.build(identity, appended.contact, ask)
        return self.answer(body, appended, payload)

    def _receipt_alone(self, ask: Ask, appended: Appended) -> bytes | None:
        """While registers are put off, the payload that tells nothing yet: its cursor is the ask's own.

        None where a phone is told at once: it has nothing to be confirmed, so perhaps it would not ask again soon; an
        order waits for it; or it is in the middle of something that a payload without more would end.
        """
        if not self._entrance.puts_registers_off or ask.cursor is None or ask.have is not None:
            return None
        if appended.contact.waiting_directives or not Cursor.read(ask.cursor, self._meta.epoch).has_rosters:
            return None
        if not any(verdict.kind == DURABLE for frame in appended.verdicts for verdict in frame):
            return None
        self._metrics.postponed.inc()
        return write_payload(Payload(cursor=ask.cursor, more=False, items=()))

    def answer(self, body: bytes, appended: Appended, payload: bytes | None) -> bytes:
        """The signed answer to a push whose changes are on disk."""
        return sign_answer(
            self._meta.key,
            Answer(
                request=request_digest(body),
                server_ms=self._ports.clock.wall_ms(),
                epoch=self._meta.epoch,
                nonce=appended.nonce,
                last_number=appended.last_number,
                receipts=appended.verdicts,
                head=None if appended.audit_head is None else appended.audit_head[:16],
                payload=payload,
            ),
        )

    async def enrol(self, body: bytes) -> bytes:
        """Answer `POST /v1/enrol`.

        Raises:
            FrameRefused: by shape, limits or signature.
            RequestProblem: `bad-code`, `code-locked`, `code-expired`, `code-used`, `slow-down`, `wrong-audience`.
        """
        request = read_enrol(body)
        today = local_date(self._ports.clock.wall_ms(), self._config.zone).isoformat()
        school_name = await roster.school_name(self._db, request.school)
        # Schools nobody knows share one bucket, so that inventing names does not multiply the tries.
        self._codes.take(request.school if school_name is not None else "")
        enrolment = await enrol(self._db, self._ports, request)
        person = await roster.user(self._db, request.school, enrolment.user_id, today)
        if person is None or school_name is None:
            raise RequestProblem("bad-code", "this person is not on the school's list any more")
        identity = Identity(
            device=enrolment.device, school=request.school, user_id=person.id, public_key=request.public_key
        )
        payload = await self._puller.first(identity, ["wiped-phone"] if enrolment.wiped else [])
        return sign_enrolled(
            self._meta.key,
            Enrolled(
                env=self._config.env,
                school=request.school,
                school_name=school_name,
                device=enrolment.device,
                user_id=person.id,
                user_name=person.name,
                role=str(person.role),
                server_key=self._meta.key.public,
                server_ms=self._ports.clock.wall_ms(),
                epoch=self._meta.epoch,
                nonce=enrolment.nonce,
                short_number=short_number(request.public_key),
                payload=payload,
            ),
            request=body,
        )

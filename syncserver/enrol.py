"""Enrolment: a code of the champion turns a phone's new key into a device of one person.

Invariants:
  1. A code works once, for 15 minutes, and dies at the fifth wrong try; a try is counted before it is checked, so that
     parallel guesses do not come for free.
  2. An unknown code costs the same work and gets the same answer as a wrong one.
  3. The same phone asking again with the same key and code gets the same device: the answer may have been lost.
  4. Devices under different labels are different devices. Under no label at all, an earlier device is taken for the
     same one only when it is the person's only one without a label: of two, nobody knows which came back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from clientcore.exchange import EnrolRequest
from clientcore.keys import device_id
from syncserver.access import refusal
from syncserver.errors import RequestProblem
from syncserver.ports import ServerPorts
from syncserver.store import audit
from syncserver.store.port import Database, Row, Transaction

ALPHABET = "BCDFGHJKLMNPQRSTVWXZ"
NAME_LETTERS = 3
CODE_LETTERS = 10
CODE_VALID_MS = 900_000
TRIES_MAX = 5
_CODE = re.compile(rf"[{ALPHABET}]{{{CODE_LETTERS}}}")
_EARLIER = """SELECT id FROM devices WHERE school = ? AND user_id = ? AND id <> ? AND label = ?
AND revoked_ms IS NULL AND coalesce(flag, '') <> 'wiped-phone'"""
_NAME_DRAWS = 200  # 8,000 names for the live codes of one school: a free one is found at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What an accepted code led to.

    Attributes:
        wiped: Ids of earlier devices of the same person that seem to be this phone, come back empty (`_EARLIER`).
    """

    device: bytes
    user_id: str
    nonce: bytes
    wiped: tuple[bytes, ...]


def check_code(who: str | None, user_id: str, role: str) -> None:
    """A champion makes codes for teachers and for their own phones, never for another champion.

    Two champions are what keeps the author of a late mark from approving it: whoever could enrol as the other would be
    both.

    Args:
        who: User id of the champion who asks; None: whoever keeps the server.
        user_id: For whom.
        role: Of that person.

    Raises:
        RequestProblem: `rule`, `code-for-champion`.
    """
    if who is not None and role == "champion" and who != user_id:
        raise refusal(
            "code-for-champion",
            "A champion's code for another champion would let one person be both; whoever keeps the server makes it.",
            arabic="رمز التسجيل لمنسّق آخر يصدر من مشغّل الخادم، حتى لا يكون شخص واحد هو الطالب والمعتمِد.",
            who="operator",
        )


async def make_code(
    db: Database, ports: ServerPorts, *, school: str, user_id: str, made_by: str, valid_ms: int = CODE_VALID_MS
) -> tuple[str, int]:
    """A fresh code for one person, and when it expires (ms). The code itself is stored nowhere."""
    now_ms = ports.clock.wall_ms()
    live = {
        row[0]
        for row in await db.fetch_all(
            "SELECT name FROM codes WHERE school = ? AND expires_ms > ? AND used_ms IS NULL", (school, now_ms)
        )
    }
    for _ in range(_NAME_DRAWS):
        code = _letters(ports)
        if code[:NAME_LETTERS] not in live:
            break
    else:
        raise RequestProblem("slow-down", "too many live codes in this school", retry_after_s=60)
    digest = await ports.hasher.digest(code[NAME_LETTERS:])
    async with db.transaction() as tx:
        await tx.execute(
            """INSERT INTO codes (school, name, digest, user_id, made_ms, expires_ms, tries)
            VALUES (?, ?, ?, ?, ?, ?, 0)""",
            (school, code[:NAME_LETTERS], digest, user_id, now_ms, now_ms + valid_ms),
        )
        await audit.record(
            tx, at_ms=now_ms, actor=made_by, action="code", subject=f"{school}/{user_id}", reason="",
            after={"expires_ms": now_ms + valid_ms},
        )  # fmt: skip
    return code, now_ms + valid_ms


def _letters(ports: ServerPorts) -> str:
    letters = ""
    while len(letters) < CODE_LETTERS:
        # 240 = 12 · 20: bytes above it are thrown away, so that every letter is equally likely
        letters += "".join(ALPHABET[byte % 20] for byte in ports.random.bytes(CODE_LETTERS) if byte < 240)
    return letters[:CODE_LETTERS]


async def enrol(db: Database, ports: ServerPorts, request: EnrolRequest) -> Enrolment:
    """Use a code.

    Raises:
        RequestProblem: `bad-code`, `code-locked`, `code-expired`, `code-used`, `wrong-audience`.
    """
    row = await _reserve_try(db, request)
    matches = await ports.hasher.matches(None if row is None else row[1], request.code[NAME_LETTERS:])
    if row is None or not matches:
        raise RequestProblem("bad-code", "check the code with your champion")
    code_id, _, user_id, expires_ms, used_device = row
    device = device_id(request.public_key)
    now_ms = ports.clock.wall_ms()
    if used_device is not None and used_device != device:
        raise RequestProblem("code-used")
    if used_device is None and now_ms >= expires_ms:
        raise RequestProblem("code-expired")
    fresh = ports.random.bytes(8)
    async with db.transaction() as tx:
        nonce = audit.witnessing_nonce(fresh, await audit.read_head(tx))
        used = await tx.execute(
            """UPDATE codes SET tries = tries - 1, used_ms = ?, used_device = ?
            WHERE id = ? AND coalesce(used_device, ?) = ?""",
            (now_ms, device, code_id, device, device),
        )
        if not used:
            raise RequestProblem("code-used")
        wiped = await _store_device(tx, request, device=device, user_id=user_id, nonce=nonce, now_ms=now_ms)
    return Enrolment(device=device, user_id=user_id, nonce=nonce, wiped=wiped)


async def _reserve_try(db: Database, request: EnrolRequest) -> Row | None:
    if _CODE.fullmatch(request.code) is None:
        return None
    async with db.transaction() as tx:
        row = await tx.fetch_one(
            """SELECT id, digest, user_id, expires_ms, used_device FROM codes WHERE school = ? AND name = ?
            ORDER BY id DESC LIMIT 1""",
            (request.school, request.code[:NAME_LETTERS]),
        )
        if row is None:
            return None
        if not await tx.execute("UPDATE codes SET tries = tries + 1 WHERE id = ? AND tries < ?", (row[0], TRIES_MAX)):
            raise RequestProblem("code-locked")
    return row


async def _store_device(
    tx: Transaction, request: EnrolRequest, *, device: bytes, user_id: str, nonce: bytes, now_ms: int
) -> tuple[bytes, ...]:
    stored = await tx.execute(
        """INSERT INTO devices
          (id, school, user_id, public_key, label, app, enrolled_ms, nonce, last_number, unsent, done)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0, 0, 0)
        ON CONFLICT (id) DO UPDATE SET nonce = excluded.nonce, label = excluded.label, app = excluded.app
        WHERE devices.school = excluded.school AND devices.user_id = excluded.user_id""",
        (device, request.school, user_id, request.public_key, request.label, request.app, now_ms, nonce),
    )
    if not stored:
        raise RequestProblem("wrong-audience", "this key belongs to somebody else; take a new one")
    earlier = await tx.fetch_all(_EARLIER, (request.school, user_id, device, request.label))
    wiped = tuple(row[0] for row in earlier) if request.label or len(earlier) == 1 else ()
    await tx.executemany(
        "UPDATE devices SET flag = 'wiped-phone', flag_ms = ? WHERE id = ?", [(now_ms, one) for one in wiped]
    )
    await audit.record(
        tx, at_ms=now_ms, actor=f"user:{request.school}/{user_id}", action="enrol", subject=device.hex(), reason="",
        after={"wiped": [one.hex() for one in wiped]},
    )  # fmt: skip
    return wiped

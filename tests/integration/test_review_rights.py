"""What a review of rights and doors found: each of these was possible once."""

from __future__ import annotations

import json
import zipfile
from collections.abc import AsyncIterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from clientcore.errors import BadInput
from clientcore.frame import parse_frame, seal_frame
from clientcore.keys import SigningKey
from syncserver import portability
from syncserver.errors import RequestProblem
from syncserver.ical_read import read_days
from syncserver.orders import places
from syncserver.paper_file import ROWS_MAX, Checker, read_file
from syncserver.trail import read_trail
from tests.integration.test_portability import export, live, repacked
from tests.support.server.desks import Person, central, champion
from tests.support.server.desks import operator as at_the_machine
from tests.support.server.orders import ORDER_TYPE, ask, ask_with, token
from tests.support.server.world import PUPILS, SCHOOL, TODAY, World, open_world

REGISTER = f"c-3a/{TODAY}/day"
FULL = f"{SCHOOL}/{REGISTER}"
DAY_MS = 86_400_000
TRIP = {"school": SCHOOL, "from": TODAY, "until": TODAY, "code": "official_duty", "code_reason": "trip"}


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer is moved by hand."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


# ---- what the central office decided ----------------------------------------------------------------------------


async def is_decided_centrally(school: Person, office: Person, order: str, /, **args: object) -> None:
    """The school is told who can, and nothing is changed; the office itself may."""
    rows = await school.world.count("audit")
    assert (await school.is_refused(order, **args))["rule"] == "central-decision"
    assert await school.world.count("audit") == rows
    await office.does(order, **args, reference="letter 2")


async def test_no_school_takes_back_a_central_bulk_operation(world: World) -> None:
    """Undone within 72 hours by a champion, the override of a locked day would be worth nothing."""
    phone = await world.phone("t1")
    await phone.sync((REGISTER, phone.take(REGISTER, dict.fromkeys(PUPILS, "P"))))
    await world.settle()
    office = central(world)
    plan = await office.does("bulk-preview", **TRIP)
    done = await office.does("bulk-apply", **TRIP, digest=plan["digest"], reason="trip", reference="letter 1")
    args = {"school": SCHOOL, "bulk": done["bulk"], "reason": "no"}
    await is_decided_centrally(champion(world), office, "bulk-undo", **args)


async def test_no_school_takes_back_a_central_merge(world: World) -> None:
    """The same for records."""
    office = central(world)
    done = await office.does(
        "pupil-merge", school=SCHOOL, alias="s040", canonical="s039", reason="one pupil", reference="letter 1"
    )
    args = {"school": SCHOOL, "merge": done["merge"], "reason": "no"}
    await is_decided_centrally(champion(world), office, "pupil-merge-undo", **args)


async def test_no_school_chooses_against_a_central_choice(world: World) -> None:
    """While the marks are those the office looked at; a new one opens the question for everybody."""
    one, two = await world.phone("t1"), await world.phone("t2", seed=2)
    saw, missed = one.take(REGISTER, {"s001": "P"}), two.take(REGISTER, {"s001": "A"})
    await one.sync((REGISTER, saw))
    await two.sync((REGISTER, missed))
    await world.settle()
    named = {"register": FULL, "pupil": "s001", "reason": "the file says so"}
    office = central(world)
    await office.does("dispute-settle", **named, change=missed.hash.hex(), reference="letter 1")
    await is_decided_centrally(champion(world), office, "dispute-settle", **named, change=saw.hash.hex())
    await two.sync((REGISTER, two.take(REGISTER, {"s001": "E:sick"})))
    await world.settle()
    await champion(world).does("dispute-settle", **named, change=saw.hash.hex())


async def test_a_central_release_names_its_document(world: World) -> None:
    """Like every other decision of the office."""
    phone = await world.phone("t2")
    change = phone.take(f"c-3b/{TODAY}/day", {"s001": "P"})
    await phone.sync((f"c-3b/{TODAY}/day", change))
    await world.settle()
    args = {"register": f"{SCHOOL}/c-3b/{TODAY}/day", "change": change.hash.hex(), "reason": "known"}
    assert (await central(world).is_refused("release", **args))["rule"] == "reference-needed"
    await central(world).does("release", **args, reference="letter 1")


# ---- what a request may carry -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "args"),
    [
        ("delegations", {"school": "\ud800"}),
        ("held", {"school": "a\0b"}),
        ("bulk-undo", {"school": SCHOOL, "bulk": 1 << 63, "reason": "x"}),
        ("parity", {"school": SCHOOL, "week": "0001-01-01"}),
        ("bulk-preview", {**TRIP, "code_reason": "\ud800"}),
        ("paper-enter", {"register": FULL, "document": "class_book", "signed_by": "t1", "marks": {"\udfff": "absent"}}),
    ],
)
async def test_what_no_store_can_hold_is_a_bad_request_and_no_fault(
    world: World, order: str, args: dict[str, Any]
) -> None:
    """Half a character, a NUL, a number beyond 64 bits, a week before the calendar."""
    phone = await world.phone("ch1")
    reply = await ask(phone, order, **args)
    assert (reply.status_code, reply.json()["type"]) == (400, "/problems/bad-request")


async def test_days_that_are_no_names_are_a_bad_request(world: World) -> None:
    """A list in the list of days."""
    with pytest.raises(RequestProblem) as refused:
        await central(world).does("calendar-week", days=[["sun"]], from_=TODAY, reference="r")
    assert refused.value.code == "bad-request"


async def test_a_token_makes_the_server_hold_no_file_for_an_order_it_may_not_give(world: World) -> None:
    """Its role is looked at before the body is taken: up to 128 MB of it."""
    bearer, read = await token(world, "sink", "consumer"), 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(4):
            read += 1
            yield bytes(1 << 16)

    reply = await world.http.post(
        "/v1/operator/roster-import", content=body(), headers={**ORDER_TYPE, "authorization": f"Bearer {bearer}"}
    )
    assert (reply.status_code, read) == (403, 0)


async def upload(world: World, order: str, body: bytes, **args: object) -> httpx.Response:
    """An order of the operator with a file."""
    return await world.http.post(
        f"/v1/operator/{order}", params={"args": json.dumps(args)}, content=body, headers=ORDER_TYPE
    )


async def test_a_file_of_line_ends_is_cut_before_it_fills_the_memory(world: World) -> None:
    """In lists it would take a hundred times its size."""
    head = b"school,district,governorate\n"
    with pytest.raises(RequestProblem, match="cut the file"):
        places._read_csv(head + b"\n" * (places._LINES_MAX + 5))
    with pytest.raises(RequestProblem, match="cut the file"):
        await read_file(b"\n" * (ROWS_MAX + 5), Checker(reader=world.db, today=TODAY))


def calendar_file(*events: str) -> bytes:
    """Events in a calendar."""
    inside = "".join(f"BEGIN:VEVENT\r\nUID:1\r\n{one}\r\nEND:VEVENT\r\n" for one in events)
    return f"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:x\r\n{inside}END:VCALENDAR\r\n".encode()


@pytest.mark.parametrize(
    "file",
    [
        calendar_file("DTSTART;VALUE=DATE:99991231"),
        calendar_file("DTSTART;VALUE=DATE:20261006\r\nDURATION:P99999999D"),
        calendar_file(*["DTSTART;VALUE=DATE:20200101\r\nDTEND;VALUE=DATE:20250101"] * 20),
    ],
    ids=["last-day", "endless", "again-and-again"],
)
def test_a_calendar_file_out_of_bounds_is_refused_in_words(file: bytes) -> None:
    """Dates behind the last one; the same five years over and over (a file of 1 MB took 38 s)."""
    with pytest.raises(RequestProblem) as refused:
        read_days(file, default="holiday")
    assert refused.value.code == "bad-request"


async def test_an_export_of_codes_covers_a_term_at_most(world: World) -> None:
    """It is made in memory: all years of a large school are more than a server has."""
    bearer = await token(world, "downstream", "consumer", schools=[SCHOOL])
    args = {"school": SCHOOL, "standard": "edfi", "from": "2026-09-01"}
    assert (await ask_with(world, bearer, "export-codes", **args, to="2026-12-01")).status_code == 200
    assert (await ask_with(world, bearer, "export-codes", **args, to="2026-12-02")).status_code == 400


# ---- a school's file --------------------------------------------------------------------------------------------


def moved(files: dict[str, bytes]) -> None:
    """The changes of the morning are said to be of another day."""
    name = "log/changes.jsonl"
    files[name] = files[name].replace(TODAY.encode(), b"2026-11-23")


def lent(files: dict[str, bytes]) -> None:
    """A change is said to rest on a delegation that its phone never named."""
    name = "log/changes.jsonl"
    files[name] = files[name].replace(b'"delegation":null', b'"delegation":"d1"', 1)


@pytest.mark.parametrize("change", [moved, lent], ids=lambda one: str(one.__name__))
async def test_a_change_is_of_the_register_its_phone_signed(world: World, change: Any) -> None:
    """Whoever packs a file can make its digests fit; the frame's own bytes say where a mark belongs."""
    await live(world)
    out = await export(world)
    files = out.files
    change(files)

    def lie(packed: dict[str, bytes]) -> None:
        packed.update(files)
        manifest = json.loads(packed["manifest.json"])
        rows = portability._read_files(packed, manifest)
        manifest["digests"] = portability.digests_of(rows)
        packed["manifest.json"] = json.dumps(manifest).encode()

    with pytest.raises(BadInput, match="change 1 "):
        portability.unpack_school(repacked(out, lie, honest=True))


async def test_a_device_in_a_file_has_the_name_its_key_gives_it(world: World) -> None:
    """Otherwise a packer's own key could sign everything anew in the phone's name."""
    await live(world)
    out = await export(world)
    taken = portability.unpack_school(out.data)
    key, device = SigningKey.generate(), taken.rows["devices"][0]["id"]
    frame = next(row for row in taken.rows["frames"] if row["device"] == device)
    old = parse_frame(frame["body"])
    forged = seal_frame(
        key, env=old.env, school=old.school, device=device, number=old.number, prev=old.prev, clock=old.clock,
        changes=(), ask=None,
    )  # fmt: skip
    own = {**taken.rows["devices"][0], "public_key": key.public}
    row = {**frame, "id": 1, "hash": forged.hash, "body": forged.raw}
    lie = replace(taken, rows={**taken.rows, "devices": [own], "frames": [row], "changes": []})
    with pytest.raises(BadInput, match="not-portable"):
        portability._check_evidence(lie)


def locked_zip() -> bytes:
    """A zip whose only file says that it needs a password."""
    made = BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("manifest.json", b"{}")
    data = bytearray(made.getvalue())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


@pytest.mark.parametrize("file", [b"no zip", locked_zip()], ids=["no-zip", "password"])
async def test_a_running_server_says_what_is_wrong_with_a_file(tmp_path: Path, file: bytes) -> None:
    """It is the file's fault, not the server's."""
    async with open_world(tmp_path / "empty.db", background=False) as world:
        reply = await upload(world, "import-school", file, reason="moves here")
        assert (reply.status_code, reply.json()["type"]) == (400, "/problems/bad-request")
        assert "no file of a school" in reply.json()["detail"]


# ---- the trail --------------------------------------------------------------------------------------------------


async def test_the_trail_is_searched_for_what_was_typed(world: World) -> None:
    """An underscore is a letter of ids, and a percent sign is none."""
    office = central(world, "a_b")
    await office.does("pupil-merge", school=SCHOOL, alias="s040", canonical="s039", reason="r", reference="r")
    await central(world, "axb").does(
        "pupil-merge", school=SCHOOL, alias="s038", canonical="s037", reason="r", reference="r"
    )
    assert [row["actor"] for row in await read_trail(world.db, about="a_b")] == ["token:a_b"]
    assert await read_trail(world.db, about="%") == []


async def test_the_trail_names_a_device_in_one_way(world: World) -> None:
    """However its number was typed: `explain` and an export of the school look for it by that name."""
    device = (await world.phone("t1")).me.device.hex()
    keeper = at_the_machine(world)
    await keeper.does("revoke", device=f" {device.upper()} ", reason="lost")
    await keeper.does("revoke", device=device, reason="found", undo=True)
    await keeper.does("resync", target=device[:8], level="nudge", reason="silent")
    rows = await world.db.fetch_all("SELECT subject FROM audit WHERE action IN ('revoke', 'unrevoke', 'resync')")
    assert [row[0] for row in rows] == [device] * 3


async def test_a_revoked_token_and_another_district_open_nothing(world: World) -> None:
    """The scope of a token is read with every request."""
    bearer = await token(world, "office", "central", schools=[SCHOOL])
    assert (await ask_with(world, bearer, "held", school=SCHOOL)).status_code == 200
    for order, args in (
        ("held", {"school": "eg-07-200"}),
        ("bulk-undo", {"school": "eg-07-200", "bulk": 1, "reason": "x", "reference": "r"}),
        ("calendar", {"date": TODAY, "open": False, "reason": "storm", "reference": "r"}),
        ("report", {"kind": "district", "school": "eg-07-200"}),
        ("audit", {"about": SCHOOL}),
    ):
        assert (await ask_with(world, bearer, order, **args)).status_code == 403, order
    await at_the_machine(world).does("access-revoke", name="office", reason="over")
    assert (await ask_with(world, bearer, "held", school=SCHOOL)).json()["type"] == "/problems/operator"


# ---- one's own work ---------------------------------------------------------------------------------------------


async def test_a_bulk_operation_is_no_way_to_approve_ones_own_request(world: World) -> None:
    """What waits for another person's approval is not put through as a list of one cell."""
    teacher, phone = await world.phone("t1"), await world.phone("ch1", seed=2)
    morning = teacher.take(REGISTER, {"s001": "A", "s002": "A"})
    await teacher.sync((REGISTER, morning))
    await world.settle()
    world.clock.advance(DAY_MS)
    phone.changes[REGISTER] = [morning]
    phone.taken = DAY_MS // 60_000
    change = phone.take(REGISTER, {"s001": "P"})
    await phone.sync((REGISTER, change))
    await world.settle()
    person = champion(world)
    named = {"register": FULL, "change": change.hash.hex(), "reason": "wrong_code"}
    assert (await person.is_refused("adjustment-approve", **named))["rule"] == "approver-is-author"
    wish = {"school": SCHOOL, "from": TODAY, "until": TODAY, "code": "present"}
    plan = await person.does("bulk-preview", **wish)
    assert [cell["pupil"] for cell in plan["cells"]] == ["s002"]
    assert {cell["pupil"]: cell["why"] for cell in plan["refused"]}["s001"] == "approver-is-author"
    other = await champion(world, "ch2").does("bulk-preview", **wish)
    assert [cell["pupil"] for cell in other["cells"]] == ["s001", "s002"]

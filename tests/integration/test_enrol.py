"""Enrolment: codes that work once, die after five wrong tries, and phones that come back empty."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from clientcore.exchange import read_enrolled, write_enrol
from clientcore.frame import write_bundle
from clientcore.keys import SigningKey, device_id, short_number
from clientcore.ports import SeededRandom
from clientcore.wire import unpack
from syncserver.enrol import ALPHABET, CODE_VALID_MS, make_code
from syncserver.ports import Argon2Hasher, ServerPorts
from tests.support.server.world import SCHOOL, TODAY, Phone, World, open_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A server whose consumer stands still."""
    async with open_world(tmp_path / "store.db", background=False) as opened:
        yield opened


async def code_for(world: World, user_id: str = "t1") -> str:
    """A fresh code."""
    code, _ = await make_code(world.db, world.server.ports, school=SCHOOL, user_id=user_id, made_by="operator")
    return code


async def attempt(world: World, code: str, *, key: SigningKey | None = None, school: str = SCHOOL) -> tuple[int, str]:
    """Enrol a new phone; status and slug (empty when it worked)."""
    phone = Phone(http=world.http, clock=world.clock, seed=9, key=key or SigningKey.generate())
    body = write_enrol(phone.key, school=school, code=code, label="phone", app="test")
    reply = await phone.post("/v1/enrol", body)
    if reply.status_code == 200:
        assert read_enrolled(reply.content, request=body).short_number == short_number(phone.key.public)
        return 200, ""
    return reply.status_code, reply.json()["type"].rpartition("/")[2]


def wrong(code: str) -> str:
    """The same code with another last letter."""
    return code[:-1] + ("B" if code[-1] != "B" else "C")


async def test_a_code_works_once(world: World) -> None:
    """A second phone is told that the code was used; the first one, asking again, gets the same device."""
    code, key = await code_for(world), SigningKey.generate()
    assert set(code) <= set(ALPHABET)
    assert await attempt(world, code, key=key) == (200, "")
    assert await attempt(world, code, key=key) == (200, "")
    assert await world.count("devices") == 1
    assert await attempt(world, code) == (409, "code-used")


async def test_five_wrong_tries_end_a_code(world: World) -> None:
    """The sixth try is refused without a look, even with the right letters."""
    code = await code_for(world)
    for _ in range(5):
        assert await attempt(world, wrong(code)) == (401, "bad-code")
    assert await attempt(world, code) == (429, "code-locked")


async def test_four_wrong_tries_do_not(world: World) -> None:
    """A slip of the finger costs nothing."""
    code = await code_for(world)
    for _ in range(4):
        await attempt(world, wrong(code))
    assert await attempt(world, code) == (200, "")


async def test_a_code_expires(world: World) -> None:
    """After fifteen minutes only who knows the code learns that it is too old."""
    code = await code_for(world)
    world.clock.advance(CODE_VALID_MS)
    assert await attempt(world, wrong(code)) == (401, "bad-code")
    assert await attempt(world, code) == (410, "code-expired")


@pytest.mark.parametrize("code", ["BCDFGHJKLM", "AAAAAAAAAA", "BCD", "", "bcdfghjklm", "BCDFGHJKLMN"])
async def test_codes_nobody_made_are_wrong(world: World, code: str) -> None:
    """Unknown and malformed codes get one answer."""
    assert await attempt(world, code) == (401, "bad-code")


async def test_a_code_of_one_school_is_none_of_another(world: World) -> None:
    """Codes are bound to their school; so is an unknown school's answer."""
    code = await code_for(world)
    assert await attempt(world, code, school="eg-07-200") == (401, "bad-code")
    assert await attempt(world, code, school="nowhere") == (401, "bad-code")


async def test_guessing_is_slowed_down_per_school(world: World) -> None:
    """Sixty tries a minute are enough for any school's morning, and far too few to guess."""
    slugs = [(await attempt(world, "BCDFGHJKLM"))[1] for _ in range(61)]
    assert slugs[:60] == ["bad-code"] * 60
    assert slugs[60] == "slow-down"


async def test_a_phone_that_comes_back_empty_is_recognised(world: World) -> None:
    """The same person with the same label and a new key: the phone is told, the champion sees the old device with its
    unsent work as last known.
    """
    old = await world.phone(label="Samsung A03")
    async with world.db.transaction() as tx:
        await tx.execute("UPDATE devices SET unsent = 2")
    new = await world.phone(label="Samsung A03", seed=2)
    assert ("notice", "wiped-phone") in [tuple(item) for item in new.items("notice")]
    champion = await world.phone("ch1", seed=3)
    reply = await champion.call("devices")
    assert reply.status_code == 200
    row = await world.db.fetch_one("SELECT flag, unsent FROM devices WHERE id = ?", (old.me.device,))
    assert row == ("wiped-phone", 2)
    await old.sync()
    assert await world.db.fetch_one("SELECT flag FROM devices WHERE id = ?", (old.me.device,)) == (None,)


async def test_another_label_is_another_phone(world: World) -> None:
    """Two phones of one person are two phones."""
    await world.phone(label="Samsung A03")
    new = await world.phone(label="Tecno Pop 5", seed=2)
    assert new.items("notice") == []


async def labelled(world: World, label: str, *, user_id: str = "t1") -> Phone:
    """A phone enrolled under exactly this label."""
    phone = Phone(http=world.http, clock=world.clock, seed=1)
    await phone.enrol(SCHOOL, await code_for(world, user_id), label=label)
    return phone


async def wiped(world: World) -> set[bytes]:
    """Devices that are thought to have come back empty."""
    return {row[0] for row in await world.db.fetch_all("SELECT id FROM devices WHERE flag = 'wiped-phone'")}


async def test_a_phone_without_a_label_that_comes_back_empty_is_recognised(world: World) -> None:
    """The person's only device without a label, and a new one without a label: told, and shown to the champion."""
    old = await labelled(world, "")
    other_person = await labelled(world, "", user_id="t2")
    assert other_person.items("notice") == []
    new = await labelled(world, "")
    assert [tuple(item) for item in new.items("notice")] == [("notice", "wiped-phone")]
    assert await wiped(world) == {old.me.device}
    third = await labelled(world, "")  # the second one was wiped in its turn
    assert [tuple(item) for item in third.items("notice")] == [("notice", "wiped-phone")]
    assert await wiped(world) == {old.me.device, new.me.device}


async def test_of_two_devices_without_a_label_none_is_called_wiped(world: World) -> None:
    """Nobody knows which of them came back; an alarm for the wrong one would be worse."""
    first = await labelled(world, "")
    await labelled(world, "")
    await first.sync()  # it still speaks: it was not wiped
    assert await wiped(world) == set()
    third = await labelled(world, "")
    assert third.items("notice") == []
    assert await wiped(world) == set()


@pytest.mark.parametrize(("before", "after"), [("", "Tecno"), ("Tecno", ""), ("pc-1", "pc-2"), ("phone", "Phone")])
async def test_labels_that_differ_are_never_one_phone(world: World, before: str, after: str) -> None:
    """Also when one of them is empty."""
    await labelled(world, before)
    assert (await labelled(world, after)).items("notice") == []
    assert await wiped(world) == set()


async def test_one_key_belongs_to_one_person(world: World) -> None:
    """A key that is enrolled for somebody cannot be taken over with somebody else's code."""
    key = SigningKey.generate()
    assert await attempt(world, await code_for(world), key=key) == (200, "")
    assert await attempt(world, await code_for(world, "t2"), key=key) == (401, "wrong-audience")


async def test_argon2_keeps_the_ports_promise() -> None:
    """The production hasher salts, matches only the right code, and says no for nobody's."""
    hasher = Argon2Hasher()
    digest = await hasher.digest("BCDFGHJ")
    assert digest.startswith("$argon2id$")
    assert digest != await hasher.digest("BCDFGHJ")
    assert await hasher.matches(digest, "BCDFGHJ")
    assert not await hasher.matches(digest, "BCDFGHK")
    assert not await hasher.matches(None, "no code")


async def test_letters_are_drawn_evenly(world: World) -> None:
    """No letter is likelier than another: 2,000 codes, each letter within 10% of its share."""
    from syncserver.enrol import _letters

    ports = ServerPorts(random=SeededRandom(3), hasher=world.server.ports.hasher)
    text = "".join(_letters(ports) for _ in range(2_000))
    assert all(900 < text.count(letter) < 1_100 for letter in ALPHABET)


async def test_a_bundle_tells_of_an_unknown_device_and_its_frames_join_once_it_enrols(world: World) -> None:
    """The relay hears `unknown-device`, frame by frame, and the rest of the file goes through; the same file, carried
    again after the phone has enrolled with its key, brings the work.
    """
    known, relay = await world.phone("t1", seed=1), await world.phone("ch1", seed=2)
    stranger = Phone(http=world.http, clock=world.clock, seed=3)
    stranger.enrolled = replace(known.me, device=device_id(stranger.key.public), user_id="t2")
    register = f"c-3a/{TODAY}/day"
    frames = [
        phone.frame([(register, phone.take(register, {pupil: "P"}).chunk)], ask=False).raw
        for phone, pupil in ((stranger, "s001"), (known, "s002"), (stranger, "s003"))
    ]

    async def carry() -> tuple[list[int], object]:
        """Counts of durable, duplicate, held and refused changes, and the receipts."""
        await relay.sync()
        reply = await relay.call("bundle", write_bundle(frames), path="/v1/bundles")
        assert reply.status_code == 200, reply.text
        _, signed, _, payload = unpack(reply.content, bytes_max=10_000)
        return unpack(payload, bytes_max=1_000)[1:5], unpack(signed, bytes_max=1_000)[6]

    assert await carry() == ([1, 0, 0, 0], ["unknown-device", [0], "unknown-device"])
    assert await world.count("changes") == 1
    await stranger.enrol(SCHOOL, await code_for(world, "t2"))
    assert await carry() == ([2, 1, 0, 0], [[0], [1], [0]])
    await world.settle()
    assert {event["data"]["pupil"] for event in await world.events()} == {"s001", "s002", "s003"}

"""A device and the fake server, together: what the tests of the device's conversations begin with."""

from __future__ import annotations

from clientcore.errors import TransportError
from clientcore.exchange import read_sync
from clientcore.frame import Frame, parse_frame
from clientcore.ports import HttpReply, ManualClock
from tests.support.devices import TODAY, Phone, enrolled, memory_phone
from tests.support.fake_server import CLASS, FakeServer

REGISTER = f"{CLASS}/{TODAY}/day"


async def pair(**changes: object) -> tuple[FakeServer, Phone]:
    clock = ManualClock()
    server = FakeServer(clock)
    phone = await enrolled(memory_phone(server, clock))
    for name, value in changes.items():
        setattr(server, name, value)
    return server, phone


def frames_of(body: bytes) -> list[Frame]:
    return [parse_frame(raw) for raw in read_sync(body)]


def lose(_path: str, _body: bytes, _reply: HttpReply) -> HttpReply:
    raise TransportError("timeout", "the answer was lost")


def codes(server: FakeServer, register: str = REGISTER) -> dict[str, list[str]]:
    return {key: [value[0] for value in values] for key, values in server.visible(register).items() if key[0] != "~"}

"""The operator's commands, on a store of their own and through a server that runs on it: the same words, one writer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from clientcore.ports import ManualClock
from syncserver.cli import main
from syncserver.config import PostgresAddress
from syncserver.ports import ServerPorts
from tests.process.test_kills import prepare, server, settled_feed
from tests.support.postgres import shared_cluster
from tests.support.server.phone import Phone
from tests.support.server.world import PUPILS, SCHOOL

pytestmark = pytest.mark.process
DATE = "2026-11-18"


async def take_a_register(url: str, code: str) -> str:
    """Enrol, push one register and a change that contradicts itself; returns the device's hex id."""
    clock = ManualClock()
    clock.set_wall_ms(ServerPorts().clock.wall_ms())
    async with httpx.AsyncClient(base_url=url, timeout=20) as http:
        phone = Phone(http=http, clock=clock, seed=1)
        await phone.enrol(SCHOOL, code)
        name = f"c-3a/{DATE}/day"
        await phone.sync((name, phone.take(name, dict.fromkeys(PUPILS, "P"))))
        lost = phone.take(f"c-3b/{DATE}/day", {"s001": "P"})
        later = phone.take(f"c-3b/{DATE}/day", {"s001": "A"})
        assert lost.hash in later.deps
        await phone.sync((f"c-3b/{DATE}/day", later))
        await settled_feed(url, 40)
        return phone.me.device.hex()


@pytest.fixture(scope="module", params=["running", "stopped", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """`--store` of a store with one register, and its device; while a server runs on it, when none does, and beside a
    server on PostgreSQL."""
    path = tmp_path_factory.mktemp("operator") / "store.db"
    dsn = shared_cluster().database() if request.param == "postgresql" else None
    place = path if dsn is None else PostgresAddress(dsn)
    code = asyncio.run(prepare(place))
    with server(place) as (url, child):
        device = asyncio.run(take_a_register(url, code))
        if request.param != "stopped":
            yield dsn or f"sqlite:{path}", device
            return
        child.terminate()
        assert child.wait(20) == 0
        yield f"sqlite:{path}", device


def hudur(*words: str, status: int = 0) -> Any:
    """Run one command with --json; what it prints."""
    result = CliRunner().invoke(main, [*words, "--json"])
    assert result.exit_code == status, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()] if status == 0 else []
    return lines[0] if len(lines) == 1 else lines


def test_events_and_registers_can_be_read(store: tuple[str, str]) -> None:
    """The feed from any place in it, and the official register, by id."""
    where, _ = store
    assert len(hudur("events", "--store", where)) == 40
    tail = hudur("events", "--store", where, "--after", "38")
    assert [int(event["sequence"]) for event in tail] == [39, 40]
    shown = hudur("register", "show", f"{SCHOOL}/c-3a/{DATE}/day", "--store", where)
    assert (shown["revision"], len(shown["answers"])) == (1, 40)
    hudur("register", "show", f"{SCHOOL}/c-3a/2026-11-17/day", "--store", where, status=1)
    plain = CliRunner().invoke(main, ["register", "show", f"{SCHOOL}/c-3a/{DATE}/day", "--store", where])
    assert "present" in plain.output


def test_codes_resyncs_and_devices(store: tuple[str, str]) -> None:
    """A code opens a phone; a resync waits until the phone comes; both stand in the audit, not in the shell only."""
    where, device = store
    made = hudur("code", "t2", "--store", where)
    assert (made["school"], made["link"]) == (SCHOOL, f"/#e={SCHOOL}.{made['code']}")
    hudur("code", "nobody", "--store", where, status=1)
    ordered = hudur("resync", device[:8], "--level", "nudge", "--reason", "test", "--store", where)
    assert ordered["devices"] == [device]
    assert hudur("resync", SCHOOL, "--level", "repull", "--reason", "test", "--store", where)["devices"] == [device]
    hudur("resync", "zz", "--level", "nudge", "--reason", "test", "--store", where, status=1)
    (row,) = hudur("devices", SCHOOL, "--store", where)["devices"]
    assert (row["device"], row["user"], row["directive"]["state"]) == (device, "t1", "waiting")


def test_the_calendar_takes_exceptions(store: tuple[str, str]) -> None:
    """A date is opened or closed with a reason and an audit reference, and shown so."""
    where, _ = store
    decree = ("--reference", "decree 1", "--store", where)
    assert hudur("calendar", "close", "2026-12-01", "--reason", "storm", *decree)["state"] == "closed"
    span = ("--from", "2026-12-01", "--to", "2026-12-01", "--store", where)
    (day,) = hudur("calendar", "show", SCHOOL, *span)["days"]
    assert (day["closed"], day["reference"], day["sessions"]) == ("storm", "decree 1", [])
    assert hudur("calendar", "open", "2026-12-01", "--reason", "sun", *decree)["audit"] > 1
    hudur("calendar", "open", "2026-13-01", "--reason", "sun", *decree, status=1)
    hudur("calendar", "close", "2026-12-01", "--reason", "storm", "--store", where, status=2)


def test_dead_letters_are_listed_and_requeued(store: tuple[str, str]) -> None:
    """None so far; a number that does not exist is said to be none."""
    where, _ = store
    assert hudur("dlq", "list", "--store", where) == []
    hudur("dlq", "requeue", "7", "--store", where, status=1)
    assert hudur("dlq", "requeue", "--all", "--store", where) == {"requeued": []}
    assert CliRunner().invoke(main, ["dlq", "requeue", "--store", where]).exit_code == 2


def test_proof_and_export(store: tuple[str, str], tmp_path: Path) -> None:
    """The independent core agrees; a register leaves as JSON and as an Automerge document."""
    where, _ = store
    report = hudur("prove", "--store", where, "--date", DATE)
    assert (report["registers"], list(report["differences"])) == (2, [])
    out = tmp_path / "register.automerge"
    for form, start in (("automerge", b"\x85oJ\x83"), ("json", b"{")):
        words = ["export", "--register", f"{SCHOOL}/c-3a/{DATE}/day", "--format", form, "--out", str(out)]
        assert CliRunner().invoke(main, [*words, "--store", where]).exit_code == 0
        assert out.read_bytes().startswith(start)
    exported = json.loads(out.read_bytes())
    assert len(exported["marks"]) == 40
    left = [row for row in hudur("audit", "list", "--store", where) if row["action"] == "export-register"]
    assert [json.loads(row["after_json"])["format"] for row in left] == ["automerge", "json"]


def test_a_second_server_on_the_same_store_is_refused(store: tuple[str, str], request: pytest.FixtureRequest) -> None:
    """Two writers could corrupt the store, so the second does not start."""
    where, _ = store
    if "running" in request.node.name:
        result = CliRunner().invoke(main, ["serve", "--store", where, "--port", "0"])
        assert (result.exit_code, "server is running" in result.output) == (1, True)

"""`hudur access`, `held`, `release`, `delegations`: on a store of their own and through a server that runs on it."""

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
from syncserver.ports import ServerPorts
from tests.process.test_kills import prepare, server
from tests.support.server.phone import Phone
from tests.support.server.wait import until
from tests.support.server.world import SCHOOL

pytestmark = pytest.mark.process
REGISTER = f"{SCHOOL}/c-3a/2026-08-20/day"  # before its teacher's first day in the class


async def send_held_work(url: str, code: str) -> None:
    """Enrol, push one register that is not the author's, wait until it is settled."""
    clock = ManualClock()
    clock.set_wall_ms(ServerPorts().clock.wall_ms())
    async with httpx.AsyncClient(base_url=url, timeout=20) as http:
        phone = Phone(http=http, clock=clock, seed=1)
        await phone.enrol(SCHOOL, code)
        name = REGISTER.partition("/")[2]
        await phone.sync((name, phone.take(name, {"s001": "A"})))

        async def held() -> list[object]:
            reply = await http.post(
                "/v1/operator/held",
                params={"args": json.dumps({"school": SCHOOL})},
                headers={"content-type": "application/octet-stream"},
            )
            found: list[object] = reply.json()["held"]
            return found

        await until(held, lambda found: len(found) == 1)


@pytest.fixture(params=["running", "stopped"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """`--store` of a store with one held change; while a server runs on it, and when none does."""
    path = tmp_path / "store.db"
    monkeypatch.setenv("HUDUR_STORE", f"sqlite:{path}")
    monkeypatch.delenv("HUDUR_TOKEN", raising=False)
    code = asyncio.run(prepare(path))
    with server(path) as (url, child):
        asyncio.run(send_held_work(url, code))
        if request.param == "running":
            yield str(path)
            return
        child.terminate()
        assert child.wait(20) == 0
        yield str(path)


def hudur(*words: str, status: int = 0) -> Any:
    """Run one command with --json; what it prints, or why it could not be done."""
    result = CliRunner().invoke(main, [*words, "--json"])
    assert result.exit_code == status, result.output
    return json.loads(result.stdout) if status == 0 else result.output


def plain(*words: str) -> str:
    """What a person sees."""
    result = CliRunner(env={"COLUMNS": "240"}).invoke(main, list(words), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_a_token_is_granted_and_releases_what_is_held(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator grants; the office decides, in its own name; taken back, the token opens nothing."""
    (row,) = hudur("held", SCHOOL)["held"]
    assert (row["register"], row["cause"], row["by"]) == (REGISTER, "out-of-scope", "t1")
    change = row["change"][:16]
    assert change in plain("held", SCHOOL)
    words = ("release", REGISTER, change, "--reason", "known here")
    assert "HUDUR_TOKEN" in hudur(*words, status=1)
    made = hudur("access", "grant", "ministry", "--role", "central", "--all")
    assert made["token"] not in plain("access", "list")
    monkeypatch.setenv("HUDUR_TOKEN", made["token"])
    assert hudur(*words, "--reference", "letter 12")["released"] is True
    assert "is held again" in plain(*words, "--undo")
    assert "revoked since" in plain("access", "revoke", "ministry", "--reason", "over")
    assert "revoked" in hudur(*words, status=1)
    shown = hudur("audit", "list")
    assert "token:ministry" in json.dumps(shown)


def test_other_roles_are_told_who_can(store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that may only read does not release."""
    (row,) = hudur("held", SCHOOL)["held"]
    shown = plain("access", "grant", "inspection", "--role", "auditor", "--school", SCHOOL)
    assert f"inspection: auditor, {SCHOOL}" in shown
    monkeypatch.setenv("HUDUR_TOKEN", next(line for line in shown.splitlines() if line.startswith("hudur_")))
    told = hudur("release", REGISTER, row["change"], "--reason", "x", status=1)
    assert "central, champion" in told


def test_wrong_usage_is_said(store: str) -> None:
    """No scope, two scopes; a school nobody knows; an empty list of delegations."""
    grant = ("access", "grant", "x", "--role", "auditor")
    hudur(*grant, status=2)
    hudur(*grant, "--all", "--school", SCHOOL, status=2)
    assert "no such school" in hudur(*grant, "--school", "nowhere", status=1)
    assert "district" in hudur(*grant, "--district", "nowhere", status=1)
    assert hudur("delegations", SCHOOL, "--running") == {"school": SCHOOL, "delegations": []}
    assert "from" in plain("delegations", SCHOOL)

"""Sinks as they are ordered: where events may go, the commands, and the arithmetic of gaps and batches."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from clientcore.ports import ManualClock
from syncserver import webhooks
from syncserver.cli import main
from syncserver.store import sinks as rows
from syncserver.store.packed import pack_json
from tests.support.server.orders import ask_with, token
from tests.support.server.world import OTHER_SCHOOL, SCHOOL, open_world

NOW_MS = ManualClock().now_ms
HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "localhost.", "a.localhost", "127.1", "2130706433", "0.0.0.0", "[::]",
     "[::ffff:127.0.0.1]"],
)  # fmt: skip
async def test_an_office_cannot_point_events_at_the_servers_own_machine(tmp_path: Path, host: str) -> None:
    """In whatever spelling a resolver takes; only whoever runs the server may."""
    async with open_world(tmp_path / "store.db", background=False) as world:
        office = await token(world, "office", "central")
        reply = await ask_with(world, office, "sink-add", name="a", url=f"https://{host}/", all=True, reason="try")
        assert (reply.status_code, reply.json()["rule"]) == (409, "sink-on-this-machine")


async def test_what_waits_for_one_school_is_counted_behind_ten_thousand_of_another(tmp_path: Path) -> None:
    """The backlog of a sink is its own, however much of others lies before it."""
    async with open_world(tmp_path / "store.db", background=False) as world:
        body = pack_json([{"id": 0, "time": "2026-11-20T08:00:00.000Z"}])
        others = [(n, n, OTHER_SCHOOL, f"o{n}", body) for n in range(1, 10_001)]
        async with world.db.transaction() as tx:
            mine = (10_001, 10_001, SCHOOL, "mine", body)
            await tx.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", [*others, mine])
        office = await token(world, "office", "central")
        added = await ask_with(
            world, office, "sink-add", name="a", url="https://x.invalid/", schools=[SCHOOL], reason="try"
        )
        assert added.status_code == 200
        sink = await rows.read_sink(world.db, "a")
        assert sink is not None
        assert (await rows.read_backlog(world.db, sink)).events == 1


@pytest.mark.parametrize(
    ("url", "status", "said"),
    [
        ("http://hooks.example/x", 409, "sink-needs-https"),
        ("https://user:pass@hooks.example/x", 400, ""),
        ("https://hooks.example/x#part", 400, ""),
        ("ftp://hooks.example/x", 400, ""),
        ("https:///x", 400, ""),
        ("https://hooks.example:99999/", 400, ""),
        ("https://hooks.example/ x", 400, ""),
        ("https://hooks.example/x", 200, ""),
        ("http://[::1]:9/x", 200, ""),
        ("http://localhost:9/x", 200, ""),
    ],
)
async def test_where_events_may_go(tmp_path: Path, url: str, status: int, said: str) -> None:
    """Over https; over http to this machine only."""
    async with open_world(tmp_path / "store.db", background=False) as world:
        reply = await world.http.post(
            "/v1/operator/sink-add",
            params={"args": json.dumps({"name": "a", "url": url, "all": True})},
            headers={"content-type": "application/octet-stream"},
        )
        assert (reply.status_code, reply.json().get("rule", "")) == (status, said)


async def test_only_who_runs_the_server_points_it_at_itself(tmp_path: Path) -> None:
    """A token from afar cannot make the server speak to what only its own machine can reach."""
    async with open_world(tmp_path / "store.db", background=False) as world:
        central = await token(world, "ministry", "central")
        args: dict[str, object] = {"name": "a", "url": "http://127.0.0.1:9/", "all": True}
        refused = await ask_with(world, central, "sink-add", **args)
        assert refused.json()["rule"] == "sink-on-this-machine"
        args["url"] = "https://hooks.example/"
        assert (await ask_with(world, central, "sink-add", **args)).status_code == 200
        assert (await ask_with(world, central, "sink-add", **args)).status_code == 400  # a name is given once


# ---- commands ---------------------------------------------------------------------------------------------------


def test_the_commands_of_whoever_keeps_the_sinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server, on the store itself: the secret is printed once, a mistake is told in words."""
    monkeypatch.setenv("HUDUR_STORE", f"sqlite:{tmp_path / 'store.db'}")
    monkeypatch.setenv("COLUMNS", "240")

    def hudur(*args: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, ["sink", *args])
        assert result.exit_code == code, result.output
        return result.output

    added = hudur("add", "reports", "--url", "https://hooks.example/in?key=theirs", "--all", "--from-now")
    assert "reports: every school, behind sequence 0\nwhsec_" in added
    assert "whsec_" not in (listed := hudur("list"))
    assert "https://hooks.example/in?…" in listed
    assert hudur("pause", "reports", "--reason", "x") == "reports: paused, sent up to 0\n"
    assert json.loads(hudur("resume", "reports", "--reason", "x", "--json"))["state"] == "active"
    assert hudur("requeue", "reports", "--from", "1", "--reason", "x") == "reports: active, sent up to 0\n"
    assert "from is a sequence of the feed: 1 to 1" in hudur(
        "requeue", "reports", "--from", "2", "--reason", "x", code=1
    )
    assert hudur("remove", "reports", "--reason", "x") == "reports: ended, sent up to 0\n"
    assert "who can open it: central, operator" in hudur("resume", "reports", "--reason", "x", code=1)
    assert "no such school" in hudur("add", "b", "--url", "https://hooks.example/", "--school", "eg-1", code=1)
    for wrong in (("--all", "--school", "x"), (), ("--all", "--from-now", "--after", "1")):
        assert "say one of" in hudur("add", "b", "--url", "https://hooks.example/", *wrong, code=2)


# ---- pure parts -------------------------------------------------------------------------------------------------


@settings(derandomize=True, deadline=None)
@given(st.integers(0, 1_000), st.floats(0, 1, exclude_max=True), st.none() | st.integers(0, 10**12))
def test_gaps_grow_are_bounded_and_never_shorter_than_asked(failures: int, chance: float, asked: int | None) -> None:
    """Full jitter below a ceiling that doubles up to a few hours; a consumer's wish counts up to a day."""
    gap = webhooks.gap_ms(failures, chance, asked)
    ceiling = max(1_000, min(webhooks.GAP_MAX_MS, webhooks.GAP_FIRST_MS * 2 ** min(failures, 40)))
    wish = 0 if asked is None else min(asked, webhooks.RETRY_AFTER_MAX_MS)
    assert 1_000 <= gap <= max(ceiling, wish)
    assert gap >= wish
    assert webhooks.is_due(NOW_MS + gap, NOW_MS + gap)
    assert not webhooks.is_due(NOW_MS + gap, NOW_MS)


def test_retry_after_is_read_in_both_its_forms() -> None:
    """Seconds or a date; what cannot be read asks for nothing; a date that is past asks for no time."""
    at = datetime.fromtimestamp(NOW_MS // 1000 + 90, tz=UTC)
    now_ms = NOW_MS // 1000 * 1000
    assert webhooks.retry_after_ms("120", now_ms) == 120_000
    assert webhooks.retry_after_ms(format_datetime(at, usegmt=True), now_ms) == 90_000
    assert webhooks.retry_after_ms(format_datetime(at, usegmt=True), now_ms + HOUR_MS) == 0
    assert [webhooks.retry_after_ms(text, now_ms) for text in (None, "", "soon", "-1", "٣")] == [None] * 5


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 400_000), min_size=1, max_size=12))
def test_a_batch_is_bounded_and_holds_one_event_at_least(sizes: list[int]) -> None:
    """The first events that fit, in order; what is too large alone goes alone."""
    events = [{"n": n, "text": "x" * size} for n, size in enumerate(sizes)]
    taken = webhooks.cut(events)
    assert taken == events[: len(taken)]
    assert taken
    assert len(webhooks._write(taken).encode()) <= webhooks.BATCH_BYTES_MAX or len(taken) == 1
    if len(taken) < len(events):
        assert len(webhooks._write(events[: len(taken) + 1]).encode()) > webhooks.BATCH_BYTES_MAX


def test_a_clock_that_was_put_back_makes_nobody_wait_for_long() -> None:
    """A try that lies further ahead than any gap is due."""
    assert webhooks.is_due(NOW_MS + webhooks.RETRY_AFTER_MAX_MS + 1, NOW_MS)

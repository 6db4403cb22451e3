"""kill -9 of real processes over a real store, real sockets and links that cut: is everything that was told still true?

python -m tests.process.campaign [--kills 500] [--seed N] [--json]

One server process (with its settle consumer), two phones that take and send without pause, two `hudur device` homes.
The server is killed at named points and at random instants, `hudur device` in the middle of taking and of sending;
every link resets connections at random bytes. A seed draws the same kills again; when they hit is the machine's matter.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx

from clientcore.device import CRASH_POINTS as CRASH_POINTS_OF_DEVICE
from clientcore.device import Device
from clientcore.home import LOG, Home, Settings
from clientcore.http import HttpNetwork
from clientcore.log import Log
from clientcore.ports import SystemClock, SystemRandom
from clientcore.register import Code
from clientcore.taking import take_register
from clientcore.wire import shape, unpack
from syncserver.calendar import local_date
from syncserver.enrol import make_code
from syncserver.ports import CRASH_POINTS, ServerPorts
from syncserver.store.sqlite import open_sqlite
from tests.support.ports import free_port
from tests.support.server.world import PUPILS, SCHOOL, make_school
from tests.support.weak import NOON_MS, made, table
from tests.weaknet.line import NO_SET_UP
from tests.weaknet.profile import Cut
from tests.weaknet.proxy import Proxy
from tests.weaknet.timeline import compile_timeline

ZONE = "Africa/Cairo"
TAKE_POINTS = ("log.before_commit", "log.after_commit")
SYNC_POINTS = (*CRASH_POINTS_OF_DEVICE, *TAKE_POINTS)
SESSIONS = tuple(f"{half}{n}" for half in ("am", "pm") for n in range(1, 9))
CUTS_PER_CONNECTION = 0.3
POINT_WAIT_S = 6.0  # a point that is not passed by then: the kill comes anyway
END_WAIT_S = 90.0


@dataclass(slots=True, kw_only=True)
class Summary:
    """What a campaign did and found; `violations` is empty when everything that was told is true.

    Attributes:
        kills: By kind, e.g. `server settle.after_commit`, `device take at random`.
        receipts: Changes somebody was told are durable.
        taps_saved: Taps that `hudur device` reported as saved, killed later or not.
        changes: Changes in the server's log at the end.
        events_read: Events of the feed that were read while servers died.
        events: All of the feed.
        cuts: Connections cut by the links.
    """

    seed: int
    kills: dict[str, int] = field(default_factory=dict)
    receipts: int = 0
    taps_saved: int = 0
    changes: int = 0
    events_read: int = 0
    events: int = 0
    cuts: int = 0
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)

    @property
    def killed(self) -> int:
        """How many processes died by SIGKILL."""
        return sum(self.kills.values())


class Campaign:
    """See the module. `run` may be called once."""

    def __init__(self, folder: Path, *, seed: int, kills: int) -> None:
        self._folder, self._seed, self._kills = folder, seed, kills
        self._store = folder / "store.db"
        self._port = free_port()
        self._today = local_date(SystemClock().wall_ms(), ZONE).isoformat()
        self._counts: Counter[str] = Counter()
        self._receipts: set[bytes] = set()
        self._saved: dict[Path, Counter[tuple[str, str, str]]] = {}
        self._read: list[dict[str, Any]] = []
        self._proxies: list[Proxy] = []
        self._ended = asyncio.Event()
        self.summary = Summary(seed=seed)

    def _draw(self, stream: str) -> random.Random:
        return random.Random(f"{self._seed}|{stream}")

    async def run(self) -> Summary:
        """The whole campaign: kills, then fair weather, then the checks."""
        started = time.monotonic()
        codes = await self._prepare()
        with ExitStack() as stack:
            phones = [self._link(stack, f"phone{n}") for n in range(2)]
            homes = [self._link(stack, f"home{n}") for n in range(2)]
            server = await self._start("-", 1)
            for (home, url), code in zip([*phones, *homes], codes, strict=True):
                await self._enrol(home, url, code)
            await self._stop(server)
            for number, proxy in enumerate(self._proxies):
                proxy.begin(NOON_MS + 1_000 * number)
            await self._kill_all([home for home, _ in homes], phones)
            for proxy in self._proxies:
                self.summary.cuts += sum(proxy.injected.values())
                proxy.clear()
            await self._finish([*phones, *homes])
        self.summary.kills = dict(sorted(self._counts.items()))
        self.summary.seconds = round(time.monotonic() - started, 1)
        return self.summary

    # ---- the world ----

    async def _prepare(self) -> list[str]:
        db = await open_sqlite(self._store)
        await make_school(db)
        ports = ServerPorts()
        made_codes = [
            await make_code(db, ports, school=SCHOOL, user_id=user, made_by="operator")
            for user in ("t1", "t2", "t1", "t2")
        ]
        await db.close()
        return [code for code, _ in made_codes]

    def _link(self, stack: ExitStack, name: str) -> tuple[Path, str]:
        """A home and the address it knows: a link of its own that resets connections at random bytes."""
        cut = Cut(per_conn=CUTS_PER_CONNECTION, rst=1, blackhole=0)
        profile = made(name=name, cut=cut, up_kbps=table(20_000), down_kbps=table(20_000), rtt_ms=table(2))
        proxy = Proxy(self._port, compile_timeline(profile, self._seed), set_up=NO_SET_UP)
        self._proxies.append(stack.enter_context(proxy))
        return self._folder / name, f"http://127.0.0.1:{proxy.port}"

    async def _enrol(self, home: Path, url: str, code: str) -> None:
        async with _opened(home, url) as device:
            await device.enrol(school=SCHOOL, code=code, label=home.name)
            enrolment = device.state.enrolment
            assert enrolment is not None
            Home(home).put_settings(Settings(server=url, enrolment=enrolment))
            await device.sync(confirm=False)

    async def _start(self, point: str, times: int) -> asyncio.subprocess.Process:
        child = await self._child("server", point, times, str(self._store), str(self._port))
        assert child.stdout is not None
        if not await asyncio.wait_for(child.stdout.readline(), 30):
            await child.wait()
            if child.returncode != -signal.SIGKILL:  # at a point that lies on the way up
                raise AssertionError(
                    f"the server does not start: {(self._folder / 'children.log').read_text()[-2000:]}"
                )
        return child

    async def _stop(self, child: asyncio.subprocess.Process) -> None:
        child.terminate()
        await asyncio.wait_for(child.wait(), 30)

    async def _child(self, role: str, point: str, times: int, *arguments: str) -> asyncio.subprocess.Process:
        with (self._folder / "children.log").open("ab") as errors:
            return await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.process.campaign_child", role, point, str(times), *arguments,
                stdout=asyncio.subprocess.PIPE, stderr=errors,
            )  # fmt: skip

    # ---- kills ----

    async def _kill_all(self, homes: Sequence[Path], phones: Sequence[tuple[Path, str]]) -> None:
        working = [asyncio.create_task(self._work(home, url)) for home, url in phones]
        working.append(asyncio.create_task(self._read_feed()))
        try:
            async with asyncio.TaskGroup() as killers:
                killers.create_task(self._kill_servers(self._kills - self._kills // 2))
                for number, home in enumerate(homes):
                    share = self._kills // 2 // len(homes) + (number < self._kills // 2 % len(homes))
                    killers.create_task(self._kill_devices(home, share))
        finally:
            self._ended.set()
            await asyncio.gather(*working)

    async def _kill_servers(self, kills: int) -> None:
        draw = self._draw("server")
        for _ in range(kills):
            point = draw.choice((*CRASH_POINTS, "-", "-", "-"))
            child = await self._start(point, draw.randint(1, 6))
            wait_s = draw.uniform(0.02, 0.9) if point == "-" else POINT_WAIT_S
            with suppress(TimeoutError):
                await asyncio.wait_for(child.wait(), wait_s)
            if child.returncode is None:
                point = "-"
                child.kill()
                await child.wait()
            self._check(child.returncode == -signal.SIGKILL, f"the server ended by itself: {child.returncode}")
            self._counts["server at random" if point == "-" else f"server {point}"] += 1
        self._serving = await self._start("-", 1)

    async def _kill_devices(self, home: Path, kills: int) -> None:
        draw = self._draw(home.name)
        while kills > 0:
            is_taking = draw.random() < 0.6
            at_random = draw.random() < 0.5
            point = "-" if at_random else draw.choice(TAKE_POINTS if is_taking else SYNC_POINTS)
            times = 1 if point.startswith("device.") else draw.randint(1, 6)
            child = await self._child("device", point, times, *self._command(home, draw, is_taking))
            line = draw.randint(2, 12) if is_taking else 1
            delay_s = draw.uniform(0, 0.004 if is_taking else 0.15)
            told = asyncio.create_task(self._listen(home, child, line, delay_s if at_random else None))
            with suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(told), END_WAIT_S)
            if child.returncode is None:
                child.kill()
            await told
            if await child.wait() == -signal.SIGKILL:
                kills -= 1
                name = "take" if is_taking else "sync"
                self._counts[f"device {name} {'at random' if point == '-' else point}"] += 1
            self._check_home(home)

    def _command(self, home: Path, draw: random.Random, is_taking: bool) -> list[str]:
        if not is_taking:
            return ["sync", "--home", str(home), "--no-confirm", "--json"]
        absent = draw.sample(PUPILS, draw.randint(3, 14))
        session = draw.choice(SESSIONS)
        return [
            "take", "--home", str(home), "--class", "c-3a", "--date", self._today, "--session", session,
            "--absent", ",".join(absent), "--json",
        ]  # fmt: skip

    async def _listen(
        self, home: Path, child: asyncio.subprocess.Process, at_line: int, kill_after_s: float | None
    ) -> None:
        """Note what the process says it saved; kill it some moments after its `at_line`-th line if so asked."""
        assert child.stdout is not None
        lines = 0
        async for raw in child.stdout:
            lines += 1
            word, *told = raw.decode().split()
            if word == "saved":
                self._saved.setdefault(home, Counter())[told[0], told[1], told[2]] += 1
                self.summary.taps_saved += 1
            if kill_after_s is not None and lines == at_line:
                await asyncio.sleep(kill_after_s)
                with suppress(ProcessLookupError):
                    child.kill()
        await child.wait()

    # ---- work ----

    async def _work(self, home: Path, url: str) -> None:
        """A phone that takes and sends until the kills are over. What it is told is remembered outside of it, too."""
        draw = self._draw(home.name)
        async with _opened(home, url) as device:
            while not self._ended.is_set():
                register = device.register("c-3a", self._today, draw.choice(SESSIONS))
                wishes = dict.fromkeys(draw.sample(PUPILS, draw.randint(1, 4)), (Code.ABSENT, None))
                take_register(device, register, wishes)
                report = await device.sync(confirm=False)
                self._note_receipts(device)
                with suppress(TimeoutError):  # a person's pause; a refused try is repeated sooner than in the field
                    await asyncio.wait_for(self._ended.wait(), 0.02 if report.outcome == "ok" else 0.1)

    def _note_receipts(self, device: Device) -> None:
        self._receipts |= {entry.change.hash for entry in device.state.entries.values() if entry.own and entry.is_sent}

    async def _read_feed(self) -> None:
        """A consumer of the feed, beside the links."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._port}", timeout=10) as http:
            while not self._ended.is_set():
                with suppress(httpx.HTTPError):
                    self._read += await _page(http, int(self._read[-1]["sequence"]) if self._read else 0)
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._ended.wait(), 0.05)

    # ---- checks ----

    def _check(self, is_true: bool, why: str) -> None:
        if not is_true:
            self.summary.violations.append(why)

    def _check_home(self, home: Path) -> None:
        """Every tap that was reported as saved is in the log, which is whole."""
        log = Log.open(home / LOG)
        try:
            rows = log.read()
        finally:
            log.close()
        self._check(not list(home.glob(f"{LOG}.damaged-*")), f"{home.name}: the log was damaged")
        found: Counter[tuple[str, str, str]] = Counter()
        for row in rows:
            if row.kind == "tap":
                key, value, _ = shape(unpack(row.body, bytes_max=4_096), str, (str, None), int)
                found[str(row.register), str(key), str(value)] += 1
        lost = self._saved.get(home, Counter()) - found
        self._check(not lost, f"{home.name}: saved taps are gone: {sorted(lost)[:3]}")

    async def _finish(self, homes: Sequence[tuple[Path, str]]) -> None:
        """Fair weather: everybody sends; then the log, the feed and the receipts are compared."""
        own: set[bytes] = set()
        for home, url in homes:
            async with _opened(home, url) as device:
                deadline = time.monotonic() + END_WAIT_S
                while device.state.pending or not device.state.entries:
                    report = await device.sync(confirm=False)
                    if time.monotonic() > deadline:
                        self._check(False, f"{home.name}: {device.state.pending} still wait: {report.error}")
                        break
                    await asyncio.sleep(0.05 if report.outcome == "ok" else 0.3)
                self._note_receipts(device)
                own |= {entry.change.hash for entry in device.state.entries.values() if entry.own}
            self._check_home(home)
        feed = await self._whole_feed()
        await self._stop(self._serving)
        await self._check_store(own)
        self._check_feed(feed)

    async def _check_store(self, own: set[bytes]) -> None:
        db = await open_sqlite(self._store)
        try:
            stored = {bytes(digest) for (digest,) in await db.fetch_all("SELECT hash FROM changes")}
            offsets = [offset for (offset,) in await db.fetch_all("SELECT log_offset FROM changes ORDER BY log_offset")]
            found = await db.fetch_all("PRAGMA integrity_check")
        finally:
            await db.close()
        self.summary.receipts, self.summary.changes = len(self._receipts), len(stored)
        self._check(found == [("ok",)], f"the store is damaged: {found[:2]}")
        self._check(offsets == list(range(1, len(offsets) + 1)), "offsets are not dense")
        self._check(self._receipts <= stored, f"{len(self._receipts - stored)} changes with a durable receipt are gone")
        self._check(own == stored, f"{len(own - stored)} changes never came, {len(stored - own)} are nobody's")

    async def _whole_feed(self) -> list[dict[str, Any]]:
        """The feed once the settle stage has caught up."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self._port}", timeout=20) as http:
            quiet = 0
            feed: list[dict[str, Any]] = []
            while quiet < 20:
                page = await _page(http, int(feed[-1]["sequence"]) if feed else 0)
                feed += page
                quiet = 0 if page else quiet + 1
                if not page:
                    await asyncio.sleep(0.05)
            return feed

    def _check_feed(self, feed: list[dict[str, Any]]) -> None:
        self.summary.events_read, self.summary.events = len(self._read), len(feed)
        self._check(bool(self._read), "nothing of the feed was read while servers died")
        self._check(feed[: len(self._read)] == self._read, "events that were read are lost or changed")
        self._check(len({event["id"] for event in feed}) == len(feed), "an event id comes twice")
        sequences = [int(event["sequence"]) for event in feed]
        self._check(sequences == list(range(1, len(feed) + 1)), "the feed has gaps")


async def _page(http: httpx.AsyncClient, after: int) -> list[dict[str, Any]]:
    reply = await http.get("/v1/events", params={"after": after, "limit": 500})
    reply.raise_for_status()
    page: list[dict[str, Any]] = reply.json()
    return page


@asynccontextmanager
async def _opened(home: Path, url: str) -> AsyncIterator[Device]:
    """A device of this process over a home directory and real sockets."""
    place, clock = Home(home), SystemClock()
    key = place.prepare()
    log, cache = place.open_log(at_ms=clock.wall_ms()), place.open_cache()
    async with HttpNetwork(url, clock) as network:
        try:
            yield Device(log=log, cache=cache, key=key, clock=clock, random=SystemRandom(), network=network)
        finally:
            log.close()
            cache.close()


def _print(summary: Summary, replay: str) -> None:
    for name, count in summary.kills.items():
        print(f"  {count:5} kills  {name}")
    print(
        f"{summary.killed} processes killed, {summary.cuts} connections cut in {summary.seconds:.0f} s\n"
        f"  receipts   {summary.receipts} durable, of {summary.changes} changes in the log\n"
        f"  taps       {summary.taps_saved} reported as saved by `hudur device`\n"
        f"  feed       {summary.events_read} events read under kills, of {summary.events}\n"
        f"  violations {len(summary.violations)}"
    )
    for violation in summary.violations[:20]:
        print(f"    {violation}")
    if summary.violations:
        print(f"  again: {replay}")


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.process.campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hudur-kills-") as folder:
        summary = asyncio.run(Campaign(Path(folder), seed=args.seed, kills=args.kills).run())
    if args.json:
        print(json.dumps(asdict(summary), indent=1))
    else:
        _print(summary, f"python -m tests.process.campaign --kills {args.kills} --seed {args.seed}")
    sys.exit(1 if summary.violations else 0)


if __name__ == "__main__":
    main()

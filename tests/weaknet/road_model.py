"""The same morning in the simulator: same profile, seeds, excerpt and instants of capture, in virtual time.

The real device core and the real server over driver (a); only the weather of the profile, none of the swarm's faults.
"""

from __future__ import annotations

import logging
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from clientcore.register import Code
from syncserver.roster import import_zip
from syncserver.store.port import Database
from tests.simulator.clock import WorldClock
from tests.simulator.lab import Lab
from tests.simulator.ledger import Ledger, Trace
from tests.simulator.loop import VirtualLoop
from tests.simulator.machine import tag_tasks
from tests.simulator.phone import PhoneHost
from tests.simulator.school import School, make_school
from tests.simulator.server import ServerHost
from tests.simulator.swarm import Swarm
from tests.simulator.upstream import Upstream
from tests.simulator.watch import Watch
from tests.weaknet.timeline import Connection, Timeline

PUPILS = 40
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Morning:
    """One school's morning over its phones' links.

    Attributes:
        timelines: One a phone.
        captures_ms: When each phone's register is taken, ms of the span.
        spent_bytes: What each phone has spent of the day's budget when the excerpt begins; empty without a budget.
        top_up_at_ms: When everybody pays for a new bundle, or None.
        begins_ms, limit_ms: The excerpt, ms of the span; what has not come by its end has not come.
    """

    timelines: tuple[Timeline, ...]
    captures_ms: tuple[int, ...]
    begins_ms: int
    limit_ms: int
    spent_bytes: tuple[int, ...] = ()
    top_up_at_ms: int | None = None


class _FromFirst(Timeline):
    """Counts connections from the first one the phone makes, as a proxy does, whatever number it is given."""

    _first: int | None = None

    def connection(self, k: int, at_ms: int) -> Connection:
        """See `Timeline`."""
        self._first = k if self._first is None else self._first
        return super().connection(k - self._first, at_ms)


def simulated(morning: Morning, *, chance: int) -> list[int]:
    """Lateness of each register that came, ms, in order of arrival.

    Args:
        morning: What happens.
        chance: Seed of what is no weather: jitter of the back-off, order of tasks.
    """
    swarm = Swarm.of(chance, quiet=True)
    logging.getLogger("hudur").setLevel(logging.CRITICAL + 1)
    loop = VirtualLoop(random.Random(f"road|{chance}"))
    loop.set_task_factory(tag_tasks)
    lab = Lab(loop=loop, swarm=swarm, ledger=Ledger(), journal=Trace(keep=0))
    with tempfile.TemporaryDirectory() as folder:
        watch = loop.run(_play(lab, morning, Path(folder)))
    if loop.faults:
        raise loop.faults[0]
    if lab.ledger.violations:
        raise AssertionError(f"the simulated morning broke an invariant: {lab.ledger.violations}")
    return list(watch.lateness_ms)


async def _play(lab: Lab, morning: Morning, folder: Path) -> Watch:
    first = morning.timelines[0]
    host = ServerHost(lab, clock=WorldClock(lab.loop, first.start_ms), folder=folder)
    watch = Watch(lab, host)
    watch.attach()
    school = make_school(1, teachers=len(morning.timelines), pupils=PUPILS)
    data, on = Upstream([school]).export(), first.profile.span.start.isoformat()

    async def prepare(db: Database) -> None:
        await import_zip(db, data, dry_run=False, now_ms=first.start_ms, on=on, actor="road")

    lab.prepare_store = prepare
    host.switch_on()
    phones = _phones(lab, host, school, morning.timelines)
    for phone in phones:
        phone.network.at_desk = True
        phone.network.wait_for_link = _nobody_tells  # type: ignore[method-assign]
        phone.switch_on()
    for phone in phones:
        await phone.enrolled()
    await lab.sleep_ms(morning.begins_ms - lab.now_ms)
    day = first.days.span.start + timedelta(days=first.days.day_at(morning.begins_ms))
    for phone in phones:
        phone.network.at_desk = False
    for phone, count in zip(phones, morning.spent_bytes, strict=False):
        _set_spent(phone, count)
    for phone, at_ms in zip(phones, morning.captures_ms, strict=True):
        room = phone.classes[0]
        lab.later(_take(lab, phone, at_ms, f"{room}/{day.isoformat()}/day", school.pupils[room][1]))
    if morning.top_up_at_ms is not None:
        lab.later(_top_up(lab, phones, morning.top_up_at_ms))
    await lab.sleep_ms(morning.begins_ms + morning.limit_ms - lab.now_ms)
    for phone in phones:
        await phone.switch_off()
    await lab.settle_strays()
    await host.switch_off()
    return watch


def _phones(lab: Lab, host: ServerHost, school: School, timelines: Sequence[Timeline]) -> list[PhoneHost]:
    clock = WorldClock(lab.loop, timelines[0].start_ms)
    return [
        PhoneHost(
            lab,
            host,
            clock,
            name=f"{school.id}.{user_id}",
            school=school.id,
            user_id=user_id,
            classes=school.classes_of(user_id),
            timeline=_FromFirst(timeline.profile, timeline.seed, timeline.days.count),
        )
        for user_id, timeline in zip(school.teachers, timelines, strict=True)
    ]


async def _take(lab: Lab, phone: PhoneHost, at_ms: int, register: str, absent: str) -> None:
    await lab.sleep_ms(at_ms - lab.now_ms)
    await phone.take(register, {absent: (Code.ABSENT, None)})


async def _nobody_tells() -> None:
    """Neither a command on a loopback nor a page behind a proxy hears from its system that there is no network."""


async def _top_up(lab: Lab, phones: Sequence[PhoneHost], at_ms: int) -> None:
    await lab.sleep_ms(at_ms - lab.now_ms)
    for phone in phones:
        _set_spent(phone, 0)


def _set_spent(phone: PhoneHost, count: int) -> None:
    """What the phone has spent today: its people's doing, for which the simulator's network has no act."""
    network = phone.network
    network._day, network._spent_today = network._at_ms() // DAY_MS, count

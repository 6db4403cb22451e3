"""The virtual loop: time is a number, one seed is one order, and nothing that fails is passed over."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.simulator.loop import Stuck, VirtualLoop

pause = asyncio.sleep  # on a virtual clock: nothing waits


async def _note(delay_s: float, name: str, notes: list[tuple[float, str]]) -> None:
    await pause(delay_s)
    notes.append((asyncio.get_running_loop().time(), name))


def order_of(shuffle: random.Random | None) -> list[int]:
    """Ten callbacks that are ready at one instant."""
    order: list[int] = []

    async def all_at_once() -> None:
        for name in range(10):
            asyncio.get_running_loop().call_soon(order.append, name)
        await pause(1.0)

    VirtualLoop(shuffle).run(all_at_once())
    return order


def test_waiting_costs_nothing_and_keeps_its_order() -> None:
    """A year passes at once; timers fire at their instants, in their order."""
    notes: list[tuple[float, str]] = []

    async def year() -> None:
        await asyncio.gather(
            _note(31_536_000.0, "year", notes),
            _note(86_400.0, "day", notes),
            _note(0.001, "instant", notes),
        )

    VirtualLoop().run(year())
    assert [name for _, name in notes] == ["instant", "day", "year"]
    assert [at_s for at_s, _ in notes] == pytest.approx([0.001, 86_400.0, 31_536_000.0])


def test_one_seed_is_one_order_and_seeds_differ() -> None:
    """What is ready together is shuffled by the seed alone; without one it keeps asyncio's order."""
    assert order_of(random.Random(5)) == order_of(random.Random(5))
    assert len({tuple(order_of(random.Random(seed))) for seed in range(10)}) > 5
    assert order_of(None) == list(range(10))


def test_waiting_for_nothing_is_told() -> None:
    """A world in which nothing will ever happen ends with `Stuck`, not with a hang."""

    async def wait_for_nobody() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck):
        VirtualLoop().run(wait_for_nobody())


def test_a_failure_nobody_awaits_is_remembered() -> None:
    """A task that fails alone is found in `faults`."""

    async def fail() -> None:
        raise LookupError("nobody looks")

    async def begin() -> None:
        task = asyncio.get_running_loop().create_task(fail())
        await pause(1)
        del task

    loop = VirtualLoop()
    loop.run(begin())
    assert [str(error) for error in loop.faults] == ["nobody looks"]


def test_what_is_left_at_the_end_is_cancelled() -> None:
    """A task that would wait for ever is ended with the run."""
    ended: list[bool] = []

    async def linger() -> None:
        try:
            await pause(1e9)
        finally:
            ended.append(True)

    async def begin() -> None:
        task = asyncio.get_running_loop().create_task(linger())
        await pause(1)
        assert not task.done()

    VirtualLoop().run(begin())
    assert ended == [True]

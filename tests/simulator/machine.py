"""A machine: every task that runs on it ends when it dies, wherever it was started from."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any

_ON: ContextVar[Machine | None] = ContextVar("machine", default=None)
_CANCELS_MAX = 200


class Machine:
    """A phone or the server, as a set of tasks. Tasks started by its tasks belong to it as well."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._tasks: dict[asyncio.Task[Any], None] = {}  # a dict: its order is that of the starts

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start `work` on this machine."""
        context = copy_context()
        context.run(_ON.set, self)
        return asyncio.get_running_loop().create_task(work, context=context)

    async def halt(self) -> None:
        """End every task. Called after the disk died, so that nothing they still do reaches it."""
        me = asyncio.current_task()
        for _ in range(_CANCELS_MAX):
            left = [task for task in self._tasks if task is not me and not task.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.sleep(0)
        raise AssertionError(f"{self.name}: tasks outlive their machine: {left}")

    def add(self, task: asyncio.Task[Any]) -> None:
        """Take a new task in."""
        self._tasks[task] = None
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled():
            task.exception()  # looked at: what it means is decided by whoever waits for it


def tag_tasks(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    *,
    context: Context | None = None,
) -> asyncio.Task[Any]:
    """The loop's task factory: a task belongs to the machine its starter runs on."""
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, context=context)
    machine = context.get(_ON) if context is not None and _ON in context else _ON.get()
    if machine is not None:
        machine.add(task)
    return task

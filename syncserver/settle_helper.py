"""A second process that looks and computes for the settle stage of a store in SQLite; it writes nothing.

One interpreter runs one thread at a time. What settling reads and computes would be taken from the requests of the
day; with a second core it is not. The settle stage keeps what it alone can do: it decides what is written, and writes.

Invariants:
  1. The helper has one read-only connection: one process writes a store.
  2. It runs the code the stage itself would run, over one moment of the store: nothing depends on who did it.
  3. Whatever befalls it costs time and no register: what it did not settle, and the round in which it ended, the stage
     does itself, and another helper is started.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from clientcore.ports import Clock
from syncserver.sight import OPERATIONS_PER_ROUND_MAX, Part, Sight, look
from syncserver.store.connector import FILES
from syncserver.store.inline import read_inline

_LOG = logging.getLogger("hudur.settle")
_ANSWER_S = 30.0  # a round is some hundred milliseconds; whoever takes longer stands still
_AGAIN_MS = 30_000  # how long the stage does everything itself after a helper ended: none ends twice for nothing
_END_S = 2.0


class Helper:
    """The helper as the settle stage sees it. One question at a time."""

    def __init__(self, store: Path, zone: str, clock: Clock) -> None:
        self._store, self._zone, self._clock = store, zone, clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="settle helper")
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._not_before_ms = clock.mono_ms()

    async def see(self, part: Part, limit: int, above: int) -> Sight | None:
        """What the next round sees, with the results of its ordinary registers; None: the stage has to look itself.

        Args:
            part: Which part of the log.
            limit: New changes at most.
            above: See `reconciliation.events.events`.
        """
        if self._clock.mono_ms() < self._not_before_ms:
            return None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._ask, part, limit, above)
        except Exception as broken:  # whatever it is, no change is to blame: the stage would bury one for it
            _LOG.warning("the settle helper is gone (%s): its work is done here meanwhile", type(broken).__name__)
            self._not_before_ms = self._clock.mono_ms() + _AGAIN_MS
            return None

    def close(self) -> None:
        """End it. Nobody waits for an answer any more."""
        self._end()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _ask(self, part: Part, limit: int, above: int) -> Sight | None:
        try:
            pipe = self._pipe or self._start()
            pipe.send((part, limit, above))
            if not pipe.poll(_ANSWER_S):
                raise TimeoutError
            found: Sight | None = pipe.recv()
        except Exception:
            self._end()
            raise
        return found

    def _start(self) -> Connection:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_help, args=(theirs, self._store, self._zone), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe = ours
        return ours

    def _end(self) -> None:
        process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()  # the helper ends by itself: there is nobody left to ask
        if process is not None:
            process.join(_END_S)
            if process.is_alive():
                process.kill()
                process.join()


# ---- in the helper's process -------------------------------------------------------------------------------------


def _help(pipe: Connection, store: Path, zone: str) -> None:
    """Answer until nobody asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends us
    reader = FILES.connect_glancing(store)
    with contextlib.suppress(EOFError, OSError):
        while True:
            part, limit, above = pipe.recv()
            try:
                sight = read_inline(reader, partial(look, part=part, limit=limit, zone=zone))
                answer: Sight | None = settled_ahead(sight, above)
            except Exception:  # the stage looks itself then, meets the same fault and knows what to do with it
                answer = None
            pipe.send(answer)


def settled_ahead(sight: Sight, above: int) -> Sight:
    """`sight` with the results of its ordinary registers, and without what only they needed.

    A register that cannot be settled is left to the stage, which finds out by which change, and so is whatever is more
    than a round may hold.
    """
    results = {}
    operations = 0
    for task in sight.tasks:
        if sight.is_large(task) or operations >= OPERATIONS_PER_ROUND_MAX:
            continue
        try:
            result = sight.settle(task, sight.changes[task.key], above)
        except Exception:
            continue
        results[task.key] = result
        operations += result.operations
    return replace(
        sight,
        results=results,
        previous={key: row for key, row in sight.previous.items() if key not in results},
        contexts={key: context for key, context in sight.contexts.items() if key not in results},
        changes={key: changes for key, changes in sight.changes.items() if key not in results},
    )

"""Half a million phones in one process: non-blocking sockets and epoll, requests ready-made, answers checked.

The load may not cost more than the server it measures, so there is no event loop's machinery per connection here: 50 to
100 µs for a push. Every session is a TCP connection of its own. What a phone does is done: it waits as
`clientcore.backoff` says, comes again with the same bytes, and believes only what answers its very request.

Invariants:
  1. A job ends in exactly one way: every change of it durable (or known already), or in `wrong`.
  2. A wait is never shorter than what the server asked for.
  3. Where phones ask for confirmations each ends in one way too: told, or tired of asking.
"""

from __future__ import annotations

import errno
import gc
import hashlib
import heapq
import os
import random
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgpack

from bench.morning.asking import Asking, cursor_of
from bench.morning.frames import FOLLOWS, KEY_BYTES, LOST, SLOW, TORN, Jobs, parts_in
from bench.morning.slow import PIECES, Drip
from bench.morning.sockets import ADDRESSES, Connection, body_of, open_socket, raise_file_limit, retry_after_s
from bench.morning.tally import AGAIN, AT_ONCE, SLOWLY, Tally
from clientcore.backoff import wait_ms
from clientcore.errors import FrameRefused
from clientcore.exchange import DUPLICATE, MEDIA_TYPE, read_answer

_OURS = f"content-type: {MEDIA_TYPE}".encode()
_ANSWER_S = 60.0
_SAMPLE = 50  # of how many answers one is proved whole, signature included


class Load:
    """The phones. One `run` at a time; `now_s` counts from the beginning of it."""

    def __init__(
        self,
        port: int,
        folder: Path,
        jobs: Jobs,
        *,
        server_key: bytes,
        drips: Sequence[Drip],
        seed: int,
        patience: float = 1.0,
    ) -> None:
        self._port, self._jobs, self._key, self._drips = port, jobs, server_key, drips
        self._files = [os.open(file, os.O_RDONLY) for file in parts_in(folder)]
        self._keys = [os.open(file.with_suffix(".keys"), os.O_RDONLY) for file in parts_in(folder)]
        self._random = random.Random(f"{seed} load")
        self._patience = patience  # factor on what phones wait of themselves; never on what the server asks for
        self._epoll = select.epoll()
        self._open: dict[int, Connection] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._timer_no = 0
        self._address = 0
        self._refill: deque[int] = deque()
        self._zero_s = 0.0
        self._lingering: dict[int, Connection] = {}
        self.waiting = self.asking = 0
        self._confirms = False
        self._left: dict[int, tuple[bytes | None, int]] = {}  # job that follows: the phone's cursor, changes to be told
        self.now_s = 0.0
        self.answered_s = 0.0
        self.tally = Tally()
        self._room = raise_file_limit() - 256
        gc.freeze()

    @property
    def open(self) -> int:
        """Connections at this moment, those included that only wait to be closed."""
        return len(self._open) + len(self._lingering)

    def close(self) -> None:
        """Give the files back."""
        self._epoll.close()
        for file in self._files + self._keys:
            os.close(file)

    # ---- running -----------------------------------------------------------------------------------------------

    def run(
        self,
        schedule: Iterable[tuple[float, int]],
        *,
        tick: Callable[[float], None],
        limit_s: float,
        lanes: Sequence[int] = (),
        confirms: bool = False,
        is_over: Callable[[], bool] = lambda: True,
    ) -> Tally:
        """Send every job at its second and go on until all are answered, nobody asks any more, and `is_over`.

        Args:
            schedule: (second, job), ascending.
            tick: Called every second.
            limit_s: After which what is left counts as wrong.
            lanes: Instead of a schedule: jobs sent one after the other over as many lanes as `schedule` begins.
            confirms: Whether phones that have their receipts ask for the confirmation.
            is_over: Whether to end, asked once all jobs are answered.
        """
        self.tally, self.answered_s, self._confirms = Tally(), 0.0, confirms
        self._refill = deque(lanes)
        self._zero_s = time.perf_counter()
        due = iter(schedule)
        upcoming = next(due, None)
        next_tick_s = 0.0
        done = False
        while not done:
            self.now_s = now_s = time.perf_counter() - self._zero_s
            while upcoming is not None and upcoming[0] <= now_s and self.open < self._room:
                self._start(upcoming[1], upcoming[0])
                upcoming = next(due, None)
            while self._timers and self._timers[0][0] <= now_s:
                heapq.heappop(self._timers)[2]()
            if now_s >= next_tick_s:
                next_tick_s = int(now_s) + 1.0
                tick(now_s)
                self._give_up_silent(now_s)
                done = now_s > limit_s
                self.tally.connections_max = max(self.tally.connections_max, self.open)
            if upcoming is None and not self.waiting and not self._refill and is_over():
                self.tally.settled_s = self.tally.settled_s or now_s
                done = done or not self.asking
            until_s = min(
                next_tick_s,
                upcoming[0] if upcoming is not None else next_tick_s,
                self._timers[0][0] if self._timers else next_tick_s,
            )
            for fd, events in self._epoll.poll(max(0.0, until_s - (time.perf_counter() - self._zero_s)), 1024):
                self._ready(fd, events)
        if self.waiting:
            self.tally.is_wrong(f"{self.waiting} jobs without an answer after {limit_s:.0f} s")
        if self.asking:
            self.tally.is_wrong(f"{self.asking} phones ask for their confirmation still after {limit_s:.0f} s")
        for connection in [*self._open.values()]:
            self._shut(connection)
        for connection in [*self._lingering.values()]:
            self._let_go(connection)
        self._timers.clear()
        self._left.clear()
        self.waiting = self.asking = 0
        return self.tally

    def look(self, path: str, then: Callable[[bytes], None]) -> None:
        """GET a page of the server beside the load; `then` gets its body."""
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
        self._connect(Connection(open_socket("127.0.0.1"), -1, request, self.now_s, then=then))

    def _after(self, wait_s: float, act: Callable[[], None]) -> None:
        self._timer_no += 1
        heapq.heappush(self._timers, (time.perf_counter() - self._zero_s + wait_s, self._timer_no, act))

    # ---- one try -----------------------------------------------------------------------------------------------

    def _start(self, job: int, asked_s: float, failures: int = 0) -> None:
        if not failures:
            self.waiting += 1
        if self.open >= self._room:  # ours, not the server's: the phone waits a second
            self.tally.count("failed: no descriptor", self.now_s)
            self._after(1.0, lambda: self._start(job, asked_s, max(failures, 1)))
            return
        jobs = self._jobs
        sock = self._next_socket()
        request = os.pread(self._files[jobs.part[job]], jobs.length[job], jobs.offset[job])
        connection = Connection(sock, job, request, asked_s, failures)
        if jobs.flags[job] & SLOW:
            connection.drip = self._drips[(job + failures) % len(self._drips)]
        self.tally.count("tries", self.now_s)
        self._connect(connection)

    def _next_socket(self) -> socket.socket:
        self._address = (self._address + 1) % len(ADDRESSES)
        return open_socket(ADDRESSES[self._address])

    def _connect(self, connection: Connection) -> None:
        sock = connection.sock
        if connection.drip is None:  # a slow phone's pieces come later
            connection.left = connection.request
            if not connection.failures and connection.job >= 0 and self._jobs.flags[connection.job] & TORN:
                connection.left = connection.request[: len(connection.request) * 2 // 3]
        found = sock.connect_ex(("127.0.0.1", self._port))
        if found not in (0, errno.EINPROGRESS):
            self._again(connection, os.strerror(found))
            return
        self._open[sock.fileno()] = connection
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        connection.begun_s = time.perf_counter() - self._zero_s
        if connection.drip is None:
            connection.sent_s = connection.begun_s
            self._send(connection, connection.left)
        else:
            self._after(connection.drip.at_s[0], lambda: self._drip(connection))

    def _send(self, connection: Connection, part: bytes) -> None:
        """Send now, or as soon as the socket takes it (a connection that is not there yet)."""
        try:
            sent = connection.sock.send(part)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._again(connection, type(error).__name__)
            return
        if sent < len(part):
            connection.left = part[sent:]
            self._epoll.modify(connection.sock.fileno(), select.EPOLLIN | select.EPOLLOUT)
            return
        connection.left = b""
        if not connection.failures and connection.job >= 0 and self._jobs.flags[connection.job] & TORN:
            self._again(connection, "torn")

    def _drip(self, connection: Connection) -> None:
        drip = connection.drip
        if not connection.is_open or drip is None:
            return
        size = -(-len(connection.request) // PIECES)
        part = connection.request[connection.piece * size : (connection.piece + 1) * size]
        connection.piece += 1
        connection.sent_s = time.perf_counter() - self._zero_s
        if connection.piece < PIECES:
            wait_s = drip.at_s[connection.piece] - drip.at_s[connection.piece - 1]
            self._after(wait_s, lambda: self._drip(connection))
        if connection.left:  # not connected yet: it goes behind what waits already
            connection.left += part
        else:
            self._send(connection, part)

    def _ready(self, fd: int, events: int) -> None:
        connection = self._open.get(fd)
        if connection is None:
            return
        if events & select.EPOLLOUT:
            self._epoll.modify(fd, select.EPOLLIN)
            connection.sent_s = time.perf_counter() - self._zero_s
            self._send(connection, connection.left)
            if not connection.is_open:
                return
            if not events & ~select.EPOLLOUT:
                return
        try:
            data = connection.sock.recv(131_072)
        except BlockingIOError:
            return
        except OSError as error:
            self._again(connection, type(error).__name__)
            return
        if not data:
            self._again(connection, "closed")
            return
        connection.answer += data
        head_end = connection.answer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = connection.answer[:head_end].lower()
        length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0] or b"0")
        if len(connection.answer) >= head_end + 4 + length:
            self._answered(connection, head, connection.answer[head_end + 4 :])

    def _give_up_silent(self, now_s: float) -> None:
        for connection in [one for one in self._open.values() if now_s - one.begun_s > _ANSWER_S]:
            self._again(connection, "silence")

    def _shut(self, connection: Connection) -> None:
        if not connection.is_open:
            return
        connection.is_open = False
        self._open.pop(connection.sock.fileno(), None)
        connection.sock.close()

    def _let_go(self, connection: Connection) -> None:
        self._lingering.pop(connection.sock.fileno(), None)
        connection.is_open = False
        connection.sock.close()

    # ---- answers -----------------------------------------------------------------------------------------------

    def _answered(self, connection: Connection, head: bytes, body: bytes) -> None:
        now_s = time.perf_counter() - self._zero_s
        if connection.then is not None:
            self._shut(connection)
            connection.then(body if head.startswith(b"http/1.1 200") else b"")
            return
        if connection.asking is not None:
            self._shut(connection)
            self._told(connection.asking, head, body)
            return
        if connection.drip is not None and connection.is_open:
            self._open.pop(connection.sock.fileno(), None)
            self._epoll.unregister(connection.sock.fileno())
            self._lingering[connection.sock.fileno()] = connection
            self._after(connection.drip.linger_s, lambda: self._let_go(connection))
        else:
            self._shut(connection)
        self.tally.counts["bytes_up"] += len(connection.request)
        self.tally.counts["bytes_down"] += len(head) + 4 + len(body)
        status = int(head[9:12])
        if status in (503, 429):
            self.tally.count("shed" if status == 503 else "slowed", now_s)
            after_s = retry_after_s(head)
            if after_s is None:
                self.tally.is_wrong(f"{status} without Retry-After")
            self._retry(connection, after_s)
        elif status != 200 or _OURS not in head:
            self.tally.is_wrong(f"{status} {body[:200]!r}")
            self._finish(connection, now_s, None)
        elif self._jobs.flags[connection.job] & LOST and not connection.failures:
            self._retry(connection, None, "lost")
        else:
            self._check(connection, body)
            self._finish(connection, now_s, body)

    def _check(self, connection: Connection, body: bytes) -> None:
        request = body_of(connection.request)
        receipts = msgpack.unpackb(signed := msgpack.unpackb(body)[1])[6]
        digest = hashlib.sha256(request).digest()[:16]
        verdicts = [verdict for entry in receipts for verdict in entry]
        if digest not in signed or len(verdicts) != self._jobs.changes[connection.job]:
            self.tally.is_wrong("an answer to something else")
        for verdict in verdicts:
            if type(verdict) is not int or verdict > DUPLICATE:
                self.tally.is_wrong(f"verdict {verdict}")
            self.tally.counts["duplicate" if verdict == DUPLICATE else "durable"] += 1
        if connection.job % _SAMPLE == 0:
            self._prove(body, request)

    def _prove(self, answered: bytes, request: bytes) -> None:
        try:
            read_answer(answered, server_key=self._key, request=request)
        except FrameRefused as refused:
            self.tally.is_wrong(f"an answer that proves nothing: {refused}")
        self.tally.counts["proved"] += 1

    def _finish(self, connection: Connection, now_s: float, answered: bytes | None) -> None:
        job, self.waiting, self.answered_s = connection.job, self.waiting - 1, now_s
        kind = SLOWLY if connection.drip is not None else AGAIN if connection.failures else AT_ONCE
        self.tally.count("accepted", now_s)
        waits_s = now_s - connection.sent_s, now_s - connection.asked_s
        self.tally.accepted.extend((connection.asked_s, kind, *waits_s, self._jobs.changes[job]))
        if job + 1 < len(self._jobs) and self._jobs.flags[job + 1] & FOLLOWS:
            if self._confirms and answered is not None:
                self._left[job + 1] = cursor_of(body_of(connection.request), answered), self._jobs.changes[job]
            self._start(job + 1, now_s)
        elif self._refill:
            self._start(self._refill.popleft(), now_s)
        elif self._confirms and answered is not None:
            self._wait_to_be_told(connection, answered, now_s)

    # ---- confirmations -----------------------------------------------------------------------------------------

    def _wait_to_be_told(self, connection: Connection, answered: bytes, now_s: float) -> None:
        jobs, job, body = self._jobs, connection.job, body_of(connection.request)
        cursor, before = self._left.pop(job, (None, 0))
        scalar = os.pread(self._keys[jobs.part[job]], KEY_BYTES, jobs.phone[job] * KEY_BYTES)
        phone = Asking(scalar, before + jobs.changes[job], cursor_of(body, answered) or cursor, now_s, body)
        self.asking += 1
        self._take_told(phone, answered, now_s)

    def _take_told(self, phone: Asking, answered: bytes, now_s: float) -> None:
        """What the page does: soon after the receipt, then ever more rarely, then no more."""
        try:
            is_told = phone.take(answered)
        except FrameRefused as refused:
            self.tally.is_wrong(f"an answer to an ask: {refused}")
            self.asking -= 1
            return
        if is_told:
            self.tally.told_s.append(now_s - phone.since_s)
            self.asking -= 1
            return
        wait_s = phone.wait_s
        if wait_s is None:
            self.tally.count("not told", now_s)
            self.asking -= 1
            return

        def begin() -> None:
            phone.begin()
            self._ask(phone)

        self._after(wait_s * self._patience, begin)

    def _ask(self, phone: Asking) -> None:
        if self.open >= self._room:
            self._after(1.0, lambda: self._ask(phone))
            return
        self.tally.count("asks", self.now_s)
        self._connect(Connection(self._next_socket(), -1, phone.request, self.now_s, asking=phone))

    def _told(self, phone: Asking, head: bytes, body: bytes) -> None:
        now_s, status = time.perf_counter() - self._zero_s, int(head[9:12])
        if status in (503, 429):
            self.tally.count("asks put off", now_s)
            self._ask_again(phone, retry_after_s(head))
        elif status != 200 or _OURS not in head:
            self.tally.is_wrong(f"an ask: {status} {body[:200]!r}")
            self.asking -= 1
        else:
            self.tally.count("asks answered", now_s)
            if self.tally.counts["asks answered"] % _SAMPLE == 0:
                self._prove(body, phone.body)
            phone.asked += 1
            self._take_told(phone, body, now_s)

    def _ask_again(self, phone: Asking, retry_after_s: float | None) -> None:
        phone.failures += 1
        self._after(self._wait_s(phone.failures, retry_after_s), lambda: self._ask(phone))

    # ---- trying again ------------------------------------------------------------------------------------------

    def _again(self, connection: Connection, why: str) -> None:
        """The try failed without an answer."""
        if not connection.is_open:  # known already
            return
        self._shut(connection)
        if connection.then is not None:
            connection.then(b"")
        elif connection.asking is not None:
            self.tally.count(f"asks failed: {why}", self.now_s)
            self._ask_again(connection.asking, None)
        else:
            self._retry(connection, None, why)

    def _retry(self, connection: Connection, retry_after_s: float | None, why: str | None = None) -> None:
        if why is not None:
            self.tally.count(f"failed: {why}", self.now_s)
        failures, job, asked_s = connection.failures + 1, connection.job, connection.asked_s
        self._after(self._wait_s(failures, retry_after_s), lambda: self._start(job, asked_s, failures))

    def _wait_s(self, failures: int, retry_after_s: float | None) -> float:
        wait_s = wait_ms(failures, fraction=self._random.random()) / 1000 * self._patience
        # A Retry-After has whole seconds.
        return wait_s if retry_after_s is None else max(wait_s, retry_after_s + self._random.random())

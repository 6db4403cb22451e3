"""After the morning: what is in the store against what was sent. Reads the files the server left, not its word.

Every register: its change stands in the log exactly once, and each of its pupils has in the outcome the code that was
sent; *absent* where no absence was sent is counted by itself. Of the events at most `PAGES` small pages are read,
evenly over the whole feed, and must say what was sent. Outcomes and events are read by the store's own code, so that
its layout may change.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from bench.morning.frames import dates_of, parts_in, read_registers
from bench.morning.plan import PUPILS, Size
from clientcore.errors import HudurError
from clientcore.register import Code
from syncserver import feed
from syncserver.store.inline import InlineTransaction
from syncserver.store.registers import outcome_of

PAGES = 1_500
_PAGE = 40  # one or two registers: reading a page costs as many outcomes as it may have events
_KEPT = 20
_ABSENT = frozenset(("A", "E", "U"))
T = TypeVar("T")


def prove(store: Path, folder: Path, size: Size, *, processes: int = 2) -> tuple[Counter[str], list[str]]:
    """Compare everything; returns counts (`lost`, `false absent`, `doubled` and `different` must be 0) and findings."""
    counts: Counter[str] = Counter()
    found: list[str] = []
    parts = range(len(parts_in(folder)))
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        told = pool.submit(_prove_events, store, folder, size)
        proofs = [pool.submit(_prove_part, part, store, folder, size) for part in parts]
        for proof in (*proofs, told):
            part_counts, part_found = proof.result()
            counts.update(part_counts)
            found += part_found
    with closing(_open(store)) as db:
        (in_log,) = db.execute("SELECT count(*) FROM changes").fetchone()
        (counts["dead letters"],) = db.execute("SELECT count(*) FROM dead_letters").fetchone()
        (settled,) = db.execute("SELECT log_offset FROM consumers").fetchone()
    counts["unsettled"] = in_log - settled
    counts["doubled"] = in_log - counts["in the log"]
    return counts, found[:_KEPT]


def _open(store: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{store.absolute().as_uri()}?mode=ro", uri=True)


def _now(steps: Coroutine[Any, Any, T]) -> T:
    """The result of a reader's coroutine; on an inline connection it never waits."""
    try:
        steps.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError("an inline reader does not wait")


def _expected(part: Path, size: Size) -> Iterator[tuple[tuple[str, str, str, str], bytes, str]]:
    dates = dates_of(size)
    for school, class_id, day, session, digest, codes in read_registers(part):
        yield (school, class_id, dates[day], session), digest, codes


def _prove_part(part: int, store: Path, folder: Path, size: Size) -> tuple[Counter[str], list[str]]:
    counts: Counter[str] = Counter()
    found: list[str] = []
    with closing(_open(store)) as db:
        reader = InlineTransaction(db)
        logged: Counter[tuple[str, str, str, bytes]] = Counter()
        school = ""
        for key, digest, codes in _expected(parts_in(folder)[part], size):
            if key[0] != school:
                school = key[0]
                logged = Counter(
                    db.execute("SELECT class_id, date, session, hash FROM changes WHERE school = ?", (school,))
                )
            counts["registers"] += 1
            times = logged[(*key[1:], digest)]
            counts["in the log"] += times
            stored = _now(outcome_of(reader, key))
            if times != 1 or stored is None:
                counts["lost"] += 1
                found.append(f"{'/'.join(key)}: {times} times in the log, outcome {stored is not None}")
                continue
            told = [
                None if answer.mark is None else answer.mark.code.value
                for _, answer in sorted(stored.outcome.answers.items())
            ]
            _compare("/".join(key), told, codes, counts, found)
    return counts, found


def _compare(name: str, told: Sequence[str | None], codes: str, counts: Counter[str], found: list[str]) -> None:
    counts["marks"] += len(codes)
    if len(told) == len(codes) and all(one == sent for one, sent in zip(told, codes, strict=True)):
        return
    counts["different"] += 1
    counts["false absent"] += sum(
        one in _ABSENT and sent not in _ABSENT for one, sent in zip(told, codes, strict=False)
    )
    found.append(f"{name}: {''.join(one or '-' for one in told)}, not {codes}")


def _prove_events(store: Path, folder: Path, size: Size) -> tuple[Counter[str], list[str]]:
    counts: Counter[str] = Counter()
    found: list[str] = []
    told: dict[str, dict[int, str]] = {}
    with closing(_open(store)) as db:
        reader = InlineTransaction(db)
        last = _now(feed.read_head(reader))
        for after in range(0, last, max(_PAGE * 25, last // PAGES)):
            try:
                page = _now(feed.read_page(reader, after=after, limit=_PAGE, schools=None))
            except HudurError as error:
                counts["unreadable pages"] += 1
                found.append(f"events after {after}: {error}")
                continue
            for event in page.events:
                register, _, pupil = event["subject"].rpartition("/")
                told.setdefault(register, {})[int(pupil[-4:])] = event["data"]["code"]
    counts["events"] = last
    for part in parts_in(folder):
        for key, _, codes in _expected(part, size):
            for number, word in told.pop("/".join(key), {}).items():
                counts["events read"] += 1
                sent = Code(codes[number % PUPILS])
                if word != sent.word:
                    counts["different"] += 1
                    counts["false absent"] += word.startswith("absent") and sent.value not in _ABSENT
                    found.append(f"event of {'/'.join(key)}: {word}, not {sent.word}")
    counts["not of ours"] += len(told)
    return counts, found

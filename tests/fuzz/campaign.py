"""Feeds mutants to every parser and watches what comes back.

Run in a process of its own: `python -m tests.fuzz.campaign --seed S --count N`. Case i depends on seed and i only, so
a finding is seen again with `--seed S --case I`. A finding is: any exception but the typed refusal; more than 50 ms of
CPU (three times in a row); memory beyond 64 MB on top of the warm process; something admitted that is not its own
canonical spelling, or outside the profile as `is_plain_change` and `is_plain_value` state it. The report is one JSON
document on stdout; the changes that were admitted go on to both Automerge cores (test_fuzz.py).
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clientcore import exchange
from clientcore.change import Change, Op, admit, deflate, parse
from clientcore.errors import ChangeRefused, FrameRefused
from clientcore.frame import parse_frame, read_bundle
from clientcore.limits import (
    BUNDLE_BYTES_MAX,
    CHUNK_BYTES_MAX,
    COUNTER_MAX,
    DEPS_MAX,
    MSGPACK_ARRAY_MAX,
    OPS_PER_CHANGE_MAX,
    PREDS_PER_OP_MAX,
    TIME_S_MAX,
)
from clientcore.register import is_key, is_value
from clientcore.wire import pack, unpack
from tests.fuzz import corpus, mutate_changes, mutate_messages, weaken
from tests.support.fixed import SERVER
from tests.vectors.cases import answers

CPU_S_MAX = 0.05
MEMORY_BYTES_MAX = 64 << 20
CHANGES_SHARE = 0.6
REQUEST = answers.request()


def is_plain_change(change: Change) -> bool:
    """The profile once more, as plainly as it can be said."""
    sizes = [len(change.actor), *(len(name) for op in change.ops for _, name in op.preds)]
    return (
        set(sizes) == {16}
        and all(len(dep) == 32 for dep in change.deps)
        and list(change.deps) == sorted(set(change.deps))
        and len(change.deps) <= DEPS_MAX
        and 1 <= change.seq <= COUNTER_MAX
        and 1 <= change.start_op <= COUNTER_MAX
        and 0 <= change.time_s < TIME_S_MAX
        and 1 <= len(change.ops) <= OPS_PER_CHANGE_MAX
        and len(change.chunk) <= CHUNK_BYTES_MAX
        and all(_is_plain_op(op, change.start_op + i) for i, op in enumerate(change.ops))
    )


def _is_plain_op(op: Op, counter: int) -> bool:
    return (
        is_key(op.key.encode())
        and (bool(op.preds) if op.value is None else is_value(op.key.encode(), op.value.encode()))
        and list(op.preds) == sorted(set(op.preds))
        and len(op.preds) <= PREDS_PER_OP_MAX
        and all(1 <= named < counter for named, _ in op.preds)
    )


def is_plain_value(value: Any) -> bool:
    """What may stand in MessagePack on this road."""
    if isinstance(value, list):
        return len(value) <= MSGPACK_ARRAY_MAX and all(map(is_plain_value, value))
    if type(value) is int:
        return abs(value) < 1 << 53
    return value is None or type(value) in (bool, str, bytes)


def read_change(data: bytes) -> None:
    """A change, and that what is admitted is its own canonical spelling, by both readers and for the same reasons."""
    try:
        change = parse(data)
    except ChangeRefused as refused:
        if code_of(admit, data) != refused.code:
            raise AssertionError("refused, but not by who only keeps it") from refused
        raise
    assert code_of(admit, data) is None, "admitted, but not by who only keeps it"
    assert admit(data) == (change.hash, change.actor), "admitted as another"
    plain = corpus.body(change)
    assert change.chunk.endswith(plain), "admitted, but spelt otherwise"
    assert is_plain_change(change), "admitted, but outside the profile"
    assert parse(change.chunk) == change == parse(deflate(change.chunk)), "admitted, but does not come back"


def code_of(read: Callable[[bytes], object], data: bytes) -> str | None:
    """Why `read` refuses a change."""
    try:
        read(data)
    except ChangeRefused as refused:
        return refused.code
    return None


def read_frame(data: bytes) -> None:
    """A frame that packs to itself."""
    frame = parse_frame(data)
    assert frame.raw == data, "admitted, but spelt otherwise"


def read_sync(data: bytes) -> None:
    """A request and its frames."""
    for raw in exchange.read_sync(data):
        read_frame(raw)


def read_bundle_file(data: bytes) -> None:
    """A file and its frames."""
    for raw in read_bundle(data).frames:
        read_frame(raw)


def read_wire(data: bytes) -> None:
    """A value that packs to itself."""
    value = unpack(data, bytes_max=BUNDLE_BYTES_MAX)
    assert pack(value) == data, "admitted, but spelt otherwise"
    assert is_plain_value(value), "admitted, but outside the profile"


READERS: dict[str, Callable[[bytes], Any]] = {
    "change": read_change,
    "frame": read_frame,
    "sync": read_sync,
    "bundle": read_bundle_file,
    "wire": read_wire,
    "answer": lambda data: exchange.read_answer(data, server_key=SERVER.public, request=REQUEST),
    "payload": exchange.read_payload,
    "enrol": exchange.read_enrol,
    "enrolled": lambda data: exchange.read_enrolled(data, request=corpus.ENROL_REQUEST),
    "call": exchange.read_call,
}
REFUSAL = {"change": ChangeRefused}


def case(seed: int, number: int) -> tuple[str, tuple[int, int] | None, bytes]:
    """(kind, where a change came from, bytes) of one mutant."""
    source = random.Random(f"{seed}/{number}")
    if source.random() < CHANGES_SHARE:
        register, place, data = mutate_changes.mutate(source)
        return "change", (register, place), data
    kind, data = mutate_messages.mutate(source)
    return kind, None, data


def judge(kind: str, data: bytes) -> tuple[str | None, str | None, float]:
    """(code of the refusal or None when admitted, what is wrong or None, seconds of CPU)."""
    code = wrong = None
    parse.cache_clear()  # what was read a moment ago would cost nothing
    started = time.process_time()
    try:
        READERS[kind](data)
    except REFUSAL.get(kind, FrameRefused) as refusal:
        code = refusal.code
    except BaseException as problem:
        wrong = f"{type(problem).__name__}: {problem}"[:300]
    return code, wrong, time.process_time() - started


def run(seed: int, count: int) -> dict[str, Any]:
    """`count` mutants of `seed`."""
    verdicts: Counter[str] = Counter()
    findings: list[dict[str, Any]] = []
    admitted: list[tuple[int, int, str]] = []
    slowest_s = 0.0
    for number in range(count):
        kind, origin, data = case(seed, number)
        code, wrong, cpu_s = judge(kind, data)
        if wrong is None and cpu_s > CPU_S_MAX:
            cpu_s = min(cpu_s, judge(kind, data)[2], judge(kind, data)[2])  # not the collector's or a neighbour's time
            wrong = f"{cpu_s * 1000:.0f} ms of CPU" if cpu_s > CPU_S_MAX else None
        if wrong is not None:
            findings.append({"case": number, "kind": kind, "wrong": wrong, "bytes": data[:2_000].hex()})
            continue
        slowest_s = max(slowest_s, cpu_s)
        verdicts[f"{kind} {code or 'admitted'}"] += 1
        if origin is not None and code is None:
            admitted.append((*origin, parse(data).chunk.hex()))
    return {
        "seed": seed,
        "count": count,
        "verdicts": dict(sorted(verdicts.items())),
        "findings": findings,
        "slowest_ms": round(slowest_s * 1000, 2),
        "admitted": admitted,
    }


def limit_memory() -> None:
    """From here on this process may map 64 MB more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    bytes_max = pages * resource.getpagesize() + MEMORY_BYTES_MAX
    resource.setrlimit(resource.RLIMIT_AS, (bytes_max, bytes_max))


def main() -> None:
    """Run a campaign, or one case of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, default=1_000)
    parser.add_argument("--case", type=int, help="one case only, shown in full")
    parser.add_argument("--weaken", choices=sorted(weaken.WEAKNESSES), help="break one rule, to see that it is noticed")
    given = parser.parse_args()
    if given.case is not None:
        kind, origin, data = case(given.seed, given.case)
        code, wrong, cpu_s = judge(kind, data)
        found = {"kind": kind, "origin": origin, "bytes": data.hex(), "code": code, "wrong": wrong, "cpu_s": cpu_s}
        sys.stdout.write(json.dumps(found, indent=1) + "\n")
        return
    run(given.seed, 200)
    mutate_changes.warm_up()
    limit_memory()
    with weaken.weakened(given.weaken):
        sys.stdout.write(json.dumps(run(given.seed, given.count)) + "\n")


if __name__ == "__main__":
    main()

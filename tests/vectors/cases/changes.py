"""Changes that both twins must build byte by byte and both must read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clientcore.change import Change, Op, OpId, deflate, encode
from tests.support.fixed import actor

TIME_S = 1_795_000_000
A, B, C = sorted((actor("a"), actor("b"), actor("c")))


def put(key: str, value: str, *preds: OpId) -> Op:
    return Op(key=key, value=value, preds=preds)


def delete(key: str, *preds: OpId) -> Op:
    return Op(key=key, value=None, preds=preds)


def build(
    ops: Sequence[Op],
    *,
    author: bytes = A,
    seq: int = 1,
    start_op: int = 1,
    time_s: int = TIME_S,
    deps: Sequence[bytes] = (),
) -> Change:
    return encode(actor=author, seq=seq, start_op=start_op, time_s=time_s, deps=deps, ops=ops)


def taken_register(size: int, first_ms: int = 28_800_000) -> list[Op]:
    """A whole class, present, tapped about every 800 ms."""
    return [put(f"s{10_000 + i}", f"P{first_ms + 811 * i}") for i in range(size)]


def _marks() -> list[tuple[str, Change]]:
    return [
        ("one mark", build([put("s1", "P28800000")])),
        ("forty marks", build(taken_register(40))),
        ("every code", build([put(f"s{i}", f"{code}28800000") for i, code in enumerate("PLXAEUDS")])),
        ("reasons", build([put("s1", "E28815000:sick"), put("s2", "L29100000:12"), put("s3", "U1:no_show_2")])),
        ("all present was pressed", build([put("~bulk", "B28800123"), *taken_register(3)])),
        ("session held", build([put("~session", "H28800000")])),
        ("session did not happen", build([put("~session", "N28800000:teacher_away")])),
        ("negative milliseconds", build([put("s1", "P-1"), put("s2", "A-9999999999999:late_night")])),
        ("zero milliseconds", build([put("s1", "P0"), put("~bulk", "B0")])),
        ("longest key and value", build([put("z" * 36, "E-9999999999999:" + "r" * 24)])),
        ("shortest key", build([put("0", "P1")])),
        ("all key characters", build([put("A.b_c-9", "P1"), put("Z" + "._-" * 11 + "zz", "P2")])),
        ("same value twice makes a run", build([put("a", "P5"), put("b", "P5"), put("c", "L55"), put("d", "P6")])),
        ("same key twice", build([put("a", "P5"), put("a", "A6", (1, A)), put("b", "P7")])),
    ]


def _corrections() -> list[tuple[str, Change]]:
    one = build([put("s1", "P28800000")])
    absent = build([put("s1", "A28900000", (1, A))], seq=2, start_op=2, deps=[one.hash])
    left = build([put("s1", "L28900000:12", (1, A))], author=B, start_op=2, deps=[one.hash])
    loser = sorted(((2, A), (2, B)))[0]
    return [
        ("correction", absent),
        ("correction by another author", left),
        (
            "disagreement settled by a put",
            build([put("s1", "P29000000", (2, A), (2, B))], author=C, start_op=3, deps=[absent.hash, left.hash]),
        ),
        ("loser deleted", build([delete("s1", loser)], author=C, start_op=3, deps=[absent.hash, left.hash])),
        (
            "put, delete, put",
            build(
                [put("x", "P1", (2, A)), delete("s1", loser), put("y", "P2", (2, B))],
                author=C,
                start_op=4,
                deps=[absent.hash],
            ),
        ),
    ]


def _limits() -> list[tuple[str, Change]]:
    hashes = [bytes([i]) * 32 for i in range(1, 33)]
    crowd = sorted(actor(f"crowd {i}") for i in range(33))
    return [
        ("thirty-two deps", build([put("a", "P1")], start_op=9, deps=hashes)),
        ("deps given in any order", build([put("a", "P1")], start_op=9, deps=hashes[7:2:-1])),
        (
            "thirty-two other authors, sixteen predecessors each",
            build(
                [
                    put("a", "P1", *((5, name) for name in crowd[1:17])),
                    put("b", "P2", *((6, name) for name in crowd[17:33])),
                ],
                author=crowd[0],
                start_op=70,
                deps=hashes[:2],
            ),
        ),
        (
            "author in the middle of the others",
            build(
                [put("a", "P1", (3, A), (3, B), (3, C))],
                author=B,
                seq=2,
                start_op=4,
                deps=hashes[:1],
            ),
        ),
        (
            "predecessor counters go down",
            build(
                [put("a", "P1", (900, A)), put("b", "P2", (3, A)), put("c", "P3", (4, A))],
                seq=3,
                start_op=1_000,
                deps=hashes[:1],
            ),
        ),
        ("two hundred and fifty-six marks", build(taken_register(256))),
        (
            "greatest counters",
            build([put("a", "P1")], seq=1 << 31, start_op=1 << 31, time_s=(1 << 45) - 1, deps=hashes[:1]),
        ),
        ("time zero", build([put("a", "P1")], time_s=0)),
        ("times around the signed LEB steps 63", build([put("a", "P1")], time_s=63)),
        ("times around the signed LEB steps 64", build([put("a", "P1")], time_s=64)),
        ("lengths around the LEB step", build([put(f"s{i}", f"P{i}") for i in range(7)])),
    ]


def cases() -> list[tuple[str, Change]]:
    return [*_marks(), *_corrections(), *_limits()]


def fields(change: Change) -> dict[str, Any]:
    return {
        "actor": change.actor.hex(),
        "seq": change.seq,
        "start_op": change.start_op,
        "time_s": change.time_s,
        "deps": [dep.hex() for dep in change.deps],
        "ops": [[op.key, op.value, [[counter, name.hex()] for counter, name in op.preds]] for op in change.ops],
    }


def produce() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "fields": fields(change),
            "chunk": change.chunk.hex(),
            "hash": change.hash.hex(),
            "deflated": deflate(change.chunk).hex(),
        }
        for name, change in cases()
    ]

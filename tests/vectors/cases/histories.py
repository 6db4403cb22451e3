"""Sets of changes and the one history each must give, in any order, with duplicates."""

from __future__ import annotations

from typing import Any

from clientcore.change import Change
from clientcore.history import History, merge
from tests.vectors.cases.changes import A, B, C, build, delete, put, taken_register

NOWHERE = bytes([0xEE]) * 32


FIRST = build([put("s1", "P1"), put("s2", "P2")])
BY_A = build([put("s1", "A3", (1, A))], seq=2, start_op=3, deps=[FIRST.hash])
BY_B = build([put("s1", "L4:5", (1, A)), put("s3", "P5")], author=B, start_op=3, deps=[FIRST.hash])
BOTH = [BY_A.hash, BY_B.hash]
KEPT = build([delete("s1", (3, A))], author=C, start_op=5, deps=BOTH)
ALONE_B = build([put("s1", "E7:sick")], author=B)
OTHER_B = build([put("s1", "P8")], author=B)


def _merged() -> list[tuple[str, list[Change]]]:
    settled = build([put("s1", "P9", (3, A), (3, B))], author=C, start_op=5, deps=BOTH)
    erased = build([delete("s1", (3, A), (3, B))], author=C, start_op=5, deps=BOTH)
    chain = [FIRST]
    for i in range(5):
        chain.append(
            build(
                [put("s1", f"P{100 + i}", (chain[-1].max_op if i else 1, A))],
                seq=i + 2,
                start_op=3 + i,
                deps=[chain[-1].hash],
            )
        )
    blind = build([put("s2", "S6")], author=B, start_op=3, deps=[FIRST.hash])
    twice = build([put("s2", "S6", (2, A)), put("s2", "P7", (3, B))], author=B, start_op=3, deps=[FIRST.hash])
    own_loser = build([put("s2", "S6"), delete("s2", (2, A))], author=B, start_op=3, deps=[FIRST.hash])
    own_erased = build([put("s4", "S6"), delete("s4", (3, B))], author=B, start_op=3, deps=[FIRST.hash])
    return [
        ("nothing", []),
        ("one change", [FIRST]),
        ("a chain", chain),
        ("a chain with a hole", [*chain[:2], *chain[3:]]),
        ("only a change that depends on something unknown", [BY_A]),
        ("two authors disagree", [FIRST, BY_A, BY_B]),
        ("two authors disagree from the start", [build([put("s1", "P1")]), ALONE_B]),
        ("disagreement settled by a third", [FIRST, BY_A, BY_B, settled]),
        ("loser deleted", [FIRST, BY_A, BY_B, KEPT]),
        (
            "settled and deleted at once",
            [FIRST, BY_A, BY_B, settled, build([delete("s1", (3, A))], author=B, seq=2, start_op=5, deps=BOTH)],
        ),
        ("a put without predecessors stands beside what it saw", [FIRST, blind]),
        ("two puts of one key in one change", [FIRST, twice]),
        ("a delete after the author's own put", [FIRST, own_loser]),
        ("a delete that erases the mark", [FIRST, BY_A, BY_B, erased]),
        ("a delete that erases the author's own put", [FIRST, own_erased]),
    ]


def _set_aside() -> list[tuple[str, list[Change]]]:
    return [
        ("equivocation", [FIRST, ALONE_B, OTHER_B]),
        (
            "equivocation that others depend on",
            [
                FIRST,
                ALONE_B,
                OTHER_B,
                *(build([put("s9", "P1")], author=C, seq=1, start_op=2, deps=[one.hash]) for one in (ALONE_B, OTHER_B)),
            ],
        ),
        ("sequence number skipped", [FIRST, build([put("s1", "A3", (1, A))], seq=3, start_op=3, deps=[FIRST.hash])]),
        ("first change is not number one", [build([put("s1", "A3")], seq=2)]),
        (
            "own previous change is not in the past",
            [FIRST, ALONE_B, build([put("s1", "A3")], seq=2, start_op=2, deps=[ALONE_B.hash])],
        ),
        ("operation counter too small", [FIRST, build([put("s9", "A3")], author=B, start_op=2, deps=[FIRST.hash])]),
        ("operation counter too great", [FIRST, build([put("s9", "A3")], author=B, start_op=4, deps=[FIRST.hash])]),
        ("first operation counter is not one", [build([put("s9", "A3")], start_op=2)]),
        ("predecessor unknown", [FIRST, build([put("s1", "A3", (2, B))], author=B, start_op=3, deps=[FIRST.hash])]),
        (
            "predecessor of another key",
            [FIRST, build([put("s1", "A3", (2, A))], author=B, start_op=3, deps=[FIRST.hash])],
        ),
        (
            "predecessor outside the past",
            [FIRST, BY_A, BY_B, build([put("s1", "E4:sick", (3, A))], author=C, start_op=5, deps=[BY_B.hash])],
        ),
        (
            "predecessor is a delete",
            [FIRST, BY_A, BY_B, KEPT, build([put("s1", "A3", (5, C))], author=A, seq=3, start_op=6, deps=[KEPT.hash])],
        ),
        (
            "what depends on an inconsistent change waits",
            [
                FIRST,
                build([put("s9", "A3")], author=B, start_op=4, deps=[FIRST.hash]),
                build(
                    [put("s8", "P1")],
                    author=C,
                    start_op=5,
                    deps=[build([put("s9", "A3")], author=B, start_op=4, deps=[FIRST.hash]).hash],
                ),
            ],
        ),
    ]


def cases() -> list[tuple[str, list[Change]]]:
    return [
        *_merged(),
        *_set_aside(),
        ("unknown dependency", [FIRST, build([put("s9", "A3")], author=B, start_op=3, deps=[NOWHERE])]),
        ("three heads", [build(taken_register(3), author=name) for name in (A, B, C)]),
        (
            "bulk and session",
            [
                build([put("~bulk", "B1"), put("~session", "H2"), *taken_register(2)]),
                build([put("~session", "N3:strike")], author=B),
            ],
        ),
    ]


def shown(history: History) -> dict[str, Any]:
    return {
        "heads": [head.hex() for head in history.heads],
        "visible": {
            key: [[put.value, put.id[0], put.id[1].hex(), put.change_hash.hex()] for put in puts]
            for key, puts in sorted(history.visible().items())
        },
        "pending": sorted(digest.hex() for digest in history.pending),
        "inconsistent": {digest.hex(): reason for digest, reason in sorted(history.inconsistent.items())},
        "equivocations": sorted(digest.hex() for digest in history.equivocations),
        "max_op": history.max_op,
    }


def produce() -> list[dict[str, Any]]:
    return [
        {"name": name, "chunks": [change.chunk.hex() for change in changes], **shown(merge(changes))}
        for name, changes in cases()
    ]

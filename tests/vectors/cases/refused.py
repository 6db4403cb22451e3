"""Chunks that both twins must refuse, with the code they must give. Nearly every one breaks exactly one rule."""

from __future__ import annotations

from typing import Any

from clientcore.change import ACTION, INSERT, KEY, MAGIC, PRED_ACTOR, PRED_COUNT, PRED_COUNTER, VALUE, VALUE_META, Op
from clientcore.change import encode as encode_change
from clientcore.leb128 import sleb, uleb
from tests.support.loose import body_of, chunk_of, deflated_of, lone, overlong, raw_deflate, run, text
from tests.vectors.cases.changes import TIME_S, A, B, C

Case = tuple[str, str, bytes]

ONE = b"\x01"
META_2 = uleb(2 << 4 | 6)

# The design's reproducers: each made a native core panic, abort, hang or build a register that never loads again.
REPRODUCERS: list[tuple[str, str, str]] = [
    ("native core: sync message, remainder by zero", "chunk-size", "42000001000301000000"),
    ("native core: sync message, 17 GB", "chunk-magic", "420000010009010affffffff0f000000"),
    (
        "native core: 100,000 puts by run-length",
        "profile",
        ("856f4a830de31530012a00040505050501010000000515053403420456047004a08d060161a08d06a08d0601a08d0600a08d0600"),
    ),
    (
        "native core: predecessor group of 10^12",
        "profile",
        (
            "856f4a839060e44a0137000405050505010100000007150334014202560270077107730701016101010101000180a094"
            "a58d1d80a094a58d1d0080a094a58d1d00"
        ),
    ),
    (
        "native core: unloadable, predecessors",
        "profile",
        ("856f4a83717e1434012b0004050505050101000000071503340142025602700371037303010161010101010001e807e80700e80700"),
    ),
    (
        "native core: unloadable, start_op",
        "profile",
        "856f4a83efdd23bb012400040505050501ffffffff0f000000051503340142025602700201016101010101000100",
    ),
    (
        "native core: unloadable, seq",
        "profile",
        "856f4a838b8649ec0124000405050505ffffffff0f01000000051503340142025602700201016101010101000100",
    ),
    (
        "native core: unknown scalar type",
        "profile",
        "856f4a839b7c660301230004052505050101000000061503340142025602570170027f0161017f017f1e507f00",
    ),
]


def columns(**changed: bytes | None) -> list[tuple[int, bytes]]:
    """One put of `P1` at `s1`, with columns replaced (bytes) or left out (None)."""
    parts: dict[str, tuple[int, bytes | None]] = {
        "key": (KEY, lone(text(b"s1"))),
        "insert": (INSERT, ONE),
        "action": (ACTION, lone(ONE)),
        "meta": (VALUE_META, lone(META_2)),
        "value": (VALUE, b"P1"),
        "count": (PRED_COUNT, lone(b"\0")),
        "pred_actor": (PRED_ACTOR, None),
        "pred_counter": (PRED_COUNTER, None),
    }
    for name, data in changed.items():
        parts[name] = (parts[name][0], data)
    return [(spec, data) for spec, data in parts.values() if data is not None]


def _good() -> bytes:
    return encode_change(
        actor=A,
        seq=1,
        start_op=1,
        time_s=TIME_S,
        deps=[],
        ops=[Op(key=f"s{i}", value=f"P{28_800_000 + 811 * i}") for i in range(12)],
    ).chunk


def _envelope() -> list[Case]:
    good = _good()
    body = good[11:]
    flipped = bytes((good[4] ^ 1,))
    return [
        ("empty", "chunk-size", b""),
        ("eleven bytes", "chunk-size", good[:11]),
        ("one byte over the size", "chunk-size", chunk_of(bytes(16_374))),
        ("wrong magic", "chunk-magic", b"\x84" + good[1:]),
        ("wrong checksum", "chunk-checksum", good[:4] + flipped + good[5:]),
        ("body changed under its checksum", "chunk-checksum", good[:-1] + b"\x01"),
        ("checksum over the deflated bytes", "chunk-checksum", chunk_of(raw_deflate(body), kind=2)),
        ("document chunk", "chunk-type", chunk_of(body, kind=0)),
        ("type 3", "chunk-type", chunk_of(body, kind=3)),
        ("type 129", "chunk-type", chunk_of(body, kind=0x81)),
        ("cut short", "chunk-type", good[:-1]),
        ("a byte behind", "chunk-type", good + b"\0"),
        ("two chunks", "chunk-type", good + good),
        ("overlong length", "chunk-type", chunk_of(body, length=overlong(len(body)))),
        ("length of 2^40", "chunk-type", chunk_of(body, length=uleb(1 << 40))),
        ("length that never ends", "chunk-type", MAGIC + good[4:8] + b"\x01" + b"\xff" * 20),
        ("not DEFLATE", "chunk-type", chunk_of(b"\xff" * 40, kind=2)),
        ("DEFLATE cut short", "chunk-type", deflated_of(body, packed=raw_deflate(body)[:-3])),
        ("DEFLATE with a tail", "chunk-type", deflated_of(body, tail=b"\0")),
        ("zlib instead of raw DEFLATE", "chunk-type", deflated_of(body, packed=b"\x78\x9c" + raw_deflate(body))),
        ("bomb of 10 MB", "chunk-size", deflated_of(bytes(10_000_000))),
        ("inflates to one byte more than fits", "chunk-size", deflated_of(bytes(16_374))),
        ("body of zeros that just fits", "profile", chunk_of(bytes(16_373))),
    ]


def _head() -> list[Case]:
    cols = columns()
    deps = [bytes([i]) * 32 for i in range(1, 34)]
    many = [bytes([i]) * 16 for i in range(0x20, 0x41)]
    head = body_of(cols)
    actor_at = 1
    short = head[:actor_at] + uleb(15) + head[actor_at + 2 :]
    named = columns(count=lone(ONE), pred_actor=lone(ONE), pred_counter=lone(ONE))
    bodies: list[tuple[str, bytes]] = [
        ("33 deps", body_of(cols, deps=deps)),
        ("deps out of order", body_of(cols, deps=[deps[1], deps[0]])),
        ("a dep twice", body_of(cols, deps=[deps[1], deps[1]])),
        ("deps cut short", b"\x05" + bytes(40)),
        ("overlong number of deps", b"\x80\x00" + head[1:]),
        ("actor of 15 bytes", short),
        ("actor of 15 bytes, whole", body_of(cols, actor=A[:15])),
        ("actor of 17 bytes", body_of(cols, actor=A + b"\0")),
        ("actor of no bytes", body_of(cols, actor=b"")),
        ("seq zero", body_of(cols, seq=0)),
        ("seq too great", body_of(cols, seq=(1 << 31) + 1)),
        ("start_op zero", body_of(cols, start_op=0)),
        ("start_op too great", body_of(cols, start_op=(1 << 31) + 1)),
        ("start_op of 2^64 - 1", body_of(cols, start_op=(1 << 64) - 1)),
        ("time below zero", body_of(cols, time_s=-1)),
        ("time too great", body_of(cols, time_s=1 << 45)),
        ("a message", body_of(cols, message=b"hello")),
        ("overlong seq", head[:18] + b"\x81\x00" + head[19:]),
        (
            "overlong time",
            body_of(cols, time_s=0).replace(b"\x01\x01\x00\x00\x00\x06", b"\x01\x01\x80\x00\x00\x00\x06"),
        ),
        ("an actor nobody names", body_of(cols, others=[B])),
        ("own actor among the others", body_of(named, start_op=2, others=[b"\x11" * 16])),
        (
            "others out of order",
            body_of(
                columns(count=lone(b"\x02"), pred_actor=lone(b"\x02", ONE), pred_counter=lone(ONE, b"\0")),
                start_op=2,
                others=[C, B],
                actor=A,
            ),
        ),
        ("other actor of 15 bytes", body_of(named, start_op=2, others=[B[:15]])),
        ("33 other actors", body_of(named, start_op=2, others=many)),
        ("no columns", body_of([])),
        ("nothing after the head", head[: 1 + 17 + 2 + 5]),
        ("bytes behind the columns", body_of(cols, extra=b"\0")),
        ("overlong number of columns", body_of(cols).replace(b"\x00\x00\x06\x15", b"\x00\x00\x86\x00\x15")),
    ]
    return [(name, "profile", chunk_of(body)) for name, body in bodies]


def _columns() -> list[Case]:
    cols = columns()
    swapped = [cols[1], cols[0], *cols[2:]]
    bodies: list[Case] = [
        ("column order", "profile", body_of(swapped)),
        ("a column twice", "profile", body_of([cols[0], *cols])),
        ("an empty column", "profile", body_of(columns(pred_actor=b""))),
        ("object column", "profile", body_of([(0x01, lone(ONE)), *cols])),
        ("deflated column", "profile", body_of([(0x1D, raw_deflate(cols[0][1])), *cols[1:]])),
        ("unknown column", "profile", body_of([*cols, (0x83, lone(ONE))])),
        ("column longer than the body", "profile", body_of([*cols[:-1], (PRED_COUNT, bytes(5))])[:-3]),
        ("no key", "profile", body_of(columns(key=None))),
        ("no action", "profile", body_of(columns(action=None))),
        ("no insert flags", "profile", body_of(columns(insert=None))),
        ("no value meta", "profile", body_of(columns(meta=None))),
        ("no value", "bad-mark", body_of(columns(value=None))),
        ("no predecessor counts", "profile", body_of(columns(count=None))),
        ("an insert", "profile", body_of(columns(insert=b"\0\x01"))),
        ("overlong insert flags", "profile", body_of(columns(insert=b"\x81\0"))),
    ]
    return [(name, code, chunk_of(body)) for name, code, body in bodies]


def _operations() -> list[Case]:
    bodies: list[Case] = [
        ("make map", "profile", body_of(columns(action=lone(b"\0"), meta=lone(b"\0"), value=None))),
        ("make list", "profile", body_of(columns(action=lone(b"\x02"), meta=lone(b"\0"), value=None))),
        ("make text", "profile", body_of(columns(action=lone(b"\x04"), meta=lone(b"\0"), value=None))),
        ("increment", "profile", body_of(columns(action=lone(b"\x05")))),
        ("null value", "profile", body_of(columns(meta=lone(b"\0"), value=None))),
        ("bytes value", "profile", body_of(columns(meta=lone(uleb(2 << 4 | 7))))),
        ("integer value", "profile", body_of(columns(meta=lone(uleb(1 << 4 | 4)), value=b"\x05"))),
        ("counter value", "profile", body_of(columns(meta=lone(uleb(1 << 4 | 8)), value=b"\x05"))),
        ("delete of nothing", "profile", body_of(columns(action=lone(b"\x03"), meta=lone(b"\0"), value=None))),
        (
            "delete with a value",
            "profile",
            body_of(
                columns(action=lone(b"\x03"), count=lone(ONE), pred_actor=lone(b"\0"), pred_counter=lone(ONE)),
                start_op=2,
            ),
        ),
        ("value bytes left over", "profile", body_of(columns(value=b"P12"))),
        ("value cut short", "bad-mark", body_of(columns(value=b"P"))),
    ]
    return [(name, code, chunk_of(body)) for name, code, body in bodies]


def _spellings() -> list[Case]:
    bodies: list[Case] = [
        ("two keys for one operation", "too-many-ops", body_of(columns(key=lone(text(b"s1"), text(b"s2"))))),
        ("two metas for one operation", "too-many-ops", body_of(columns(meta=lone(META_2, b"\0")))),
        ("two counts for one operation", "too-many-ops", body_of(columns(count=run(2, b"\0")))),
        ("null key", "profile", body_of(columns(key=b"\0\x01"))),
        ("null run behind", "profile", body_of(columns(action=lone(ONE) + b"\0"))),
        ("run cut short", "profile", body_of(columns(action=b"\x7f"))),
        ("key cut short", "bad-mark", body_of(columns(key=lone(b"\x02s")))),
        ("overlong key length", "bad-mark", body_of(columns(key=lone(b"\x82\0s1")))),
        ("overlong run count", "profile", body_of(columns(action=b"\xff\x7f\x01"))),
        ("overlong action", "profile", body_of(columns(action=lone(b"\x81\0")))),
    ]
    return [(name, code, chunk_of(body)) for name, code, body in bodies]


def _runs() -> list[Case]:
    bodies: list[Case] = [
        ("run of one", "not-canonical", body_of(columns(action=run(1, ONE)))),
        (
            "two literals",
            "not-canonical",
            body_of(
                [
                    (KEY, lone(text(b"a")) + lone(text(b"b"))),
                    (INSERT, b"\x02"),
                    (ACTION, run(2, ONE)),
                    (VALUE_META, run(2, META_2)),
                    (VALUE, b"P1P2"),
                    (PRED_COUNT, run(2, b"\0")),
                ]
            ),
        ),
        (
            "literal of equal values",
            "not-canonical",
            body_of(
                [
                    (KEY, lone(text(b"a"), text(b"b"))),
                    (INSERT, b"\x02"),
                    (ACTION, lone(ONE, ONE)),
                    (VALUE_META, run(2, META_2)),
                    (VALUE, b"P1P2"),
                    (PRED_COUNT, run(2, b"\0")),
                ]
            ),
        ),
        (
            "two runs of one value",
            "not-canonical",
            body_of(
                [
                    (KEY, lone(*(text(b"s%d" % i) for i in range(4)))),
                    (INSERT, b"\x04"),
                    (ACTION, run(2, ONE) * 2),
                    (VALUE_META, run(4, META_2)),
                    (VALUE, b"P1P2P3P4"),
                    (PRED_COUNT, run(4, b"\0")),
                ]
            ),
        ),
        (
            "a literal that ends in the run's value",
            "not-canonical",
            body_of(
                [
                    (KEY, lone(*(text(b"s%d" % i) for i in range(3)))),
                    (INSERT, b"\x03"),
                    (ACTION, lone(ONE) + run(2, ONE)),
                    (VALUE_META, run(3, META_2)),
                    (VALUE, b"P1P2P3"),
                    (PRED_COUNT, run(3, b"\0")),
                ]
            ),
        ),
    ]
    return [(name, code, chunk_of(body)) for name, code, body in bodies]


def _bombs() -> list[Case]:
    many = 100_000
    wide = columns(
        key=run(many, text(b"s1")),
        insert=uleb(many),
        action=run(many, ONE),
        meta=run(many, META_2),
        value=b"P1",
        count=run(many, b"\0"),
    )
    ops = 257
    one_over = columns(
        key=lone(*(text(b"s%d" % i) for i in range(ops))),
        insert=uleb(ops),
        action=run(ops, ONE),
        meta=run(ops, META_2),
        value=b"P1" * ops,
        count=run(ops, b"\0"),
    )
    group = columns(count=lone(uleb(10**12)), pred_actor=run(10**12, b"\0"), pred_counter=run(10**12, b"\0"))
    crowd = [bytes([i]) * 16 for i in range(0x20, 0x31)]
    seventeen = columns(
        count=lone(uleb(17)), pred_actor=lone(*(uleb(i) for i in range(1, 18))), pred_counter=lone(ONE) + run(16, b"\0")
    )
    bodies = [
        ("100,000 puts by run-length", "too-many-ops", body_of(wide)),
        ("100,000 puts by a literal", "too-many-ops", body_of(columns(action=sleb(-many) + ONE * 300))),
        ("a run of 2^50", "too-many-ops", body_of(columns(action=run(1 << 50, ONE)))),
        ("a run of 2^70", "profile", body_of(columns(action=run(1 << 70, ONE)))),
        ("257 puts", "too-many-ops", body_of(one_over)),
        ("predecessor group of 10^12", "profile", body_of(group, start_op=2)),
        ("17 predecessors", "profile", body_of(seventeen, start_op=2, others=crowd)),
        (
            "more predecessors than counted",
            "too-many-ops",
            body_of(columns(count=lone(ONE), pred_actor=run(2, b"\0"), pred_counter=run(2, ONE)), start_op=9),
        ),
        (
            "fewer predecessors than counted",
            "profile",
            body_of(columns(count=lone(b"\x02"), pred_actor=lone(b"\0"), pred_counter=lone(ONE)), start_op=9),
        ),
        (
            "predecessors nobody counted",
            "too-many-ops",
            body_of(columns(pred_actor=lone(b"\0"), pred_counter=lone(ONE)), start_op=9),
        ),
    ]
    return [(name, code, chunk_of(body)) for name, code, body in bodies]


def _predecessors() -> list[Case]:
    def named(actors: bytes, counters: bytes, count: int = 1) -> list[tuple[int, bytes]]:
        return columns(count=lone(uleb(count)), pred_actor=actors, pred_counter=counters)

    bodies = [
        ("predecessor's counter is the operation's own", body_of(named(lone(b"\0"), lone(b"\x05")), start_op=5)),
        ("predecessor's counter in the future", body_of(named(lone(b"\0"), lone(b"\x06")), start_op=5)),
        ("predecessor's counter zero", body_of(named(lone(b"\0"), lone(b"\0")), start_op=5)),
        ("predecessor's counter below zero", body_of(named(lone(b"\0"), lone(b"\x7f")), start_op=5)),
        ("predecessor by an actor that is not listed", body_of(named(lone(b"\x01"), lone(b"\x01")), start_op=5)),
        ("predecessors out of order", body_of(named(run(2, b"\0"), lone(b"\x03", b"\x7e"), 2), start_op=5)),
        ("a predecessor twice", body_of(named(run(2, b"\0"), lone(b"\x03", b"\0"), 2), start_op=5)),
        ("predecessor counters that overflow", body_of(named(lone(b"\0"), lone(sleb(1 << 62))), start_op=5)),
    ]
    return [(name, "profile", chunk_of(body)) for name, body in bodies]


def _marks() -> list[Case]:
    def value(data: bytes, key: bytes = b"s1") -> bytes:
        return chunk_of(body_of(columns(key=lone(text(key)), meta=lone(uleb(len(data) << 4 | 6)), value=data or None)))

    bad_values = [
        b"",
        b"P",
        b"P-0",
        b"P01",
        b"P-01",
        b"P+1",
        b"P1.0",
        b"P 1",
        b"P1 ",
        b"P1\n",
        b"p1",
        b"T1",
        b"Q1",
        b"B1",
        b"H1",
        b"1",
        b"P1:",
        b"P1:Sick",
        b"P1:sick-leave",
        b"P1:" + b"r" * 25,
        b"P99999999999999",
        b"P1:a:b",
        "P١".encode(),
        "حاضر".encode(),
        b"P1\0",
        b"\xff\xfe",
        b"E-9999999999999:" + b"r" * 33,
    ]
    bad_keys = [
        b"",
        b" ",
        b".a",
        b"-a",
        b"_a",
        b"a b",
        b"a/b",
        b"a" * 37,
        "أحمد".encode(),
        b"a\n",
        b"a\0",
        b"\xff",
        b"~",
        b"~other",
        b"~bulk2",
        b"~~bulk",
    ]
    pairs = [
        (b"~bulk", b"P1"),
        (b"~bulk", b"B-0"),
        (b"~bulk", b"B1:x"),
        (b"~bulk", b"H1"),
        (b"~session", b"B1"),
        (b"~session", b"H1:x"),
        (b"~session", b"N1"),
        (b"~session", b"H-0"),
        (b"~session", b"N-0:strike"),
        (b"~session", b"P1"),
        (b"~bulk", b"\xffB1"),
    ]
    return [
        *((f"value {data!r}", "bad-mark", value(data)) for data in bad_values),
        *((f"key {key!r}", "bad-mark", value(b"P1", key)) for key in bad_keys),
        *((f"{data!r} at {key!r}", "bad-mark", value(data, key)) for key, data in pairs),
    ]


def cases() -> list[Case]:
    known = [(name, code, bytes.fromhex(data)) for name, code, data in REPRODUCERS]
    return [
        *known,
        *_envelope(),
        *_head(),
        *_columns(),
        *_operations(),
        *_spellings(),
        *_runs(),
        *_bombs(),
        *_predecessors(),
        *_marks(),
    ]


def produce() -> list[dict[str, Any]]:
    return [{"name": name, "code": code, "chunk": chunk.hex()} for name, code, chunk in cases()]

"""What the settle stage reads and writes, as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from syncserver.store.key import BY_KEY, Key, flat, wanted
from syncserver.store.port import Reader, Row, Transaction, placeholders
from syncserver.store.told import LAST_SEQ

# Words after which other devices may not see a change: it is nobody's answer until a person or a machine frees it.
HIDDEN = frozenset(
    ("out-of-scope", "revoked", "equivocation", "inconsistent", "register-full", "pending", "no-receipt", "poison")
)

_IN_MAX = 512  # names in one IN list


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """What became of one change."""

    log_offset: int
    device: bytes
    state: int
    slug: str | None
    detail: str | None
    dead: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Everything settling one register writes.

    Attributes:
        changed: The outcome differs from the stored one.
        body: The outcome as stored; empty when it did not change.
        source_offset: The change that `body` refers to; None: it stands for itself.
        counts: Its summary, as stored.
        revisions: Numbers of the last events, as stored.
        events: `event_count` events, as stored; None: they follow from the outcome.
        first_events: What the register's first outcome told, to be written down now that it is replaced; None: it is
            not, or was before.
        is_first: The register was never settled before.
        operations: How many operations were merged: the work it took.
    """

    key: Key
    revision: int
    changed: bool
    settled_ms: int
    body: bytes
    source_offset: int | None
    counts: bytes
    is_first: bool
    revisions: bytes
    events: bytes | None
    event_count: int
    first_events: bytes | None
    words: Sequence[Word]
    operations: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Dead:
    """A change that could not be processed."""

    key: Key
    log_offset: int
    code: str
    detail: str


async def write_results(tx: Transaction, results: Sequence[Result], *, now_ms: int) -> None:
    """Outcomes, events and words, for all registers of a round."""
    row = await tx.fetch_one(f"SELECT {LAST_SEQ}, (SELECT max(seq) FROM settlements)")
    assert row is not None
    event_seq, word_seq = row[0], row[1] or 0
    outcomes, told = [], []
    for result in results:
        first = last = None
        if result.event_count:
            first, last = event_seq + 1, event_seq + result.event_count
            event_seq = last
            if result.events is not None:
                told.append((first, last, result.key[0], "/".join(result.key), result.events))
                first = last = None
        if result.changed:
            outcomes.append(
                (
                    *result.key,
                    result.revision,
                    result.settled_ms,
                    result.body,
                    result.revisions,
                    first,
                    last,
                    result.source_offset,
                    result.counts,
                )
            )
    await _write_down_first(tx, results)
    await tx.executemany(
        """INSERT INTO outcomes (school, class_id, date, session, revision, settled_ms, body, revisions, first_seq,
        last_seq, source_offset, counts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
        ON CONFLICT (school, class_id, date, session) DO UPDATE SET revision = excluded.revision,
        settled_ms = excluded.settled_ms, body = excluded.body, revisions = excluded.revisions,
        first_seq = excluded.first_seq, last_seq = excluded.last_seq, source_offset = excluded.source_offset,
        counts = excluded.counts""",
        outcomes,
    )
    await tx.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", told)
    await _write_words(tx, results, word_seq, now_ms)


async def _write_down_first(tx: Transaction, results: Sequence[Result]) -> None:
    """What followed from first outcomes that are replaced now, at the place at which it was told."""
    await tx.executemany(
        """INSERT INTO events (first_seq, last_seq, school, register, body)
        SELECT first_seq, last_seq, school, CAST(? AS TEXT), CAST(? AS BLOB) FROM outcomes
        WHERE school = ? AND class_id = ? AND date = ? AND session = ? AND last_seq IS NOT NULL""",
        [("/".join(one.key), one.first_events, *one.key) for one in results if one.first_events is not None],
    )


async def _write_words(tx: Transaction, results: Sequence[Result], word_seq: int, now_ms: int) -> None:
    rows, dead, strange = [], [], []
    for result in results:
        known = {} if result.is_first else await _known_words(tx, result.key)
        for word in result.words:
            if known.get(word.log_offset) == (word.state, word.slug):
                continue
            word_seq += 1
            shown = word_seq if word.slug not in HIDDEN else None
            school, class_id = result.key[:2]
            rows.append(
                (
                    word.log_offset,
                    word_seq,
                    shown,
                    school,
                    class_id,
                    word.device,
                    word.state,
                    word.slug,
                    result.revision,
                )
            )
            if word.dead:
                dead.append(
                    Dead(key=result.key, log_offset=word.log_offset, code=str(word.slug), detail=word.detail or "")
                )
            if word.slug == "equivocation":
                strange.append((now_ms, word.device, "equivocation", f"change {word.log_offset}"))
    await tx.executemany(
        """INSERT INTO settlements (log_offset, seq, merged_seq, school, class_id, device, state, slug, revision)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (log_offset) DO UPDATE SET seq = excluded.seq,
        merged_seq = coalesce(settlements.merged_seq, excluded.merged_seq), state = excluded.state,
        slug = excluded.slug, revision = excluded.revision""",
        rows,
    )
    await _raise_heads(tx, {row[3]: row[1] for row in rows})
    await write_dead(tx, dead, now_ms=now_ms)
    await tx.executemany("INSERT INTO security_events (at_ms, device, kind, detail) VALUES (?, ?, ?, ?)", strange)


async def _raise_heads(tx: Transaction, heads: Mapping[str, int]) -> None:
    """Note the greatest sequence of each school."""
    await tx.executemany(
        """INSERT INTO settled_heads (school, seq) VALUES (?, ?)
        ON CONFLICT (school) DO UPDATE SET seq = excluded.seq""",
        sorted(heads.items()),
    )


async def write_told(tx: Transaction, told: Sequence[tuple[Key, Word]]) -> None:
    """Words on changes that were kept out of the settling of their register; a word that stands already stays."""
    known: dict[int, Row] = {}
    for at in range(0, len(told), _IN_MAX):
        part = [word.log_offset for _, word in told[at : at + _IN_MAX]]
        where = placeholders(len(part))
        found = await tx.fetch_all(
            f"SELECT log_offset, state, slug FROM settlements WHERE log_offset IN ({where})", part
        )
        known |= {row[0]: row[1:] for row in found}
    new = [(key, word) for key, word in told if known.get(word.log_offset) != (word.state, word.slug)]
    row = await tx.fetch_one("SELECT max(seq) FROM settlements")
    seq = (row[0] if row is not None else None) or 0
    await _raise_heads(tx, {key[0]: seq + n for n, (key, _) in enumerate(new, 1)})
    await tx.executemany(
        """INSERT INTO settlements (log_offset, seq, merged_seq, school, class_id, device, state, slug, revision)
        VALUES (?, ?, NULL, ?, ?, ?, ?, ?, coalesce((SELECT revision FROM outcomes
        WHERE school = ? AND class_id = ? AND date = ? AND session = ?), 0))
        ON CONFLICT (log_offset) DO UPDATE SET seq = excluded.seq, state = excluded.state, slug = excluded.slug,
        revision = excluded.revision""",
        [
            (word.log_offset, seq + n, key[0], key[1], word.device, word.state, word.slug, *key)
            for n, (key, word) in enumerate(new, 1)
        ],
    )


async def read_devices(reader: Reader, offsets: Sequence[int]) -> list[tuple[int, bytes]]:
    """Offset and device of some changes."""
    found = await reader.fetch_all(
        f"""SELECT c.log_offset, f.device FROM changes c JOIN frames f ON f.id = c.frame_id
        WHERE c.log_offset IN ({placeholders(len(offsets))}) ORDER BY c.log_offset""",
        offsets,
    )
    return [(row[0], row[1]) for row in found]


async def _known_words(tx: Transaction, key: Key) -> dict[int, tuple[int, str | None]]:
    """The last word on each change of a register."""
    found = await tx.fetch_all(
        """SELECT s.log_offset, s.state, s.slug FROM settlements s JOIN changes c ON c.log_offset = s.log_offset
        WHERE c.school = ? AND c.class_id = ? AND c.date = ? AND c.session = ?""",
        key,
    )
    return {row[0]: (row[1], row[2]) for row in found}


async def write_dead(tx: Transaction, dead: Sequence[Dead], *, now_ms: int) -> None:
    """Dead letters; one that was requeued and failed again is dead again."""
    await tx.executemany(
        """INSERT INTO dead_letters (log_offset, school, class_id, date, session, code, detail, at_ms, requeued)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (log_offset) DO UPDATE SET code = excluded.code,
        detail = excluded.detail, at_ms = excluded.at_ms, requeued = 0""",
        [(one.log_offset, *one.key, one.code, one.detail, now_ms) for one in dead],
    )


async def read_unsettled(reader: Reader, key: Key) -> dict[int, bytes]:
    """Offset and device of a register's changes without a word yet, and of its dead letters that were put back."""
    found = await reader.fetch_all(
        """SELECT c.log_offset, f.device FROM changes c JOIN frames f ON f.id = c.frame_id
        LEFT JOIN settlements s ON s.log_offset = c.log_offset LEFT JOIN dead_letters x ON x.log_offset = c.log_offset
        WHERE c.school = ? AND c.class_id = ? AND c.date = ? AND c.session = ?
        AND (s.seq IS NULL AND x.id IS NULL OR x.requeued = 1) ORDER BY c.log_offset""",
        key,
    )
    return {row[0]: row[1] for row in found}


async def read_sizes(reader: Reader, keys: Sequence[Key]) -> dict[Key, int]:
    """Number of changes of some registers."""
    found = await reader.fetch_all(
        f"""{wanted(keys)} SELECT o.school, o.class_id, o.date, o.session, count(*)
        FROM wanted w JOIN changes o ON {BY_KEY} GROUP BY 1, 2, 3, 4""",
        flat(keys),
    )
    return {(row[0], row[1], row[2], row[3]): row[4] for row in found}


async def read_first_beyond(reader: Reader, key: Key, slug: str) -> int | None:
    """Offset of a register's first change with a word of this slug."""
    row = await reader.fetch_one(
        """SELECT c.log_offset FROM changes c JOIN settlements s ON s.log_offset = c.log_offset
        WHERE c.school = ? AND c.class_id = ? AND c.date = ? AND c.session = ? AND s.slug = ?
        ORDER BY c.log_offset LIMIT 1""",
        (*key, slug),
    )
    return None if row is None else row[0]


async def read_outcomes(reader: Reader, keys: Sequence[Key]) -> dict[Key, Row]:
    """Revision, settled_ms, body and revisions of the last outcomes, as stored: reading a large one takes its time."""
    found = await reader.fetch_all(
        f"""{wanted(keys)} SELECT o.school, o.class_id, o.date, o.session, o.revision, o.settled_ms, o.body,
        o.revisions
        FROM wanted w JOIN whole_outcomes o ON {BY_KEY}""",
        flat(keys),
    )
    return {(row[0], row[1], row[2], row[3]): row[4:] for row in found}


async def read_expired_pending(reader: Reader, before_ms: int, *, settlements: str = "settlements") -> list[Dead]:
    """Changes that have waited for their dependencies since before a moment and are no dead letter yet."""
    found = await reader.fetch_all(
        f"""SELECT c.log_offset, c.school, c.class_id, c.date, c.session FROM {settlements} s
        JOIN changes c ON c.log_offset = s.log_offset JOIN frames f ON f.id = c.frame_id
        LEFT JOIN dead_letters x ON x.log_offset = c.log_offset
        WHERE s.state = 3 AND f.received_ms < ? AND x.id IS NULL ORDER BY c.log_offset LIMIT 256""",
        (before_ms,),
    )
    return [
        Dead(key=(row[1], row[2], row[3], row[4]), log_offset=row[0], code="pending", detail="dependencies never came")
        for row in found
    ]

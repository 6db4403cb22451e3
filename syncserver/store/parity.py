"""What judging school weeks reads and writes, as rows."""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reconciliation.gate import Verdict
from reconciliation.parity import Key, Status, WeekParity
from reconciliation.wire import canonical
from syncserver.store.port import Reader, Row, Transaction, placeholders

Members = Mapping[str, Sequence[tuple[str, str, str | None]]]
"""Class to its pupils' stays: pupil, first day, first day after."""

_VERDICT = "week, status, matched, compared, against, covered, expected, excluded"


async def members_of(reader: Reader, school: str) -> Members:
    """Who was when a pupil of which class, in one question for a whole school."""
    found: defaultdict[str, list[tuple[str, str, str | None]]] = defaultdict(list)
    for class_id, *stay in await reader.fetch_all(
        """SELECT class_id, user_id, from_date, until_date FROM members WHERE school = ? AND role = 'pupil'
        ORDER BY class_id, user_id, from_date""",
        (school,),
    ):
        found[class_id].append((stay[0], stay[1], stay[2]))
    return found


def rosters_on(members: Members, date: str) -> dict[str, frozenset[str]]:
    """Class to its pupils on a date."""
    return {
        class_id: frozenset(pupil for pupil, first, until in stays if first <= date and (until is None or date < until))
        for class_id, stays in members.items()
    }


async def revisions_of(reader: Reader, school: str, classes: Sequence[str], first: str, last: str) -> dict[Key, int]:
    """Which registers of some classes and a span of dates were settled, and how often their outcome has changed."""
    found: dict[Key, int] = {}
    for part in _parts(classes):
        rows = await reader.fetch_all(
            f"""SELECT class_id, date, session, revision FROM outcomes WHERE school = ?
            AND class_id IN ({placeholders(len(part))}) AND date >= ? AND date <= ?""",
            (school, *part, first, last),
        )
        found |= {(row[0], row[1], row[2]): row[3] for row in rows}
    return found


async def bodies_of(
    reader: Reader, school: str, classes: Sequence[str], first: str, last: str
) -> list[tuple[str, bytes]]:
    """The outcomes themselves: register and body, as stored."""
    found: list[tuple[str, bytes]] = []
    for part in _parts(classes):
        rows = await reader.fetch_all(
            f"""SELECT class_id, date, session, body FROM whole_outcomes WHERE school = ?
            AND class_id IN ({placeholders(len(part))}) AND date >= ? AND date <= ?""",
            (school, *part, first, last),
        )
        found += [("/".join((school, *key)), body) for *key, body in rows]
    return found


def _parts(names: Sequence[str]) -> list[Sequence[str]]:
    return [names[at : at + 200] for at in range(0, len(names), 200)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """How far everything that verdicts of a school rest on has come. Two equal moments: nothing came between them.

    `is_settled`: no change of the school waits to become official.
    """

    log_offset: int
    audit_id: int
    entry_id: int
    roster_version: int
    outcomes: tuple[int, int]
    is_settled: bool


async def moment_of(reader: Reader, school: str) -> Moment:
    """Where a school stands now."""
    row = await reader.fetch_one(
        """SELECT (SELECT coalesce(min(log_offset), 0) FROM consumers),
        (SELECT coalesce(max(id), 0) FROM audit), (SELECT coalesce(max(id), 0) FROM paper_entries WHERE school = ?),
        (SELECT coalesce(max(roster_version), 0) FROM schools WHERE school = ?), count(*), coalesce(sum(revision), 0)
        FROM outcomes WHERE school = ?""",
        (school, school, school),
    )
    assert row is not None
    waiting = await reader.fetch_one(
        "SELECT 1 FROM changes WHERE log_offset > ? AND school = ? LIMIT 1", (row[0], school)
    ) or await reader.fetch_one("SELECT 1 FROM settle_again WHERE school = ? LIMIT 1", (school,))
    return Moment(
        log_offset=row[0],
        audit_id=row[1],
        entry_id=row[2],
        roster_version=row[3],
        outcomes=(row[4], row[5]),
        is_settled=waiting is None,
    )


# ---- verdicts ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWeek:
    """The verdict that counts on one week, when it was made, from which document, and its registers as stored."""

    verdict: Verdict
    judged_ms: int
    document: str
    body: bytes


async def weeks_of(reader: Reader, school: str) -> dict[str, StoredWeek]:
    """The verdicts that count, by week."""
    rows = await reader.fetch_all(
        f"SELECT judged_ms, document, body, {_VERDICT} FROM parity_weeks WHERE school = ? ORDER BY week, id",
        (school,),
    )
    return {
        row[3]: StoredWeek(verdict=_verdict(row[3:]), judged_ms=row[0], document=row[1], body=row[2]) for row in rows
    }


def _verdict(row: Row) -> Verdict:
    names = ("matched", "compared", "against", "covered", "expected", "excluded")
    return Verdict(week=row[0], status=Status(row[1]), **dict(zip(names, row[2:], strict=True)))


async def week_body(reader: Reader, school: str, week: str) -> list[dict[str, Any]] | None:
    """Every expected register of a judged week, as plain data; None while it is not judged."""
    row = await reader.fetch_one(
        "SELECT body FROM parity_weeks WHERE school = ? AND week = ? ORDER BY id DESC LIMIT 1", (school, week)
    )
    if row is None:
        return None
    found: list[dict[str, Any]] = json.loads(zlib.decompress(row[0]))
    return found


def packed(week: WeekParity) -> bytes:
    """The registers of a week, as stored."""
    return zlib.compress(canonical(plain_registers(week)), 1)


async def write_week(tx: Transaction, school: str, week: WeekParity, *, judged_ms: int, log_offset: int) -> None:
    """Add a verdict."""
    verdict = Verdict.of(week)
    await tx.execute(
        """INSERT INTO parity_weeks (school, week, judged_ms, log_offset, status, document, matched, compared, against,
        covered, expected, excluded, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        (
            school, week.week, judged_ms, log_offset, verdict.status.value, week.document.value, verdict.matched,
            verdict.compared, verdict.against, verdict.covered, verdict.expected, verdict.excluded, packed(week),
        ),
    )  # fmt: skip


async def inputs_of(reader: Reader, school: str) -> dict[str, bytes]:
    """Digest of what went into each week of a school that was weighed."""
    return dict(await reader.fetch_all("SELECT week, digest FROM parity_inputs WHERE school = ?", (school,)))


async def write_inputs(tx: Transaction, school: str, digests: Mapping[str, bytes]) -> None:
    """These weeks were weighed from these inputs."""
    await tx.executemany(
        """INSERT INTO parity_inputs (school, week, digest) VALUES (?, ?, ?)
        ON CONFLICT (school, week) DO UPDATE SET digest = excluded.digest""",
        [(school, week, digest) for week, digest in digests.items()],
    )


def plain_registers(week: WeekParity) -> list[dict[str, Any]]:
    """The registers of a week as plain data: counts, no pupils and no authors."""
    return [
        {
            "register": "/".join(one.key),
            "standing": one.standing.value,
            "cells": one.cells,
            "matched": one.matched,
            "kinds": dict(one.kinds),
            "signs": [
                {
                    "kind": sign.kind.value,
                    "score": f"{sign.score.numerator}/{sign.score.denominator}",
                    "en": sign.in_words("en"),
                    "ar": sign.in_words("ar"),
                }
                for sign in one.signs
            ],
        }
        for one in week.registers
    ]


# ---- once a day --------------------------------------------------------------------------------------------------


async def due_schools(reader: Reader, today: str) -> list[str]:
    """Schools with paper that were not looked at on this date."""
    rows = await reader.fetch_all(
        """SELECT p.school FROM (SELECT DISTINCT school FROM paper_entries) p
        LEFT JOIN parity_runs r ON r.school = p.school
        WHERE r.evaluated_on IS NULL OR r.evaluated_on < ? ORDER BY p.school""",
        (today,),
    )
    return [row[0] for row in rows]


async def was_looked_at(reader: Reader, school: str, today: str) -> bool:
    """Whether the school was looked at on this date, or, by a clock that has gone back, on a later one."""
    row = await reader.fetch_one("SELECT evaluated_on FROM parity_runs WHERE school = ?", (school,))
    return row is not None and row[0] >= today


async def write_run(tx: Transaction, school: str, today: str, *, at_ms: int) -> None:
    """The school was looked at."""
    await tx.execute(
        """INSERT INTO parity_runs (school, evaluated_on, at_ms) VALUES (?, ?, ?)
        ON CONFLICT (school) DO UPDATE SET evaluated_on = excluded.evaluated_on, at_ms = excluded.at_ms""",
        (school, today, at_ms),
    )


# ---- gates -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredGate:
    """A gate that has fired: the last of its decisive weeks, all of them, and when."""

    week: str
    weeks: tuple[str, ...]
    fired_ms: int
    audit_id: int


async def gate_of(reader: Reader, school: str) -> StoredGate | None:
    """The gate of a school, once it has fired."""
    row = await reader.fetch_one("SELECT week, weeks_json, fired_ms, audit_id FROM gates WHERE school = ?", (school,))
    if row is None:
        return None
    weeks = tuple(one["week"] for one in json.loads(row[1]))
    return StoredGate(week=row[0], weeks=weeks, fired_ms=row[2], audit_id=row[3])


async def write_gate(
    tx: Transaction,
    school: str,
    week: str,
    weeks: Sequence[Mapping[str, object]],
    *,
    fired_ms: int,
    log_offset: int,
    audit_id: int,
) -> None:
    """Paper retires at a school."""
    await tx.execute(
        "INSERT INTO gates (school, week, weeks_json, fired_ms, log_offset, audit_id) VALUES (?, ?, ?, ?, ?, ?)",
        (school, week, canonical(list(weeks)).decode(), fired_ms, log_offset, audit_id),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFinding:
    """One finding about a fired gate."""

    id: int
    name: str
    detail: Mapping[str, Any]
    at_ms: int
    resolved_ms: int | None


async def findings_of(reader: Reader, school: str) -> list[StoredFinding]:
    """The findings about a school's gate, oldest first."""
    rows = await reader.fetch_all(
        "SELECT id, name, detail_json, at_ms, resolved_ms FROM gate_findings WHERE school = ? ORDER BY id", (school,)
    )
    return [
        StoredFinding(id=row[0], name=row[1], detail=json.loads(row[2]), at_ms=row[3], resolved_ms=row[4])
        for row in rows
    ]


async def write_finding(
    tx: Transaction, school: str, name: str, detail: Mapping[str, object], *, at_ms: int, audit_id: int
) -> None:
    """Raise a finding."""
    await tx.execute(
        "INSERT INTO gate_findings (school, name, detail_json, at_ms, audit_id) VALUES (?, ?, ?, ?, ?)",
        (school, name, canonical(dict(detail)).decode(), at_ms, audit_id),
    )


async def resolve_findings(tx: Transaction, ids: Sequence[int], *, at_ms: int) -> None:
    """These do not stand any more."""
    await tx.executemany("UPDATE gate_findings SET resolved_ms = ? WHERE id = ?", [(at_ms, one) for one in ids])

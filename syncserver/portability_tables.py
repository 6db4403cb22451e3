"""Which rows belong to a school, and how they stand in its file: one JSON line a row, bytes in hex.

Every table of the store is in one of two lists, so that a new one cannot be forgotten (a test holds it). Numbers that
belong to this server's own counting (positions in the log and in the feed, rows of the audit trail) are written as the
school's own: from 1, in the same order.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from clientcore.errors import BadInput
from reconciliation.errors import BadOutcome
from reconciliation.model import Outcome
from syncserver.store.packed import (
    pack_json,
    pack_outcome,
    pack_revisions,
    unpack_json,
    unpack_revisions,
    unpack_wire,
)
from syncserver.store.port import Reader, Transaction, placeholders
from syncserver.store.schema import schema_statements

_OWN = "t.school = ?"
_ITS_DEVICES = "t.device IN (SELECT d.id FROM devices d WHERE d.school = ?)"
_ITS_SCOPES = "t.scope = '*' OR t.scope IN (SELECT p.governorate FROM places p WHERE p.school = ?)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One table in the file.

    Attributes:
        file: Where its lines stand.
        where: Which rows are the school's; its one parameter is the school.
        order: Columns to sort by.
        packed: Columns that hold compressed JSON, and are written as JSON.
        blank: Columns that are not written, and what stands there after an import.
        source: From where its rows are read, if not from the table itself.
    """

    file: str
    order: str
    where: str = _OWN
    packed: tuple[str, ...] = ()
    blank: Mapping[str, Any] | None = None
    source: str | None = None


EXPORTED: Mapping[str, Table] = {
    # who is in which class, and when
    "schools": Table(file="roster/schools.jsonl", order="school"),
    "users": Table(file="roster/users.jsonl", order="id"),
    "past_roles": Table(file="roster/past_roles.jsonl", order="id"),
    "classes": Table(file="roster/classes.jsonl", order="id"),
    "members": Table(file="roster/members.jsonl", order="class_id, user_id, role, spell"),
    # the calendar in force for it
    "places": Table(file="calendar/places.jsonl", order="school"),
    "calendar_weeks": Table(file="calendar/weeks.jsonl", order="id", where=_ITS_SCOPES),
    "calendar_exceptions": Table(file="calendar/exceptions.jsonl", order="scope, date", where=_ITS_SCOPES),
    "timetables": Table(file="calendar/timetables.jsonl", order="id", where=_ITS_SCOPES),
    # the evidence; `frames.body` is log/frames.bin
    "devices": Table(file="log/devices.jsonl", order="id", blank={"nonce": None}),
    "directives": Table(file="log/directives.jsonl", order="id", where=_ITS_DEVICES),
    "frames": Table(file="log/frames.jsonl", order="id", where=_ITS_DEVICES),
    "changes": Table(file="log/changes.jsonl", order="log_offset"),
    "dead_letters": Table(file="log/dead_letters.jsonl", order="id"),
    # what people decided
    "decisions": Table(file="decisions/decisions.jsonl", order="id"),
    "aliases": Table(file="decisions/merged_records.jsonl", order="id"),
    "bulks": Table(file="decisions/bulk_operations.jsonl", order="id"),
    "delegations": Table(file="decisions/delegations.jsonl", order="id"),
    "delegated_lists": Table(file="decisions/delegated_lists.jsonl", order="delegation"),
    # paper, parity, gate
    "paper_entries": Table(file="paper/entries.jsonl", order="id"),
    "paper_rules": Table(file="paper/rules.jsonl", order="id", where="t.school = '*' OR t.school = ?"),
    "parity_weeks": Table(file="paper/parity_weeks.jsonl", order="id", packed=("body",)),
    "parity_inputs": Table(file="paper/parity_inputs.jsonl", order="week"),
    "parity_runs": Table(file="paper/parity_runs.jsonl", order="school"),
    "gates": Table(file="paper/gates.jsonl", order="school"),
    "gate_findings": Table(file="paper/gate_findings.jsonl", order="id"),
    # what is official
    "outcomes": Table(
        file="registers/outcomes.jsonl", order="class_id, date, session", packed=("body", "revisions"),
        blank={"first_seq": None, "last_seq": None, "source_offset": None, "counts": None}, source="whole_outcomes",
    ),
}  # fmt: skip

ELSEWHERE = frozenset(("audit", "imported_audit", "events"))
"""Written by their own functions: audit/audit.jsonl, events/events.jsonl."""

LEFT_OUT: Mapping[str, str] = {
    "schema_version": "of this program",
    "meta": "the server's private key and its own counting",
    "codes": "digests of secrets",
    "tokens": "digests of secrets, of offices and not of a school",
    "token_schools": "of tokens",
    "sinks": "secrets, of consumers and not of a school",
    "sink_schools": "of sinks",
    "upstream_feed": "of this server's own talk with the school system",
    "upstream_sent": "of this server's own talk with the school system",
    "upstream_letters": "of this server's own talk with the school system",
    "upstream_pulls": "counts of answers about many schools",
    "nightly_runs": "about many schools",
    "security_events": "about the server that saw them",
    "status_hours": "about the server that was watched",
    "heartbeat": "about the server that was running",
    "roster_imports": "counts of files about many schools",
    "consumers": "follows from the log",
    "settle_again": "nothing waits when a school is exported",
    "settlements": "follows from the outcomes",
    "settled_heads": "follows from the outcomes",
    "summaries": "of servers of version 4",
    "calendar_heads": "follows from the calendar",
}

_TABLE = re.compile(r"CREATE TABLE (\w+) \((.*)\) STRICT(?:, WITHOUT ROWID)?$", re.DOTALL)
_PART = re.compile(r"(?:[^,()]|\([^()]*\))+")
_AUDIT = "audit_id"


@lru_cache(maxsize=1)
def columns() -> dict[str, dict[str, str]]:
    """Every table of the schema with its columns and their types, in order."""
    found: dict[str, dict[str, str]] = {}
    for statement in schema_statements():
        made = _TABLE.match(statement)
        if made is not None:
            words = [part.split() for part in _PART.findall(made[2])]
            found[made[1]] = {one[0]: one[1] for one in words if len(one) > 1 and one[1] in ("INTEGER", "TEXT", "BLOB")}
    return found


async def read_rows(reader: Reader, name: str, school: str) -> list[dict[str, Any]]:
    """The school's rows of a table, as they stand in the store."""
    table, names = EXPORTED[name], list(columns()[name])
    rows = await reader.fetch_all(
        f"SELECT {', '.join(f't.{column}' for column in names)} FROM {table.source or name} t "
        f"WHERE {table.where} ORDER BY " + ", ".join(f"t.{column}" for column in table.order.split(", ")),
        (school,),
    )
    return [dict(zip(names, row, strict=True)) for row in rows]


def to_line(name: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as it stands in the file."""
    table = EXPORTED[name]
    line: dict[str, Any] = {}
    for column, value in row.items():
        if column in (table.blank or {}):
            continue
        if column in table.packed:
            line[column] = _plain(row, column, value)
        else:
            line[column] = value.hex() if isinstance(value, bytes) else value
    return line


def _plain(row: Mapping[str, Any], column: str, value: bytes) -> Any:
    if "revisions" not in row:
        return unpack_json(value)
    register = "/".join((row["school"], row["class_id"], row["date"], row["session"]))
    wire = unpack_wire(row["body"], register)
    return wire if column == "body" else unpack_revisions(value, Outcome.from_wire(wire))


def _packed(file: str, line: Mapping[str, Any], column: str) -> bytes:
    if "revisions" not in line:
        return pack_json(line[column])
    try:
        outcome = Outcome.from_wire(line["body"])
    except BadOutcome as bad:
        raise BadInput("not-portable", f"{file}: {bad}") from None
    if column == "body":
        return pack_outcome(outcome)
    revisions = line["revisions"]
    if not isinstance(revisions, dict) or any(type(number) is not int for number in revisions.values()):
        raise BadInput("not-portable", f"{file}: revisions are numbers by pupil")
    return pack_revisions(outcome, revisions)


def from_line(name: str, line: Mapping[str, Any], *, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """A row from its line.

    Args:
        name: Of the table.
        line: As `to_line` gave it.
        without: Columns that come from somewhere else.

    Raises:
        BadInput: `not-portable`: other columns or types than this program's.
    """
    table, kinds = EXPORTED[name], columns()[name]
    blank = dict(table.blank or {})
    if set(line) != set(kinds) - set(blank) - without:
        raise BadInput("not-portable", f"{table.file}: other columns than this program has")
    row: dict[str, Any] = {}
    for column, kind in kinds.items():
        if column in without:
            continue
        if column in blank:
            row[column] = blank[column]
        elif column in table.packed:
            row[column] = _packed(table.file, line, column)
        else:
            row[column] = _value(table.file, column, kind, line[column])
    return row


def _value(file: str, column: str, kind: str, value: object) -> object:
    if value is None or (kind == "INTEGER" and type(value) is int) or (kind == "TEXT" and type(value) is str):
        return value
    if kind == "BLOB" and isinstance(value, str):
        try:
            return bytes.fromhex(value)
        except ValueError:
            pass
    raise BadInput("not-portable", f"{file}: {column} is not {kind}")


async def write_rows(tx: Transaction, name: str, rows: list[dict[str, Any]], *, audit_id: int) -> None:
    """Write rows as they stood; decisions now point to the audit row of the import, which names the file."""
    names = list(columns()[name])
    await tx.executemany(
        f"INSERT INTO {name} ({', '.join(names)}) VALUES ({placeholders(len(names))})",
        [[audit_id if column == _AUDIT else row[column] for column in names] for row in rows],
    )

"""Everything of one school in one file of open formats, and back: a school can leave a server and be proved elsewhere.

The zip holds the evidence (frames as phones signed them), the registers as Automerge documents, what people decided,
and what followed, as JSON Lines; `manifest.json` names every file with its SHA-256 and three digests: of the log, of
the official registers, of what the events say in the end. It never holds a private key, nor the digest of a token or
code.

Invariants:
  1. Equal rows give equal bytes.
  2. An import is whole or nothing: every file is compared with the manifest, every frame with its hash and its device's
     signature, every change with its hash, before the first row is written.
  3. Nothing official is believed: after an import every register is settled anew from its changes, and the digests must
     come out as the manifest says (`check_school`).
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from clientcore.change import parse
from clientcore.errors import BadInput, HudurError
from clientcore.frame import FramedChange, parse_frame
from clientcore.history import merge
from clientcore.keys import device_id
from clientcore.register import RegisterId, is_id
from clientcore.wire import pack
from reconciliation.events import WITHDRAWN
from reconciliation.reports import summary_of
from reconciliation.wire import canonical, readable
from syncserver import portability_tables as tables
from syncserver.errors import RequestProblem
from syncserver.portability_readme import README
from syncserver.settle import PARTITION
from syncserver.store import consuming
from syncserver.store.digest import digest_of, digest_registers, read_head
from syncserver.store.packed import pack_json, unpack_outcome, unpack_wire
from syncserver.store.port import Reader, Transaction, placeholders
from syncserver.store.schema import SCHEMA_VERSION
from syncserver.store.summaries import pack_counts
from syncserver.store.told import read_told

FORMAT = "hudur-school/1"
_SCHEMA_MIN = 4  # what the lines of a file hold is the same since
_MANIFEST, _FRAMES, _EVENTS, _AUDIT = "manifest.json", "log/frames.bin", "events/events.jsonl", "audit/audit.jsonl"
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
_INFLATED_BYTES_MAX = 1 << 30
_UNREADABLE = (  # RuntimeError: a zip with a password or an unknown method, JSON nested too deep
    HudurError, KeyError, ValueError, TypeError, AttributeError, IndexError, RuntimeError, EOFError, OSError,
    OverflowError, zipfile.BadZipFile, zlib.error, lzma.LZMAError,
)  # fmt: skip
_FILES_MAX = 100_000
_PAGE = 500
_AUDIT_COLUMNS = (
    "id", "at_ms", "actor", "action", "subject", "reason", "before_json", "after_json", "prev_hash", "hash",
)  # fmt: skip
_CHAINED = ("revision", "supersedes", "changed", "previous")
_FRAME_DIGEST = (
    "id", "hash", "device", "number", "received_ms", "carrier", "wall_ms", "mono_ms", "app_session",
    "beacon_server_ms", "beacon_mono_ms", "body",
)  # fmt: skip
_CHANGE_DIGEST = (
    "log_offset", "hash", "school", "class_id", "date", "session", "frame_id", "chunk_at", "chunk_bytes", "delegation",
    "held",
)  # fmt: skip

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class School:
    """Every row of a school, numbered as its own.

    Attributes:
        school: Its id.
        rows: Table to rows.
        events: CloudEvents in the order of the feed, without their sequence.
        audit: Rows of the trail that are about it, oldest first.
        manifest: Where it came from a file.
    """

    school: str
    rows: Mapping[str, list[Row]]
    events: list[Row]
    audit: list[Row]
    manifest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A zip and its manifest."""

    data: bytes
    manifest: dict[str, Any]


# ---- out --------------------------------------------------------------------------------------------------------


async def read_school(reader: Reader, school: str) -> School:
    """Read a school; call it in a transaction, so that all of it is of one moment.

    Raises:
        RequestProblem: `not-found`; `busy` while something of the school waits to become official.
    """
    if await reader.fetch_one("SELECT 1 FROM schools WHERE school = ?", (school,)) is None:
        raise RequestProblem("not-found", f"{school}: no such school")
    position = await consuming.read_settled_up_to(reader)
    if await reader.fetch_one(
        "SELECT 1 FROM changes WHERE school = ? AND log_offset > ? LIMIT 1", (school, position)
    ) or await reader.fetch_one("SELECT 1 FROM settle_again WHERE school = ? LIMIT 1", (school,)):
        raise RequestProblem("busy", "changes of the school wait to become official; try again", retry_after_s=5)
    rows = {name: await tables.read_rows(reader, name, school) for name in tables.EXPORTED}
    audit = await _read_audit(reader, school, rows)
    _number(rows)
    return School(school=school, rows=rows, events=await _read_events(reader, school), audit=audit)


def _number(rows: Mapping[str, list[Row]]) -> None:
    """Positions in this server's log become positions in the school's own."""
    frames = {row["id"]: n for n, row in enumerate(rows["frames"], 1)}
    offsets = {row["log_offset"]: n for n, row in enumerate(rows["changes"], 1)}
    for row in rows["frames"]:
        row["id"] = frames[row["id"]]
    for row in rows["changes"]:
        row["log_offset"], row["frame_id"] = offsets[row["log_offset"]], frames[row["frame_id"]]
    for row in rows["dead_letters"]:
        row["log_offset"] = offsets[row["log_offset"]]
    for row in (*rows["parity_weeks"], *rows["gates"]):
        row["log_offset"] = sum(offset <= row["log_offset"] for offset in offsets)


async def _read_events(reader: Reader, school: str) -> list[Row]:
    found: list[Row] = []
    at = 0
    while page := list(await read_told(reader, after=at, limit=_PAGE, schools=[school])):
        for _, events in page:
            found += events
        at = page[-1][0] + len(page[-1][1]) - 1
    return found


async def _read_audit(reader: Reader, school: str, rows: Mapping[str, list[Row]]) -> list[Row]:
    """Rows about the school or one of its devices, by one of its people, or that a row of its file rests on."""
    devices = {row["id"].hex() for row in rows["devices"]}
    # The row that placed many schools at once tells of all of them.
    rests_on = {row["audit_id"] for name, some in rows.items() if name != "places" for row in some if "audit_id" in row}
    imported = await reader.fetch_all(
        f"SELECT {', '.join(_AUDIT_COLUMNS)} FROM imported_audit WHERE school = ? ORDER BY id", (school,)
    )
    found = [dict(zip(_AUDIT_COLUMNS, row, strict=True)) for row in imported]
    at = 0
    while page := await reader.fetch_all(
        f"SELECT {', '.join(_AUDIT_COLUMNS)} FROM audit WHERE id > ? ORDER BY id LIMIT ?", (at, _PAGE)
    ):
        at = page[-1][0]
        for one in page:
            row = dict(zip(_AUDIT_COLUMNS, one, strict=True))
            about = row["subject"] == school or row["subject"].startswith(f"{school}/") or row["subject"] in devices
            if about or row["actor"].startswith(f"user:{school}/") or row["id"] in rests_on:
                found.append(row)
    return found


def pack_school(taken: School) -> Packed:
    """The zip of a school."""
    files = dict(_files(taken))
    manifest = {
        "format": FORMAT,
        "schema": SCHEMA_VERSION,
        "school": taken.school,
        "counts": {
            **{table.file: len(taken.rows[name]) for name, table in tables.EXPORTED.items()},
            _EVENTS: len(taken.events),
            _AUDIT: len(taken.audit),
        },
        "digests": digests_of(taken),
        "files": {
            name: {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
            for name, body in sorted(files.items())
        },
    }
    files[_MANIFEST] = (json.dumps(manifest, ensure_ascii=False, indent=1, sort_keys=True) + "\n").encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _ZIP_TIME), files[name], zipfile.ZIP_DEFLATED)
    return Packed(data=out.getvalue(), manifest=manifest)


def _files(taken: School) -> Iterator[tuple[str, bytes]]:
    yield "README.md", README.format(school=taken.school).encode()
    bodies: list[bytes] = []
    at = 0
    for name, table in tables.EXPORTED.items():
        lines = [tables.to_line(name, row) for row in taken.rows[name]]
        if name == "frames":
            for line, row in zip(lines, taken.rows[name], strict=True):
                del line["body"]
                line |= {"at": at, "bytes": len(row["body"])}
                at += len(row["body"])
                bodies.append(row["body"])
        yield table.file, _lines(lines)
    yield _FRAMES, b"".join(bodies)
    yield _EVENTS, _lines({**event, "sequence": f"{n:020d}"} for n, event in enumerate(taken.events, 1))
    yield _AUDIT, _lines({k: v.hex() if isinstance(v, bytes) else v for k, v in row.items()} for row in taken.audit)
    yield (
        "registers/registers.jsonl",
        _lines(
            {"revision": row["revision"], **readable(unpack_outcome(row["body"], "/".join(_key(row))))}
            for row in taken.rows["outcomes"]
        ),
    )
    yield from _automerge(taken)


def _lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    return b"".join(canonical(dict(row)) + b"\n" for row in rows)


def _automerge(taken: School) -> Iterator[tuple[str, bytes]]:
    """Each register's merged changes, one behind the other: a document that any Automerge tool loads."""
    bodies = {row["id"]: row["body"] for row in taken.rows["frames"]}
    key = _key
    for name, some in groupby(sorted(taken.rows["changes"], key=lambda row: (key(row), row["log_offset"])), key=key):
        chunks = [_chunk(bodies[row["frame_id"]], row) for row in some]
        merged = merge(parse(chunk) for chunk in chunks).merged
        if merged:
            yield f"registers/automerge/{'/'.join(name[1:])}.automerge", b"".join(one.chunk for one in merged.values())


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (row["school"], row["class_id"], row["date"], row["session"])


def _chunk(body: bytes, row: Mapping[str, Any]) -> bytes:
    return body[row["chunk_at"] - 1 : row["chunk_at"] - 1 + row["chunk_bytes"]]


# ---- digests ----------------------------------------------------------------------------------------------------


def digests_of(taken: School) -> dict[str, str]:
    """Digests of the log and of the outcomes, as `store/digest.py` has them, and of what the events say in the end."""
    log = hashlib.sha256()
    for row in taken.rows["frames"]:
        log.update(pack([row[name] for name in _FRAME_DIGEST]))
    for row in taken.rows["changes"]:
        log.update(pack([row[name] for name in _CHANGE_DIGEST]))
    outcomes = hashlib.sha256()
    for row in sorted(taken.rows["outcomes"], key=_key):
        plain = canonical(unpack_wire(row["body"], "/".join(_key(row))))
        outcomes.update(pack([*_key(row), row["revision"], plain]))
    return {"log": log.hexdigest(), "outcomes": outcomes.hexdigest(), "events": digest_events(taken.events)}


def digest_events(events: Iterable[Mapping[str, Any]]) -> str:
    """Digest of the last thing said of each pupil in each register; nothing of what was withdrawn."""
    state: dict[str, Any] = {}
    for event in events:
        if event["type"] == WITHDRAWN:
            state.pop(event["subject"], None)
        else:
            state[event["subject"]] = {key: value for key, value in event["data"].items() if key not in _CHAINED}
    return hashlib.sha256(canonical(state)).hexdigest()


async def check_school(reader: Reader, manifest: Mapping[str, Any]) -> list[str]:
    """What of an imported and settled store differs from its manifest; empty: it is the same school."""
    school = manifest["school"]
    found = {
        "log": (await digest_of(reader, await read_head(reader))).digest.hex(),
        "outcomes": (await digest_registers(reader)).digest.hex(),
        "events": digest_events(await _read_events(reader, school)),
    }
    return [f"digest of the {name} is {found[name]}, not {wanted}" for name, wanted in manifest["digests"].items()
            if found[name] != wanted]  # fmt: skip


# ---- in ---------------------------------------------------------------------------------------------------------


def unpack_school(data: bytes) -> School:
    """Read a zip and compare everything in it with its manifest.

    Raises:
        BadInput: `not-portable`, says what is wrong.
    """
    try:
        files = _read_zip(data)
        manifest = json.loads(files.pop(_MANIFEST))
        _check_files(files, manifest)
        taken = _read_files(files, manifest)
        _check_evidence(taken)
    except BadInput:
        raise
    except _UNREADABLE as fault:
        raise BadInput("not-portable", f"this is no file of a school: {type(fault).__name__}: {fault}") from None
    if digests_of(taken) != manifest["digests"]:
        raise BadInput("not-portable", "the rows are not those the manifest's digests were made of")
    return taken


def _read_zip(data: bytes) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    room = _INFLATED_BYTES_MAX
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if len(entries) > _FILES_MAX or len({one.filename for one in entries}) != len(entries):
            raise BadInput("not-portable", "too many files, or one twice")
        for entry in entries:
            with archive.open(entry) as source:
                body = source.read(room + 1)  # what it says of its size is not believed
            room -= len(body)
            if room < 0:
                raise BadInput("not-portable", f"more than {_INFLATED_BYTES_MAX} bytes")
            files[entry.filename] = body
    return files


def _check_files(files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> None:
    if manifest["format"] != FORMAT or manifest["schema"] not in range(_SCHEMA_MIN, SCHEMA_VERSION + 1):
        raise BadInput("not-portable", f"made by another version: {manifest['format']}, schema {manifest['schema']}")
    if set(files) != set(manifest["files"]):
        raise BadInput("not-portable", "other files than the manifest names")
    for name, body in files.items():
        wanted = manifest["files"][name]
        if len(body) != wanted["bytes"] or hashlib.sha256(body).hexdigest() != wanted["sha256"]:
            raise BadInput("not-portable", f"{name} was altered: it is not what the manifest says")


def _read_files(files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> School:
    school = manifest["school"]
    if not isinstance(school, str) or not is_id(school):
        raise BadInput("not-portable", "the manifest names no school")
    rows: dict[str, list[Row]] = {}
    for name, table in tables.EXPORTED.items():
        lines = [json.loads(line) for line in files[table.file].splitlines()]
        rows[name] = _read_frames(lines, files[_FRAMES]) if name == "frames" else [
            tables.from_line(name, line) for line in lines
        ]  # fmt: skip
        if any(row.get("school", school) not in (school, "*") for row in rows[name]):
            raise BadInput("not-portable", f"{table.file} has rows of another school")
    events = [json.loads(line) for line in files[_EVENTS].splitlines()]
    for event in events:
        del event["sequence"]
        if RegisterId.parse(_register_of(event)).school != school:
            raise BadInput("not-portable", f"{_EVENTS} has events of another school")
    audit = [_read_audit_line(json.loads(line)) for line in files[_AUDIT].splitlines()]
    return School(school=school, rows=rows, events=events, audit=audit, manifest=manifest)


def _read_frames(lines: Sequence[Row], bodies: bytes) -> list[Row]:
    rows = []
    for line in lines:
        at, size = line.pop("at"), line.pop("bytes")
        row = tables.from_line("frames", line, without=frozenset(("body",)))
        rows.append({**row, "body": bodies[at : at + size]})
    return rows


def _read_audit_line(line: Row) -> Row:
    if set(line) != set(_AUDIT_COLUMNS):
        raise BadInput("not-portable", f"{_AUDIT}: other columns than this program has")
    return {**line, "prev_hash": bytes.fromhex(line["prev_hash"]), "hash": bytes.fromhex(line["hash"])}


def _check_evidence(taken: School) -> None:
    """Frames are their devices' own, and changes lie in them: no manifest can make a mark."""
    keys = {row["id"]: row["public_key"] for row in taken.rows["devices"]}
    if any(device_id(key) != name for name, key in keys.items()):
        raise BadInput("not-portable", "a device has another key than its id says")
    last_numbers = {row["id"]: row["last_number"] for row in taken.rows["devices"]}
    if len({row["hash"] for row in taken.rows["frames"]}) < len(taken.rows["frames"]):
        raise BadInput("not-portable", "a frame stands there twice")
    bodies: dict[int, bytes] = {}
    framed: dict[int, list[FramedChange]] = {}
    for number, row in enumerate(taken.rows["frames"], 1):
        frame = parse_frame(row["body"])
        same = (frame.hash, frame.device, frame.school) == (row["hash"], row["device"], taken.school)
        if row["id"] != number or not same or not frame.is_signed_by(keys[row["device"]]):
            raise BadInput("not-portable", f"frame {row['id']} is not what its device signed")
        if frame.number != row["number"] or frame.number > last_numbers[row["device"]]:
            raise BadInput("not-portable", f"frame {row['id']} has a number its device has not reached")
        bodies[number], framed[number] = row["body"], list(frame.changes)
    for number, row in enumerate(taken.rows["changes"], 1):
        chunk = _chunk(bodies[row["frame_id"]], row)
        told = FramedChange(register="/".join(_key(row)[1:]), chunk=chunk, delegation=row["delegation"])
        same = row["school"] == taken.school and told in framed[row["frame_id"]]
        if row["log_offset"] != number or not same or parse(chunk).hash != row["hash"]:
            raise BadInput("not-portable", f"change {row['log_offset']} is not what its hash says")


async def check_empty(reader: Reader) -> None:
    """Let pass a store that holds no school, no device and no log yet.

    Raises:
        RequestProblem: `bad-request`.
    """
    for name in ("schools", "devices", "frames", "changes", "outcomes", "events", "decisions"):
        if await reader.fetch_one(f"SELECT 1 FROM {name} LIMIT 1") is not None:
            raise RequestProblem("bad-request", f"a school is imported into an empty store; this one has {name}")


async def write_school(tx: Transaction, taken: School, *, audit_id: int, now_ms: int) -> None:
    """Write a school into an empty store and let all of its registers be settled anew.

    Outcomes and events come along, so that revisions go on and no id of an event is ever given twice; they stand only
    if settling the changes gives the same.
    """
    for row in taken.rows["outcomes"]:
        summary = summary_of(unpack_outcome(row["body"], "/".join(_key(row))))
        row["counts"] = pack_counts(row["revision"], summary)
    for name in tables.EXPORTED:
        await tables.write_rows(tx, name, taken.rows[name], audit_id=audit_id)
    await _write_events(tx, taken)
    names = ("school", *_AUDIT_COLUMNS)
    await tx.executemany(
        f"INSERT INTO imported_audit ({', '.join(names)}) VALUES ({placeholders(len(names))})",
        [(taken.school, *(row[name] for name in _AUDIT_COLUMNS)) for row in taken.audit],
    )
    scopes = {row["scope"] for name in ("calendar_weeks", "calendar_exceptions", "timetables")
              for row in taken.rows[name]}  # fmt: skip
    heads = scopes | {row["school"] for row in taken.rows["places"]}
    await tx.executemany("INSERT INTO calendar_heads VALUES (?, ?)", [(name, audit_id) for name in sorted(heads)])
    await consuming.set_position(tx, PARTITION, len(taken.rows["changes"]))
    await tx.execute(
        "INSERT INTO settle_again (school, class_id, date, cause, at_ms) VALUES (?, NULL, NULL, 'import', ?)",
        (taken.school, now_ms),
    )


async def _write_events(tx: Transaction, taken: School) -> None:
    rows, seq = [], 0
    for register, some in groupby(taken.events, key=_register_of):
        told = list(some)
        rows.append((seq + 1, seq + len(told), taken.school, register, pack_json(told)))
        seq += len(told)
    await tx.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)


def _register_of(event: Mapping[str, Any]) -> str:
    return str(event["data"]["register"])

"""Real SQLite over log files: integrity, every row, SQLite inserting further. One process for many files.

Reads a JSON list of {"file", "rows": [[seq, kind, register, at_ms, sha256 of body], ...] or a count, "insert": n} on stdin;
prints one JSON line a file: null when all is well, else what is wrong.
"""

import hashlib
import json
import sqlite3
import sys

PAGE_BYTES = 4096


def check(case: dict) -> str | None:
    db = sqlite3.connect(case["file"])
    try:
        verdict = db.execute("PRAGMA integrity_check").fetchall()
        if verdict != [("ok",)]:
            return f"integrity: {verdict[:3]}"
        schema = db.execute("SELECT sql FROM sqlite_master").fetchall()
        if schema != [(case["schema"],)]:
            return f"schema: {schema}"
        if db.execute("PRAGMA page_count").fetchone()[0] * PAGE_BYTES != case["bytes"]:
            return "page count"
        found = db.execute("SELECT seq, kind, register, at_ms, body FROM log ORDER BY seq").fetchall()
        rows = [[*row[:4], hashlib.sha256(row[4]).hexdigest()[:16]] for row in found]
        if rows != case["rows"]:
            return f"{len(rows)} rows read, {len(case['rows'])} written, or they differ"
        if case["insert"]:
            last = len(rows)
            for i in range(case["insert"]):
                db.execute("INSERT INTO log (kind, at_ms, body) VALUES ('tap', ?, ?)", (i, bytes(i * 37 % 9000)))
            db.commit()
            ids = [row[0] for row in db.execute("SELECT seq FROM log WHERE seq > ? ORDER BY seq", (last,))]
            if ids != list(range(last + 1, last + 1 + case["insert"])):
                return "seq after SQLite's own inserts"
            if db.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                return "integrity after SQLite's own inserts"
        return None
    except sqlite3.Error as error:
        return repr(error)
    finally:
        db.close()


for one in json.load(sys.stdin):
    print(json.dumps(check(one)), flush=True)

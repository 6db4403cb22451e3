"""Fresh enrolment codes from the running demo, made by the operator's own command."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from contextlib import closing

from tests.support.demo import HUDUR, Demo


def code_for(demo: Demo, school: str, class_id: str) -> str:
    """A code for the first teacher of a class. The store is read, never written, beside its server."""
    store = demo.home / ".demo" / "hudur.db"
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db:
        (user,) = db.execute(
            "SELECT user_id FROM members WHERE school = ? AND class_id = ? AND role = 'teacher' ORDER BY user_id",
            [school, class_id],
        ).fetchone()
    made = subprocess.run(
        [HUDUR, "code", f"{school}/{user}", "--store", f"sqlite:{store}", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return str(json.loads(made.stdout)["code"])

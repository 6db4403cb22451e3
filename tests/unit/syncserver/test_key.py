"""Queries about some registers: few statements, whatever the number."""

from __future__ import annotations

import sqlite3

import pytest

from syncserver.store.key import BY_KEY, Key, flat, wanted

_SQL = "{} SELECT o.class_id FROM wanted w JOIN registers o ON " + BY_KEY


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 8, 256])
def test_every_register_that_is_asked_for_is_found_once_and_no_other(count: int) -> None:
    """What fills a statement up names nothing."""
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE registers (school, class_id, date, session)")
    keys: list[Key] = [("s", f"c{number:03}", "2026-11-01", "day") for number in range(300)]
    db.executemany("INSERT INTO registers VALUES (?, ?, ?, ?)", keys)
    found = sorted(row[0] for row in db.execute(_SQL.format(wanted(keys[:count])), flat(keys[:count])))
    assert found == [key[1] for key in keys[:count]]


def test_nine_statements_do_for_a_round_of_any_size() -> None:
    """A server that plans statements keeps each of them."""
    keys: list[Key] = [("s", "c", "2026-11-01", "day")] * 256
    assert len({wanted(keys[:count]) for count in range(1, 257)}) == 9

"""The second computation of a governorate: from the raw truth, by SQL in DuckDB, without a line of the real rules.

What is written here twice is written from the pages in docs/rules, not from `reconciliation/`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date as Date
from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb

Row = dict[str, Any]
_ZONE = ZoneInfo("Africa/Cairo")
_CODES = {"present": "P", "late": "L", "left_early": "X", "absent": "A", "absent_excused": "E", "absent_unexcused": "U",
          "official_duty": "D", "suspended": "S"}  # fmt: skip
_STANDINGS = ("taken", "no_session", "in_review", "not_arrived", "silent", "not_taken", "not_due", "unexpected")
_LINES = f"""
CREATE TABLE lines AS
WITH every AS (
  SELECT c.school, c.district, c.class, d.date, d.week, d.begins_ms, d.is_open, c.pupils, c.has_phone, c.last_ms,
    c.unsent, t.codes, t.paper, t.times, coalesce(t.disputed, 0) AS disputed, coalesce(t.held, 0) AS held,
    coalesce(t.waiting, 0) AS waiting, coalesce(t.no_session, 0) = 1 AS no_session, coalesce(t.copied, 0) = 1 AS copied
  FROM classes c CROSS JOIN days d
  LEFT JOIN truth t ON t.school = c.school AND t.class = c.class AND t.date = d.date
  WHERE d.is_open OR t.school IS NOT NULL
), stood AS (
  SELECT *, CASE
    WHEN NOT is_open THEN 'unexpected'
    WHEN no_session THEN 'no_session'
    WHEN regexp_matches(codes, '[A-Z]') THEN 'taken'
    WHEN codes IS NOT NULL THEN 'in_review'
    WHEN has_phone = 1 AND coalesce(last_ms, 0) >= begins_ms AND unsent > 0 THEN 'not_arrived'
    WHEN has_phone = 1 AND coalesce(last_ms, 0) < begins_ms THEN 'silent'
    ELSE 'not_taken' END AS standing
  FROM every
)
SELECT *, standing NOT IN ('no_session', 'unexpected') AS counts,
  {
    ", ".join(
        f"CASE WHEN counts THEN length(codes) - length(replace(codes, '{c}', '')) ELSE 0 END AS n_{word}"
        for word, c in _CODES.items()
    )
},
  CASE WHEN NOT counts THEN 0 WHEN codes IS NULL THEN pupils
    ELSE length(codes) - length(replace(codes, '.', '')) END AS no_answer
FROM stood
"""
_SUMS = ", ".join(
    [
        "count(*) FILTER (standing <> 'unexpected') AS registers_expected",
        *(f"count(*) FILTER (standing = '{one}') AS registers_{one}" for one in _STANDINGS),
        "coalesce(sum(pupils) FILTER (counts), 0)::BIGINT AS roster",
        *(f"coalesce(sum(n_{word}), 0)::BIGINT AS {word}" for word in _CODES),
        "present + late + left_early + official_duty AS attended",
        "absent + absent_excused + absent_unexcused AS absent_all",
        "coalesce(sum(no_answer), 0)::BIGINT AS not_taken",
        "coalesce(sum(no_answer) FILTER (standing IN ('taken', 'not_taken')), 0)::BIGINT AS not_taken_no_mark",
        *(
            f"coalesce(sum(no_answer) FILTER (standing = '{one}'), 0)::BIGINT AS not_taken_{one}"
            for one in ("in_review", "not_arrived", "silent")
        ),
        *(
            f"coalesce(sum(length(times) - length(replace(times, '{c}', ''))) FILTER (counts), 0)::BIGINT AS {name}"
            for c, name in (("L", "late_arrivals"), ("A", "adjustments"))
        ),
        "coalesce(sum(waiting) FILTER (counts), 0)::BIGINT AS adjustments_waiting",
        "coalesce(sum(disputed) FILTER (counts), 0)::BIGINT AS disputed",
        "coalesce(sum(held) FILTER (counts), 0)::BIGINT AS held",
    ]
)
_ABOUT = {  # what a row of each report is about; NULL: about more than one
    ("class", "day"): ("school", "class", "date", "'day'"),
    ("class", "week"): ("school", "class", "date", "NULL"),
    ("school", "day"): ("school", "class", "NULL", "NULL"),
    ("school", "week"): ("school", "class", "NULL", "NULL"),
    ("district", "day"): ("school", "NULL", "NULL", "NULL"),
    ("district", "week"): ("school", "NULL", "NULL", "NULL"),
}
_FAMILY = (
    "CASE WHEN {0} IN ('P', 'X', 'D') THEN 'present' WHEN {0} = 'L' THEN 'late' WHEN {0} = '.' THEN 'not_taken' "
    "ELSE 'absent' END"
)
_REGISTERS = f"""
CREATE TABLE compared AS
WITH cells AS (
  SELECT school, class, date, {_FAMILY.format("substr(paper, n, 1)")} AS on_paper,
    {_FAMILY.format("substr(coalesce(codes, repeat('.', pupils)), n, 1)")} AS on_phone
  FROM (SELECT school, class, date, paper, codes, pupils, unnest(range(1, pupils + 1)) AS n FROM lines
        WHERE is_open AND paper IS NOT NULL AND NOT no_session)
), agreed AS (
  SELECT school, class, date, count(*) AS cells, count(*) FILTER (on_paper = on_phone) AS matched
  FROM cells GROUP BY ALL
)
SELECT l.school, l.class, l.date, l.week, coalesce(a.cells, 0) AS cells, coalesce(a.matched, 0) AS matched, CASE
    WHEN l.paper IS NULL AND l.no_session THEN 'no_session'
    WHEN l.paper IS NULL THEN 'paper_missing'
    WHEN l.standing <> 'taken' THEN 'digital_missing'
    WHEN l.copied THEN 'excluded'
    ELSE 'compared' END AS standing
FROM lines l LEFT JOIN agreed a ON a.school = l.school AND a.class = l.class AND a.date = l.date WHERE l.is_open
"""
_WEEKS = """
CREATE TABLE weeks AS
WITH sums AS (
  SELECT school, week,
    coalesce(sum(matched) FILTER (standing IN ('compared', 'digital_missing')), 0)::BIGINT AS matched,
    coalesce(sum(cells) FILTER (standing IN ('compared', 'digital_missing')), 0)::BIGINT AS compared,
    coalesce(sum(cells - matched) FILTER (standing = 'excluded'), 0)::BIGINT AS against,
    count(*) FILTER (standing IN ('compared', 'excluded')) AS covered,
    count(*) FILTER (standing <> 'no_session') AS expected,
    count(*) FILTER (standing = 'excluded') AS excluded
  FROM compared GROUP BY school, week
), began AS (SELECT school, min(week) AS first_week FROM lines WHERE paper IS NOT NULL GROUP BY school)
SELECT b.school, w.week, coalesce(matched, 0) AS matched, coalesce(compared, 0) AS compared,
  coalesce(against, 0) AS against, coalesce(covered, 0) AS covered, coalesce(expected, 0) AS expected,
  coalesce(excluded, 0) AS excluded, CASE
    WHEN w.open_days < 3 THEN 'paused'
    WHEN s.compared IS NULL OR s.compared + s.against = 0 OR 10 * s.covered < 9 * s.expected
      OR 10 * s.excluded > s.covered THEN 'not_evaluable'
    WHEN 100 * s.matched >= 98 * (s.compared + s.against) THEN 'passed'
    ELSE 'failed' END AS status
FROM began b
JOIN (SELECT week, count(*) FILTER (is_open) AS open_days FROM days GROUP BY week) w ON w.week >= b.first_week
LEFT JOIN sums s ON s.school = b.school AND s.week = w.week
"""
_GATES = """
WITH counted AS (
  SELECT school, week, status, count(*) FILTER (status = 'passed') OVER run AS passed,
    list(week) OVER run AS run
  FROM weeks WHERE status <> 'paused'
  WINDOW run AS (PARTITION BY school ORDER BY week ROWS BETWEEN 3 PRECEDING AND CURRENT ROW)
)
SELECT s.school,
  (SELECT arg_min(c.run, c.week) FROM counted c WHERE c.school = s.school AND c.passed = 4) AS decisive,
  (SELECT list(w.week ORDER BY w.week) FROM weeks w WHERE w.school = s.school AND w.status = 'passed'
    AND w.week > coalesce(s.broken, '')) AS streak
FROM (SELECT school, max(week) FILTER (status IN ('failed', 'not_evaluable')) AS broken FROM weeks GROUP BY school) s
"""


class Second:
    """The second computation over the CSV files of a folder.

    Args:
        folder: Where `truth.csv`, `classes.csv`, `holidays.csv` lie.
        first: First date that is looked at, a Saturday.
        last: Last date: the Friday of the last week that is due.
    """

    def __init__(self, folder: Path, first: str, last: str) -> None:
        self._db = duckdb.connect(config={"threads": 2})
        text = "delim = ',', header = true, quote = '\"', nullstr = '\\N'"
        self._db.execute(
            f"""CREATE TABLE truth AS SELECT * FROM read_csv('{folder}/truth.csv', {text}, auto_detect = false,
            columns = {{school: 'VARCHAR', district: 'VARCHAR', class: 'VARCHAR', date: 'VARCHAR', codes: 'VARCHAR',
            paper: 'VARCHAR', times: 'VARCHAR', disputed: 'BIGINT', held: 'BIGINT', waiting: 'BIGINT',
            no_session: 'BIGINT', copied: 'BIGINT'}})"""
        )
        self._db.execute(
            f"""CREATE TABLE classes AS SELECT * FROM read_csv('{folder}/classes.csv', {text}, auto_detect = false,
            columns = {{school: 'VARCHAR', district: 'VARCHAR', class: 'VARCHAR', pupils: 'BIGINT', has_phone: 'BIGINT',
            last_ms: 'BIGINT', unsent: 'BIGINT'}})"""
        )
        holidays = (folder / "holidays.csv").read_text().split()[1:]
        self._db.execute("CREATE TABLE days (date VARCHAR, week VARCHAR, is_open BOOLEAN, begins_ms BIGINT)")
        self._db.executemany("INSERT INTO days VALUES (?, ?, ?, ?)", list(_days(first, last, holidays)))
        for statement in (_LINES, _REGISTERS, _WEEKS):
            self._db.execute(statement)

    def plant_wrong_number(self, school: str) -> None:
        """Change one mark of the truth after the fact: every comparison that looks at it must fail."""
        self._db.execute(
            """UPDATE lines SET n_present = n_present - 1, n_absent = n_absent + 1 WHERE rowid =
            (SELECT min(rowid) FROM lines WHERE school = ? AND standing = 'taken' AND n_present > 0)""",
            (school,),
        )
        self._db.execute(
            "UPDATE weeks SET matched = matched - 1 WHERE school = ? AND week = (SELECT min(week) FROM weeks)",
            (school,),
        )

    def _rows(self, sql: str, params: Iterable[object] = ()) -> list[Row]:
        cursor = self._db.execute(sql, list(params))
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def report(self, kind: str, period: str, day: str, **about: str) -> tuple[list[Row], Row]:
        """The rows of a report and its total.

        Args:
            kind: class, school, district.
            period: day, week.
            day: Date, or any date of the week.
            about: `school`, `class`, `district`: what it is about.
        """
        where = ["date = ?"] if period == "day" else ["week = (SELECT week FROM days WHERE date = ?)"]
        where += [f"{name} = ?" for name in about]
        params = (day, *about.values())
        names = [f"{what} AS _{name}" for name, what in
                 zip(("school", "class", "date", "session"), _ABOUT[kind, period], strict=True)]  # fmt: skip
        asked = f"(SELECT * FROM lines WHERE {' AND '.join(where)})"
        if kind == "district":  # a school has its row also where nothing was expected of it
            asked = f"""(SELECT DISTINCT school, district FROM classes WHERE district = ?)
                LEFT JOIN {asked} USING (school, district)"""
        told = f"SELECT district AS _district, {', '.join(names)}, {_SUMS} FROM {asked}"
        rows = self._rows(
            f"{told} GROUP BY ALL ORDER BY 2, 3 NULLS FIRST, 4 NULLS FIRST",
            (about["district"], *params) if kind == "district" else params,
        )
        total = self._rows(f"SELECT {_SUMS} FROM lines WHERE {' AND '.join(where)}", params)[0]
        named = [{key.removeprefix("_"): value for key, value in row.items()} for row in rows]
        return [row | shares(row) for row in named], total | shares(total)

    def weeks(self) -> dict[tuple[str, str], Row]:
        """What every due week of every school is to the gate."""
        return {(row.pop("school"), row.pop("week")): row for row in self._rows("SELECT * FROM weeks")}

    def registers(self, school: str, week: str) -> list[Row]:
        """The registers of a week as compared."""
        return self._rows(
            """SELECT class || '/' || date || '/day' AS register, standing, cells, matched FROM compared
            WHERE school = ? AND week = ? ORDER BY class, date""",
            (school, week),
        )

    def gates(self) -> dict[str, tuple[bool, list[str]]]:
        """School to whether paper has retired, and the decisive weeks (or those that count so far)."""
        return {
            row["school"]: (row["decisive"] is not None, row["decisive"] or row["streak"] or [])
            for row in self._rows(_GATES)
        }


def _days(first: str, last: str, holidays: Iterable[str]) -> Iterable[tuple[str, str, bool, int]]:
    """Every date with its week, whether there is school, and when its session begins: at eight, local time."""
    spans = [line.split(",") for line in holidays]
    day, end = Date.fromisoformat(first), Date.fromisoformat(last)
    while day <= end:
        text = day.isoformat()
        saturday = day - timedelta(days=(day.weekday() + 2) % 7)
        is_open = day.weekday() not in (4, 5) and not any(a <= text <= b for a, b in spans)
        begins = datetime(day.year, day.month, day.day, 8, tzinfo=_ZONE)
        yield text, saturday.isoformat(), is_open, int(begins.timestamp() * 1_000)
        day += timedelta(days=1)


def shares(row: Mapping[str, Any]) -> Row:
    """Shares of the roster in percent."""
    known = row["roster"] > row["not_taken"]
    parts = {"attended_pct": "attended", "absent_pct": "absent_all", "suspended_pct": "suspended"}
    told: Row = {name: _share(row[part], row["roster"]) if known else None for name, part in parts.items()}
    return told | {"not_taken_pct": _share(row["not_taken"], row["roster"])}


def _share(part: int, whole: int) -> float | None:
    if not whole:
        return None
    rounded = (Decimal(100 * part) / whole).quantize(Decimal("0.1"), ROUND_HALF_UP)
    if 0 < part < whole:
        rounded = min(max(rounded, Decimal("0.1")), Decimal("99.9"))
    return float(rounded)

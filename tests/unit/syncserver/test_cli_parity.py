"""`hudur paper`, `hudur parity`, `hudur gate`: what people see, and the exit codes scripts rely on."""

from __future__ import annotations

import asyncio
import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner

from clientcore.ports import SystemClock
from reconciliation.clocks import midnight_ms
from syncserver.cli import main
from tests.support.school_weeks import SCHOOL, WEEK, ZONE, days, weeks
from tests.support.server.parity_world import due, judge, live
from tests.support.server.world import OTHER_SCHOOL, open_world

HEAD = "school,class,date,session,document,signed_by,pupil,code\n"


def hudur(*args: str | Path) -> tuple[int, str]:
    """Run a command; exit code and everything it said."""
    result = CliRunner().invoke(main, [str(arg) for arg in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.fixture(autouse=True)
def wednesday(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands' clock: noon of 9 December 2026 in Cairo, whenever the tests run."""
    monkeypatch.setattr(SystemClock, "wall_ms", lambda _: midnight_ms("2026-12-09", ZONE) + 43_200_000)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two judged weeks, the second below 98 percent, and one that is not due."""
    path = tmp_path_factory.mktemp("cli") / "store.db"

    async def fill() -> None:
        async with open_world(path, background=False) as world:
            for week, wrong in zip(weeks(2), (0, 6), strict=True):
                await live(world, week, wrong=wrong)
                await judge(world, due(week))

    asyncio.run(fill())
    return f"sqlite:{path}"


def test_a_school_is_shown_week_by_week_with_what_is_missing(store: str) -> None:
    """Numbers in a table, the verdict in both languages."""
    code, text = hudur("parity", SCHOOL, "--store", store)
    assert code == 0
    for part in (WEEK, "passed", "100.0%", "200/200", "97.0%", "0 of 4 weeks", "0 من 4 أسابيع", "next verdict on"):
        assert part in text


def test_a_week_is_shown_register_by_register(store: str) -> None:
    """With what both records say where they differ."""
    monday = days(weeks(2)[1])[1]
    code, text = hudur("parity", SCHOOL, "--week", monday, "--store", store)
    assert code == 0
    assert f"week of {weeks(2)[1]}, judged" in text
    code, text = hudur("parity", SCHOOL, "--week", monday, "--store", store, "--json")
    view = json.loads(text)
    assert [one["standing"] for one in view["registers"]] == ["compared"] * 5
    assert view["registers"][0]["kinds"] == {"present/absent": 6}


def test_every_school_is_a_line_and_weighing_anew_proves_the_verdicts(store: str) -> None:
    """Exit code 3 when a verdict is not what comes out again."""
    code, text = hudur("parity", "--all", "--again", "--store", store, "--json")
    (line,) = [json.loads(one) for one in text.splitlines() if one.startswith("{")]
    assert (code, line["school"], line["again"]["differ"]) == (0, SCHOOL, [])
    code, text = hudur("parity", "--all", "--store", store)
    assert (code, f"{SCHOOL}: 0 of 4 weeks" in text, "1 schools with paper" in text) == (0, True, True)


def test_a_verdict_that_was_altered_is_found(store: str, tmp_path: Path) -> None:
    """In a copy of the store."""
    copy = tmp_path / "copy.db"
    shutil.copy(store.partition(":")[2], copy)
    with sqlite3.connect(copy) as db:
        db.execute("UPDATE parity_weeks SET status = 'passed'")
    db.close()
    code, text = hudur("parity", "--all", "--again", "--store", f"sqlite:{copy}")
    assert code == 3
    assert "1 weeks differ" in text


def test_the_gate_says_what_is_missing(store: str) -> None:
    """And an unknown school is told in words."""
    code, text = hudur("gate", SCHOOL, "--store", store)
    assert (code, "97.0% of 200, 98.0% needed" in text) == (0, True)
    assert json.loads(hudur("gate", SCHOOL, "--store", store, "--json")[1])["missing"] == 4
    code, text = hudur("gate", OTHER_SCHOOL, "--store", store)
    assert (code, "no paper has been entered yet" in text) == (0, True)
    code, text = hudur("gate", "nowhere", "--store", store)
    assert (code, "no such school" in text) == (1, True)


@pytest.mark.parametrize("args", [[], ["--all", SCHOOL], ["--again"], ["--due", "--all"], ["--all", "--week", WEEK]])
def test_parity_wants_one_question(args: list[str], store: str) -> None:
    """Usage errors are told before anything is done."""
    assert hudur("parity", *args, "--store", store)[0] == 2


def test_judging_what_is_due_can_be_asked_for_and_chooses_nothing(store: str, tmp_path: Path) -> None:
    """A second time on the same day nothing is looked at."""
    copy = tmp_path / "copy.db"
    shutil.copy(store.partition(":")[2], copy)
    for _ in range(2):
        code, text = hudur("parity", "--due", "--store", f"sqlite:{copy}")
        assert code == 0
    assert text.startswith("0 schools looked at")


def test_paper_is_typed_brought_in_and_listed(tmp_path: Path) -> None:
    """By the operator's own commands."""
    path = tmp_path / "store.db"

    async def make() -> None:
        async with open_world(path, background=False):
            pass

    asyncio.run(make())
    flags = ("--store", f"sqlite:{path}")
    day = "2026-11-22"
    sheet = ("paper", "enter", f"{SCHOOL}/c-3a/{day}/day", "--signed-by", "t1")
    code, text = hudur(*sheet, "--absent", "s001, s002", "--late", "s003", *flags)
    assert (code, "entered, 3 named" in text) == (0, True)
    assert hudur(*sheet, "--absent", "s001", "--late", "s001", *flags)[0] == 2
    code, text = hudur(*sheet, "--absent", "zz9", *flags)
    assert (code, "zz9 is not on" in text) == (1, True)
    code, text = hudur("paper", "list", SCHOOL, "--week", day, *flags)
    assert (code, "s001 absent" in text, "counts" in text) == (0, True, True)
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text(f"{HEAD}{SCHOOL},c-3a,2026-11-19,day,class_book,principal,,\n")
    bad.write_text(f"{HEAD}{SCHOOL},c-3a,2026-11-19,day,diary,principal,,\n")
    assert hudur("paper", "import", good, "--dry-run", *flags)[0] == 0
    code, text = hudur("paper", "import", good, *flags)
    assert (code, "applied: 1 lines, 1 sheets, 1 added" in text) == (0, True)
    code, text = hudur("paper", "import", bad, *flags)
    assert (code, "bad-document" in text) == (3, True)
    code, text = hudur("paper", "rule", "--document", "class_book", "--two-person", "--reason", "trial", *flags)
    assert (code, "class_book" in text) == (0, True)

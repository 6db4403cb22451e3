"""`hudur roster`: what people see and the exit codes scripts rely on."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from rich.console import Console

from syncserver import cli_roster, oneroster, roster
from syncserver.cli_roster import EXIT_ERRORS
from tests.support.rosters import Export


def run(*args: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(cli_roster.roster, [str(arg) for arg in args], catch_exceptions=False)
    return result.exit_code, result.output


def test_generate_writes_the_same_zip_for_the_same_seed(tmp_path: Path) -> None:
    """Same seed, same bytes; another seed, other people; and the reader takes what was written."""
    files = [tmp_path / name for name in ("a.zip", "b.zip", "c.zip")]
    for file, seed in zip(files, ("4", "4", "5"), strict=True):
        days = ("--first-day", "2026-09-19", "--until-day", "2027-06-11")
        assert run("generate", file, "--schools", "1", "--seed", seed, *days)[0] == 0
    first, second, third = (file.read_bytes() for file in files)
    assert first == second != third
    assert oneroster.read(io.BytesIO(first)).errors == ()


def test_an_impossible_school_year_is_refused(tmp_path: Path) -> None:
    """The end before the beginning: usage error, no file."""
    code, _ = run("generate", tmp_path / "a.zip", "--first-day", "2027-01-01", "--until-day", "2026-01-01")
    assert (code, (tmp_path / "a.zip").exists()) == (2, False)


def shown(report: dict[str, object]) -> str:
    out = io.StringIO()
    cli_roster.show(report, Console(file=out, width=200))
    return out.getvalue()


def test_errors_are_shown_row_by_row_in_two_languages() -> None:
    """File, line, column, what was found and what to do; what stands in the file cannot style the terminal."""
    export = Export()
    export.row("users.csv", "p2")["enabledUser"] = "[red]maybe[/red]"
    incoming = oneroster.read(io.BytesIO(export.zip()))
    text = shown(roster.report(incoming, None, applied=False, dry_run=False))
    for part in ("users.csv:3 enabledUser", "[red]maybe[/red]", "The value must be true or false.", "القيمة إما"):
        assert part in text
    assert "users.csv:email" in text


@pytest.mark.parametrize("as_json", [False, True])
def test_import_through_the_operator_door(tmp_path: Path, as_json: bool) -> None:
    """Applied, then a dry run, then a bad export: exit codes 0, 0 and 3."""
    store = f"sqlite:{tmp_path / 'hudur.db'}"
    flags = ["--store", store, *(["--json"] if as_json else [])]
    good, bad = tmp_path / "good.zip", tmp_path / "bad.zip"
    good.write_bytes(Export().zip())
    export = Export()
    export.row("roles.csv", "r1")["role"] = "pupil"
    bad.write_bytes(export.zip())
    code, text = run("import", good, *flags)
    assert code == 0
    if as_json:
        assert json.loads(text)["state"] == "applied"
    assert run("import", good, "--dry-run", *flags)[0] == 0
    code, text = run("import", bad, *flags)
    assert code == EXIT_ERRORS
    assert "roles.csv" in text

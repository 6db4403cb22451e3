"""House rules that a reader should never have to check by hand."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import LONGEST, TESTS

ROOT = Path(__file__).parents[2]
FUNCTION_LINES_MAX = 70
MODULE_LINES_MAX = 500
LEFTOVERS = re.compile(r"\b(?:TOD[O]|FIXM[E]|XX[X]|HAC[K])\b")  # spelt so that this line does not match itself
POSSESSIVE = re.compile(r"[?*}]\+")
TEST_SLEEP = re.compile(r"\b(time\.sleep|asyncio\.sleep)\((?!0\))")  # sleep(0) only lets others run


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


@pytest.mark.parametrize("path", tracked("*.py"), ids=name)
def test_functions_fit_on_a_screen(path: Path) -> None:
    """No function is longer than the wall."""
    too_long = [(function, lines) for function, lines in functions(path) if lines > FUNCTION_LINES_MAX]
    assert not too_long


@pytest.mark.parametrize("path", tracked("*.py", "pwa/src/*.ts"), ids=name)
def test_a_module_is_one_idea(path: Path) -> None:
    """No module is longer than the wall, and none carries leftovers."""
    text = path.read_text()
    assert len(text.splitlines()) <= MODULE_LINES_MAX
    assert not LEFTOVERS.search(text)


@pytest.mark.parametrize("path", tracked("tests/*test_*.py", "tests/*conftest.py"), ids=name)
def test_tests_never_sleep(path: Path) -> None:
    """Tests wait for conditions or move a clock; they never sleep."""
    if path != Path(__file__):
        assert not TEST_SLEEP.search(path.read_text())


@pytest.mark.parametrize("path", tracked("clientcore/*.py", "reconciliation/*.py", "syncserver/*.py"), ids=name)
def test_no_possessive_quantifiers(path: Path) -> None:
    """CPython 3.11.2, which Debian 12 has, matches them wrongly: a bad mark was admitted there."""
    strings = [n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant)]
    assert not [text for text in strings if isinstance(text, str) and POSSESSIVE.search(text)]


@pytest.mark.parametrize("path", tracked("syncserver/*.py"), ids=name)
def test_middleware_is_plain_asgi(path: Path) -> None:
    """BaseHTTPMiddleware and threads hide suspension points that the simulator must see."""
    text = path.read_text()
    assert "BaseHTTPMiddleware" not in text
    assert "to_thread" not in text


def test_the_files_that_run_first_are_there() -> None:
    """A file that was moved must not quietly fall back among the others."""
    assert [file for file in LONGEST if not (TESTS / file).is_file()] == []

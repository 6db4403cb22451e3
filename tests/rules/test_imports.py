"""Imports go one way: clientcore <- reconciliation <- syncserver, and libraries have one door each."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("clientcore", "reconciliation", "syncserver")
MAY_IMPORT = {"clientcore": set(), "reconciliation": {"clientcore"}, "syncserver": {"clientcore", "reconciliation"}}

PURE_WORDS = {
    "register",
    "change",
    "history",
    "frame",
    "exchange",
    "wire",
    "keys",
    "limits",
    "ports",
    "errors",
    "leb128",
    "frozen",
}
RULES_MAY_USE = {"register", "change", "history", "frame", "frozen", "limits", "errors"}
ONE_DOOR = {
    "msgpack": {"clientcore/wire.py"},
    "automerge": {"syncserver/prove.py", "syncserver/prove_worker.py"},
    "sqlite_utils": {"clientcore/log.py", "clientcore/cache.py"},
    "aiosqlite": {"syncserver/store/sqlite.py", "syncserver/store/connector.py"},
    "asyncpg": {f"syncserver/store/postgres{part}.py" for part in ("", "_claims", "_reader", "_schema", "_session")}
    | {"syncserver/store/replica.py"},
}
# The one command `hudur` gathers both sides; everything else of the server stays away from the device's shell.
GATHERS = {"syncserver/cli.py"}


def sources() -> Iterator[Path]:
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module in PACKAGES)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", list(sources()), ids=name)
def test_imports_go_one_way(path: Path) -> None:
    """No package imports one that stands further down the road, and the rules and the server keep to the pure words."""
    package = name(path).split("/")[0]
    for module in imported(path):
        parts = module.split(".")
        if parts[0] not in PACKAGES or parts[0] == package:
            continue
        assert parts[0] in MAY_IMPORT[package], f"{name(path)} imports {module}"
        if parts[0] == "clientcore" and len(parts) > 1 and name(path) not in GATHERS:
            allowed = RULES_MAY_USE if package == "reconciliation" else PURE_WORDS
            assert parts[1] in allowed, f"{name(path)} imports {module}"


@pytest.mark.parametrize("library", sorted(ONE_DOOR))
def test_a_library_has_one_door(library: str) -> None:
    """Only the named files import a library that the design keeps behind one door."""
    users = {name(path) for path in sources() for module in imported(path) if module.split(".")[0] == library}
    assert users <= ONE_DOOR[library]


def test_the_rule_can_fail() -> None:
    """The check sees an import inside a function and one of a submodule (it would catch a breach)."""
    tree = ROOT / "tests" / "rules" / "_breach.py"
    tree.write_text("def f() -> None:\n    from clientcore import log\n    import msgpack\n")
    try:
        assert {"clientcore", "clientcore.log", "msgpack"} <= set(imported(tree))
    finally:
        tree.unlink()

"""`hudur profiles`, `hudur simulate`: the laboratory's commands.

The laboratory stands beside the product, not in it (docs/decisions/0015): these two need a checkout and its development
dependencies, and say so where they are missing. The product imports nothing of it until one of them is typed.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
_MARK = Path("tests") / "simulator" / "cli.py"


NOT_A_CHECKOUT = (
    "the laboratory is not part of the installed package: take a checkout of the repository, run `make setup` there,"
    " and use its .venv/bin/hudur"
)


def _instead(name: str, why: str) -> click.Command:
    """Stands for a command that cannot be loaded: whatever is asked of it, it says why."""

    @click.command(name, help=why, context_settings={"ignore_unknown_options": True})
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def tell(words: tuple[str, ...]) -> None:
        raise click.ClickException(f"`hudur {' '.join([name, *words])}`: {why}")

    return tell


def load(module: str, name: str, root: Path = ROOT) -> click.Command:
    """A command of the laboratory, or one that says what is missing."""
    if not (root / _MARK).is_file():
        return _instead(name, NOT_A_CHECKOUT)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    try:
        command: click.Command = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.split(".")[0] == "tests":
            raise
        needed = f"the laboratory needs {missing.name}: run `make setup` (pip install --group dev) in {root}"
        return _instead(name, needed)
    return command


def __getattr__(name: str) -> click.Command:
    """`simulate` and `profiles`, made when the command line asks for them."""
    if name == "simulate":
        return load("tests.simulator.cli", name)
    if name == "profiles":
        return load("tests.weaknet.cli", name)
    raise AttributeError(name)

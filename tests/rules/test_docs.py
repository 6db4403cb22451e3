"""Docs are tested: what crosses the wire or is typed by a person must be written down."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from syncserver.cli import main

ROOT = Path(__file__).parents[2]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text() + (ROOT / "README.md").read_text()
SLUG = re.compile(
    r'(?:ChangeRefused|FrameRefused|Verdict|problem|Refusal)\(\s*(?:HELD,\s*|REFUSED,\s*)?"([a-z]+(?:-[a-z]+)+)"'
)


def slugs() -> set[str]:
    found: set[str] = set()
    for package in ("clientcore", "syncserver", "reconciliation"):
        for path in (ROOT / package).rglob("*.py"):
            found |= set(SLUG.findall(path.read_text()))
    return found


def commands(group: click.Group, prefix: str = "hudur") -> list[str]:
    found: list[str] = []
    for name, command in sorted(group.commands.items()):
        full = f"{prefix} {name}"
        found += commands(command, full) if isinstance(command, click.Group) else [full]
    return found


def test_every_slug_of_the_wire_is_in_the_protocol() -> None:
    """A client can be written from docs/protocol.md alone: each refusal's slug is there."""
    known = slugs()
    assert len(known) > 10
    assert sorted(slug for slug in known if f"`{slug}`" not in PROTOCOL) == []


@pytest.mark.parametrize("command", commands(main))
def test_every_command_is_documented(command: str) -> None:
    """Each command stands in docs/operations.md or the README."""
    assert command in OPERATIONS


def test_relative_links_lead_somewhere() -> None:
    """No page of ours links to a file that is not there."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"

"""The examples of docs/rules.md and of the pages under docs/rules/ are true."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"
PAGES = [DOCS / "rules.md", *sorted((DOCS / "rules").glob("*.md"))]


def run(text: str, page: Path) -> doctest.TestResults:
    """Run all ```python examples of a page as one conversation, with the page's own line numbers."""
    shown = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    examples = [
        example
        for block in shown.finditer(text)
        for example in doctest.DocTestParser().get_examples(block[1], name=page.name)
    ]
    return doctest.DocTestRunner(verbose=False).run(doctest.DocTest(examples, {}, page.name, str(page), 0, None))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_the_rules_pages_are_true(page: Path) -> None:
    """Every example runs and prints what the page says."""
    results = run(page.read_text(encoding="utf-8"), page)
    assert results.attempted > 3
    assert results.failed == 0


def test_a_false_example_would_be_seen() -> None:
    """The check can fail."""
    assert run("```python\n>>> 1 + 1\n3\n\n```\n", PAGES[0]).failed == 1

"""The examples of docs/rules.md are true."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

PAGE = Path(__file__).parents[3] / "docs" / "rules.md"


def run(text: str) -> doctest.TestResults:
    """Run all ```python examples of a page as one conversation, with the page's own line numbers."""
    shown = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    examples = [
        example
        for block in shown.finditer(text)
        for example in doctest.DocTestParser().get_examples(block[1], name="rules.md")
    ]
    return doctest.DocTestRunner(verbose=False).run(doctest.DocTest(examples, {}, "rules.md", str(PAGE), 0, None))


def test_the_examples_of_the_rules_page_are_true() -> None:
    """Every example runs and prints what the page says."""
    results = run(PAGE.read_text(encoding="utf-8"))
    assert results.attempted > 20
    assert results.failed == 0


def test_a_false_example_would_be_seen() -> None:
    """The check can fail."""
    assert run("```python\n>>> 1 + 1\n3\n\n```\n").failed == 1

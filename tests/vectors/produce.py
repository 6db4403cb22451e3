"""Writes the vectors: `python -m tests.vectors.produce`; with `--check` it only compares and fails on a difference.

Deterministic: fixed keys, fixed times, signatures by RFC 6979.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.vectors.cases import answers, changes, frames, histories, keys, refused, wire

HERE = Path(__file__).parent
FILES: dict[str, Callable[[], Any]] = {
    "changes.json": changes.produce,
    "histories.json": histories.produce,
    "refused_chunks.json": refused.produce,
    "frames.json": frames.produce,
    "wire.json": wire.produce,
    "keys.json": keys.produce,
    "answers.json": answers.produce,
}


def text_of(name: str) -> str:
    """The file's text as it must be."""
    return json.dumps(FILES[name](), ensure_ascii=False, indent=1) + "\n"


def differing() -> list[str]:
    """Names of the files that are not what the code produces."""
    return [name for name in FILES if not (HERE / name).exists() or (HERE / name).read_text("utf-8") != text_of(name)]


def main() -> int:
    """Write or compare all files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on a difference")
    if parser.parse_args().check:
        wrong = differing()
        sys.stdout.write("".join(f"differs: {name}\n" for name in wrong) or "all vectors are up to date\n")
        return 1 if wrong else 0
    for name in FILES:
        (HERE / name).write_text(text_of(name), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Reading somebody else's JSON: every field is asked for by name and kind, and what nobody asks for is only counted.

A field that is missing, renamed or of another kind gives one `ContractBroken` that names endpoint, place and what
stands there by the agreement. Values are never quoted: they may be names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from clientcore.register import is_date, is_id
from syncserver.upstream.port import ContractBroken

_LINE_BREAK = re.compile("[\x00\r\n]")
_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
# Says nothing of a person, so that dropping it is not worth a line in the report.
UNCOUNTED = frozenset(("sourcedId", "status", "dateLastModified", "href", "type"))
TEXT_CHARS_MAX = 4_000


@dataclass(slots=True)
class Seen:
    """What a whole answer held: fields we took that were filled, and values that stayed outside."""

    used: set[str] = field(default_factory=set)
    dropped: Counter[str] = field(default_factory=Counter)


def kind_of(value: object) -> str:
    """What was found, without saying it."""
    return "nothing" if value is None else _KINDS.get(type(value), "something else")


class Item:
    """One object of an answer.

    Args:
        endpoint: For errors.
        place: Where in the answer, for errors, e.g. `[3]`.
        value: What stands there.
        seen: Where it is noted what was used and what was not.
        path: The name of this object in those notes; empty at the top.
    """

    def __init__(self, endpoint: str, place: str, value: object, seen: Seen, path: str = "") -> None:
        if not isinstance(value, dict):
            raise ContractBroken(endpoint, place, "an object", kind_of(value))
        self._endpoint, self._place, self._data, self._seen, self._path = endpoint, place, value, seen, path
        self._asked: set[str] = set()

    def wrong(self, name: str, expected: str) -> ContractBroken:
        """The fault of a field."""
        return ContractBroken(self._endpoint, f"{self._place}.{name}", expected, kind_of(self._data.get(name)))

    def _take(self, name: str) -> Any:
        self._asked.add(name)
        value = self._data.get(name)
        if value not in (None, "", []):
            self._seen.used.add(f"{self._path}{name}")
        return value

    def text(self, name: str) -> str:
        """Text on one line that must be there."""
        value = self._take(name)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(name, "text")
        return self._line(name, value)

    def maybe(self, name: str) -> str:
        """Text on one line, or empty where there is none."""
        value = self._take(name)
        if value is not None and not isinstance(value, str):
            raise self.wrong(name, "text or nothing")
        return self._line(name, value or "")

    def _line(self, name: str, value: str) -> str:
        if len(value) > TEXT_CHARS_MAX or _LINE_BREAK.search(value):
            raise self.wrong(name, f"text on one line, at most {TEXT_CHARS_MAX} characters")
        return value

    def word(self, name: str, words: frozenset[str]) -> str:
        """One of some words."""
        value = self._take(name)
        if not isinstance(value, str) or value not in words:
            raise ContractBroken(
                self._endpoint,
                f"{self._place}.{name}",
                f"one of {', '.join(sorted(words))}",
                "another word" if isinstance(value, str) else kind_of(value),
            )
        return value

    def id(self, name: str) -> str:
        """An id as it may stand in a register's name."""
        value = self._take(name)
        if not isinstance(value, str) or not is_id(value):
            raise self.wrong(name, "an id: 1 to 36 letters, digits, . _ -")
        return value

    def flag(self, name: str) -> bool:
        """True or false; OneRoster writes it as a word, some systems as a JSON value."""
        value = self._take(name)
        if value in ("true", "false"):
            return bool(value == "true")
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def count(self, name: str) -> int:
        """A whole number that is not negative."""
        value = self._take(name)
        if type(value) is not int or value < 0:
            raise self.wrong(name, "a whole number")
        return value

    def date(self, name: str) -> str:
        """A civil date, or empty where there is none."""
        value = self._take(name)
        if value not in (None, "") and not (isinstance(value, str) and is_date(value)):
            raise self.wrong(name, "a date YYYY-MM-DD or nothing")
        return value or ""

    def moment(self, name: str) -> int:
        """A moment (ISO 8601 with its offset from UTC), in milliseconds."""
        value = self._take(name)
        try:
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is None:
                raise ValueError
            return int(moment.astimezone(UTC).timestamp() * 1000)
        except (ValueError, TypeError, OverflowError):
            raise self.wrong(name, "a moment in ISO 8601 with an offset") from None

    def ref(self, name: str) -> str:
        """The `sourcedId` of what a field leads to."""
        return self.one(name).closed_text("sourcedId")

    def closed_text(self, name: str) -> str:
        """`text` of an object of which nothing else is asked."""
        value = self.text(name)
        self.close()
        return value

    def one(self, name: str) -> Item:
        """An object inside this one."""
        return Item(self._endpoint, f"{self._place}.{name}", self._take(name), self._seen, f"{self._path}{name}.")

    def many(self, name: str) -> list[Item]:
        """A list of objects."""
        value = self._take(name)
        if not isinstance(value, list):
            raise self.wrong(name, "a list")
        return [
            Item(self._endpoint, f"{self._place}.{name}[{at}]", one, self._seen, f"{self._path}{name}.")
            for at, one in enumerate(value)
        ]

    def refs(self, name: str) -> list[str]:
        """The `sourcedId`s of a list; it may be left out."""
        if self._take(name) is None:
            return []
        return [one.closed_text("sourcedId") for one in self.many(name)]

    def texts(self, name: str) -> list[str]:
        """A list of texts, or empty where there is none."""
        value = self._take(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            raise self.wrong(name, "a list of texts or nothing")
        return [self._line(name, one) for one in value or []]

    def close(self) -> None:
        """Count what was not asked for. To be called when everything wanted was taken."""
        for name, value in self._data.items():
            if name not in self._asked and name not in UNCOUNTED and value not in (None, "", [], {}):
                self._seen.dropped[f"{self._endpoint}.{self._path}{name[:60]}"] += 1


def items_of(endpoint: str, name: str, answer: object, seen: Seen, first: int = 0) -> list[Item]:
    """The objects of a collection `{name: [...]}`.

    Args:
        endpoint: For errors.
        name: Key of the collection.
        answer: The JSON value.
        seen: See `Seen`.
        first: Place of the first object in the whole collection.
    """
    if not isinstance(answer, Mapping) or not isinstance(answer.get(name), list):
        found = kind_of(answer.get(name)) if isinstance(answer, Mapping) else kind_of(answer)
        raise ContractBroken(endpoint, f".{name}", "a list", found)
    return [Item(endpoint, f"[{at}]", one, seen) for at, one in enumerate(answer[name], first)]

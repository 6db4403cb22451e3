"""Plain JSON taken apart strictly: every key is taken exactly once, and a refusal names its JSON pointer. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from tests.weaknet.errors import ProfileRefused

T = TypeVar("T")

_HM = re.compile(r"(?:(?:[01]\d|2[0-3]):[0-5]\d|24:00)")


def refusal(pointer: str, why: str) -> ProfileRefused:
    return ProfileRefused("bad-profile", f"{pointer or '/'}: {why}")


class StrictObject:
    """A JSON object being read: every key must be taken exactly once."""

    def __init__(self, plain: object, pointer: str) -> None:
        if not isinstance(plain, Mapping):
            raise refusal(pointer, "an object is expected")
        self._left: dict[str, Any] = dict(plain)
        self.pointer = pointer

    def has(self, key: str) -> bool:
        return key in self._left

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(self._left)

    def at(self, key: str) -> str:
        return f"{self.pointer}/{key}"

    def take(self, key: str, kind: type[T]) -> T:
        if key not in self._left:
            raise refusal(self.at(key), "missing")
        value = self._left.pop(key)
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise refusal(self.at(key), f"{kind.__name__} is expected")
        return value

    def end(self) -> None:
        if self._left:
            raise refusal(self.at(next(iter(self._left))), "unknown key")

    def number(self, key: str, low: float, high: float, default: float | None = None) -> float:
        if default is not None and key not in self._left:
            return default
        value = self.take(key, object)
        return as_number(value, self.at(key), low, high)

    def chance(self, key: str, default: float | None = None) -> float:
        return self.number(key, 0, 1, default)

    def whole(self, key: str, low: int, high: int) -> int:
        value = self.take(key, int)
        if not low <= value <= high:
            raise refusal(self.at(key), f"from {low} to {high} is expected")
        return value

    def text(self, key: str, shape: re.Pattern[str]) -> str:
        value = self.take(key, str)
        if not shape.fullmatch(value):
            raise refusal(self.at(key), f"{value!r} does not match {shape.pattern}")
        return value

    def word(self, key: str, *words: str) -> str:
        value = self.take(key, str)
        if value not in words:
            raise refusal(self.at(key), f"one of {', '.join(words)} is expected")
        return value

    def minute(self, key: str) -> int:
        return as_minute(self.take(key, str), self.at(key))

    def object(self, key: str) -> StrictObject:
        return StrictObject(self.take(key, object), self.at(key))

    def maybe(self, key: str, read: Callable[[StrictObject], T]) -> T | None:
        return read(self.object(key)) if key in self._left else None

    def items(self, key: str, read: Callable[[StrictObject], T], *, needed: bool = True) -> tuple[T, ...]:
        if not needed and key not in self._left:
            return ()
        plain = self.take(key, list)
        return tuple(read(StrictObject(one, f"{self.at(key)}/{place}")) for place, one in enumerate(plain))

    def words(self, key: str) -> tuple[str, ...]:
        plain = self.take(key, list)
        if not all(isinstance(one, str) for one in plain):
            raise refusal(self.at(key), "a list of texts is expected")
        return tuple(plain)


def as_number(value: object, pointer: str, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise refusal(pointer, f"a number from {low:g} to {high:g} is expected")
    return float(value)


def as_minute(value: object, pointer: str) -> int:
    if not isinstance(value, str) or not _HM.fullmatch(value):
        raise refusal(pointer, "a time HH:MM is expected")
    hours, minutes = value.split(":")
    return int(hours) * 60 + int(minutes)

"""Many frozen values at once, column by column. Pure.

The constructor of a frozen dataclass with slots sets its fields one by one, through a guard; for the marks of a whole
register, filling the slots a column at a time takes a third of the time. For hot roads whose columns are known to be
right: nothing here is checked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import repeat
from typing import Any, TypeVar

T = TypeVar("T")


def frozen_rows(kind: type[T], count: int, **columns: Iterable[Any]) -> list[T]:
    """`count` values of a dataclass with slots and without a `__post_init__`.

    Args:
        kind: The class.
        count: How many.
        columns: For every field its values, at least `count` of them (`itertools.repeat` for a constant).
    """
    made = list(map(kind.__new__, repeat(kind, count)))
    slots: Any = kind.__dict__
    for name, column in columns.items():
        deque(map(slots[name].__set__, made, column), maxlen=0)  # runs the map, keeps nothing
    return made

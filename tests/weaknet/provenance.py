"""A profile as plain JSON: where each of its numbers comes from, and how its file is written. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.weaknet.errors import ProfileRefused
from tests.weaknet.profile import KINDS, Kind

_LINE = 118


def numbers(plain: Any, pointer: str = "") -> Iterator[str]:
    """JSON pointers of all numeric leaves, `basis` left out."""
    if isinstance(plain, Mapping):
        for key, value in plain.items():
            if pointer or key != "basis":
                yield from numbers(value, f"{pointer}/{key}")
    elif isinstance(plain, list):
        for place, value in enumerate(plain):
            yield from numbers(value, f"{pointer}/{place}")
    elif isinstance(plain, int | float) and not isinstance(plain, bool):
        yield pointer


def basis_of(pointer: str, basis: Mapping[str, Any]) -> str | None:
    """The longest `basis` prefix a pointer lies under, or None."""
    under = [prefix for prefix in basis if pointer == prefix or pointer.startswith(prefix + "/")]
    return max(under, key=len, default=None)


def count_kinds(plain: Mapping[str, Any]) -> dict[Kind, int]:
    """How many of a profile's numbers are measured, derived and assumed.

    Raises:
        ProfileRefused: `no-basis` for the first number that lies under no `basis` prefix.
    """
    counts: dict[Kind, int] = dict.fromkeys(KINDS, 0)
    basis = plain["basis"]
    for pointer in numbers(plain):
        prefix = basis_of(pointer, basis)
        if prefix is None:
            raise ProfileRefused("no-basis", f"{plain.get('id')}: the number at {pointer} names no source")
        counts[basis[prefix]["kind"]] += 1
    return counts


def written(plain: Mapping[str, Any]) -> str:
    """A profile as the text of its file: what fits on a line stands on one."""
    return _lines(plain, 0, _LINE) + "\n"


def _lines(plain: Any, depth: int, room: int) -> str:
    flat = json.dumps(plain, ensure_ascii=False)
    if len(flat) + depth <= room or not isinstance(plain, Mapping | list) or not plain:
        return flat
    pad = " " * (depth + 1)
    if isinstance(plain, Mapping):
        heads = {key: f"{json.dumps(key, ensure_ascii=False)}: " for key in plain}
        parts = [f"{pad}{heads[key]}{_lines(one, depth + 1, room - len(heads[key]))}" for key, one in plain.items()]
    else:
        parts = [pad + _lines(one, depth + 1, room) for one in plain]
    first, last = ("{", "}") if isinstance(plain, Mapping) else ("[", "]")
    return f"{first}\n" + ",\n".join(parts) + f"\n{' ' * depth}{last}"

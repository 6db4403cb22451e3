"""The schools of a simulated world: who is there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class School:
    """One school: teachers with a class each, a champion, pupils.

    Attributes:
        classes: Class id to the ids of its teachers (the first is its own, the second stands in).
        pupils: Class id to pupil ids.
    """

    id: str
    teachers: tuple[str, ...]
    champion: str
    classes: dict[str, tuple[str, ...]]
    pupils: dict[str, tuple[str, ...]]

    def classes_of(self, user_id: str) -> tuple[str, ...]:
        """Classes somebody may mark, their own first."""
        own = [one for one, teachers in self.classes.items() if teachers[0] == user_id]
        other = [one for one, teachers in self.classes.items() if user_id in teachers[1:]]
        return (*own, *other)


def make_school(number: int, *, teachers: int, pupils: int) -> School:
    """A school of `teachers` classes with `pupils` pupils each; every other class has a second teacher."""
    name = f"s{number}"
    people = tuple(f"{name}-t{n}" for n in range(1, teachers + 1))
    return School(
        id=name,
        teachers=people,
        champion=f"{name}-ch",
        classes={
            f"{name}-c{n}": tuple(dict.fromkeys((people[n - 1], people[n % teachers] if n % 2 else people[n - 1])))
            for n in range(1, teachers + 1)
        },
        pupils={
            f"{name}-c{n}": tuple(f"{name}-p{n}-{m:02d}" for m in range(1, pupils + 1)) for n in range(1, teachers + 1)
        },
    )

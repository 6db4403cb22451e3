"""The schools of a simulated world: who is there, and what the store knows of them before the first day."""

from __future__ import annotations

from dataclasses import dataclass

from syncserver.store.port import Database


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
    """A school of `teachers` classes with `pupils` pupils each; every class has a second teacher where there are two."""
    people = tuple(f"t{n}" for n in range(1, teachers + 1))
    return School(
        id=f"s{number}",
        teachers=people,
        champion="ch",
        classes={
            f"c{n}": tuple(dict.fromkeys((people[n - 1], people[n % teachers]))) for n in range(1, teachers + 1)
        },
        pupils={f"c{n}": tuple(f"p{n}-{m:02d}" for m in range(1, pupils + 1)) for n in range(1, teachers + 1)},
    )


async def store_school(db: Database, school: School, *, since: str) -> None:
    """What upstream has told of a school, as of the civil date `since`."""
    people = [(one, "teacher") for one in school.teachers] + [(school.champion, "champion")]
    people += [(pupil, "pupil") for pupils in school.pupils.values() for pupil in pupils]
    members = [
        (class_id, user_id, role, place)
        for class_id in school.classes
        for role, users in (("teacher", school.classes[class_id]), ("pupil", school.pupils[class_id]))
        for place, user_id in enumerate(users)
    ]
    async with db.transaction() as tx:
        await tx.execute("INSERT INTO schools VALUES (?, ?, ?, 1, 1, NULL)", (school.id, f"School {school.id}", "day"))
        await tx.executemany(
            "INSERT INTO users VALUES (?, ?, ?, ?, NULL, NULL, 1, NULL)",
            [(school.id, one, one.upper(), role) for one, role in people],
        )
        await tx.executemany(
            "INSERT INTO classes VALUES (?, ?, ?, '3', 1, 1, NULL)",
            [(school.id, class_id, class_id.upper()) for class_id in school.classes],
        )
        await tx.executemany(
            "INSERT INTO members VALUES (?, ?, ?, ?, 1, ?, NULL, ?, 1, NULL)",
            [(school.id, class_id, user_id, role, since, place) for class_id, user_id, role, place in members],
        )

"""Made-up Egyptian schools from a seed: the same seed gives the same schools, to the byte of their export. Pure.

Ids are short because they travel: pupils `s101007` (school 101, the seventh), staff `t101003`, classes `101-3a`,
schools `eg-mn-101`. `rosterwrite` makes the zip.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from clientcore.errors import BadInput
from syncserver import rosternames as names
from syncserver.oneroster import grade_name
from syncserver.rostermodel import Enrolment, Role, School, SchoolClass, Term, User

CLASS_PUPILS_MIN, CLASS_PUPILS_MAX = 35, 48  # sizes of government schools; one class a school has exactly 40
CLASS_PUPILS_EXACT = 40
FIRST_NUMBER = 101
SCHOOLS_MAX = 2_000
LETTERS = (("a", "أ"), ("b", "ب"), ("c", "ج"), ("d", "د"))
DIGITS = "٠١٢٣٤٥٦٧٨٩"
STAGES = (("الإعدادية", 7, 3), ("الابتدائية", 1, 6), ("الثانوية", 10, 3))  # word, first CEDS grade, years
KINDS = (("بنات", ("girl",)), ("بنين", ("boy",)), ("المشتركة", ("boy", "girl")))
GUARDIAN_SHARE = 0.1
COPTIC_SHARE = 0.1
NICKNAME_SHARE = 0.1
TRANSFERS_PER_CLASS_MAX = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One generated person with everything an upstream system would know; only id, name and role may arrive here."""

    person_id: str
    given: str
    father: str
    family: str
    preferred: str
    gender: str
    born: str

    @property
    def display_name(self) -> str:
        """The name that must come out of the import."""
        return f"{self.preferred or self.given} {self.father} {self.family}"


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedClass:
    """A class with its pupils in roll order and its teachers, tutor first."""

    class_id: str
    title: str
    grade_code: str
    pupils: tuple[Person, ...]
    teachers: tuple[Person, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedSchool:
    """A school: its coordinator and principal are champions."""

    school: str
    name: str
    classes: tuple[GeneratedClass, ...]
    coordinator: Person
    principal: Person
    guardians: tuple[Person, ...]

    @property
    def teachers(self) -> tuple[Person, ...]:
        """Every teacher once, by id."""
        known = {teacher.person_id: teacher for one in self.classes for teacher in one.teachers}
        return tuple(known[key] for key in sorted(known))


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedRoster:
    """Schools of one school year with two terms; `until_day` is the first day after it."""

    schools: tuple[GeneratedSchool, ...]
    first_day: str
    middle_day: str
    until_day: str

    def terms(self) -> tuple[Term, ...]:
        """The terms that must come out of the import."""
        return (
            Term(term_id="term-1", from_date=self.first_day, until_date=self.middle_day),
            Term(term_id="term-2", from_date=self.middle_day, until_date=self.until_day),
        )

    def orgs(self) -> tuple[School, ...]:
        """The schools that must come out of the import."""
        return tuple(School(school=one.school, name=one.name) for one in self.schools)

    def users(self) -> tuple[User, ...]:
        """The people that must come out of the import, guardians not among them."""
        return tuple(
            User(school=one.school, user_id=person.person_id, name=person.display_name, role=role)
            for one in self.schools
            for person, role in people_of(one)
        )

    def classes(self) -> tuple[SchoolClass, ...]:
        """The classes that must come out of the import."""
        return tuple(
            SchoolClass(school=one.school, class_id=part.class_id, name=part.title, grade=grade_name(part.grade_code))
            for one in self.schools
            for part in one.classes
        )

    def enrolments(self) -> tuple[Enrolment, ...]:
        """The stays in classes that must come out of the import, in the order of the file."""
        return tuple(
            Enrolment(
                school=one.school,
                class_id=part.class_id,
                user_id=person.person_id,
                role=role,
                from_date=self.first_day,
                until_date=self.until_day,
                roll=roll,
            )
            for one in self.schools
            for part in one.classes
            for person, role, roll in members_of(part)
        )


def generate(*, schools: int, seed: int, first_day: str, until_day: str) -> GeneratedRoster:
    """Make `schools` schools for the school year `[first_day, until_day)`.

    Raises:
        BadInput: `bad-number` outside 1 to `SCHOOLS_MAX` schools, `bad-dates` for a year of less than two days.
    """
    if not 1 <= schools <= SCHOOLS_MAX:
        raise BadInput("bad-number", f"1 to {SCHOOLS_MAX} schools, not {schools}")
    first, until = date.fromisoformat(first_day), date.fromisoformat(until_day)
    if until - first < timedelta(days=2):
        raise BadInput("bad-dates", f"the school year must have two days at least: {first_day} to {until_day}")
    chance = random.Random(f"hudur roster {seed}")
    return GeneratedRoster(
        schools=tuple(_school(chance, index, first) for index in range(schools)),
        first_day=first_day,
        middle_day=(first + (until - first) / 2).isoformat(),
        until_day=until_day,
    )


def school_year(today: date) -> tuple[str, str]:
    """First day and first day after, of a generated school year that holds `today`, the month before and the one after.

    Real years run from mid September to June; a trial must work on every day, so ours leaves no gap.
    """
    started = today.year if today.month >= 9 else today.year - 1
    return f"{started}-08-01", f"{started + 1}-10-01"


def _school(chance: random.Random, index: int, first: date) -> GeneratedSchool:
    number = FIRST_NUMBER + index
    stage, first_grade, years = STAGES[index % len(STAGES)] if index < len(STAGES) else chance.choice(STAGES)
    kind, genders = KINDS[index % len(KINDS)]
    place = names.PLACES[index % len(names.PLACES)]
    word = names.SCHOOL_NAMES[(index * 7) % len(names.SCHOOL_NAMES)]
    people = _People(chance, number, first)
    sections = 3 if years == 3 else 2
    plan = [
        (first_grade + year, f"{number}-{year + 1}{latin}", f"{DIGITS[year + 1]}/{arabic}")
        for year in range(years)
        for latin, arabic in LETTERS[:sections]
    ]
    sizes = [chance.randint(CLASS_PUPILS_MIN, CLASS_PUPILS_MAX) for _ in plan]
    sizes[0] = CLASS_PUPILS_EXACT
    pupils = [people.class_list(genders, 5 + grade, size) for (grade, _, _), size in zip(plan, sizes, strict=True)]
    tutors = [people.staff() for _ in plan]
    subjects = [people.staff() for _ in range(2 * -(-len(plan) // 3))]
    classes = tuple(
        GeneratedClass(
            class_id=class_id,
            title=title,
            grade_code=f"{grade:02d}",
            pupils=pupils[at],
            teachers=(tutors[at], *subjects[at // 3 * 2 : at // 3 * 2 + 2]),
        )
        for at, (grade, class_id, title) in enumerate(plan)
    )
    return GeneratedSchool(
        school=f"eg-mn-{number}",
        name=f"مدرسة {word} {stage} {kind} - {place}",
        classes=classes,
        coordinator=people.staff(),
        principal=people.staff(),
        guardians=people.guardians(one for part in classes for one in part.pupils),
    )


class _People:
    """Draws the people of one school and numbers them."""

    def __init__(self, chance: random.Random, number: int, first: date) -> None:
        self._chance, self._number, self._first = chance, number, first
        self._last_pupil = self._last_staff = 0

    def class_list(self, genders: Sequence[str], age: int, size: int) -> tuple[Person, ...]:
        """A class in roll order (by name, as the registers are). Most were numbered in that order; a few came later."""
        chance = self._chance
        drawn = [self._person(chance.choice(genders), age, nickname=True) for _ in range(size)]
        drawn.sort(key=lambda one: (one["given"], one["father"], one["family"]))
        later = set(chance.sample(range(size), chance.randint(0, TRANSFERS_PER_CLASS_MAX)))
        order = [at for at in range(size) if at not in later] + sorted(later)
        ids: dict[int, str] = {}
        for at in order:
            self._last_pupil += 1
            ids[at] = f"s{self._number}{self._last_pupil:03d}"
        return tuple(Person(person_id=ids[at], **one) for at, one in enumerate(drawn))

    def staff(self) -> Person:
        """A member of staff."""
        self._last_staff += 1
        person = self._person(self._chance.choice(("man", "woman")), self._chance.randint(26, 58), nickname=False)
        return Person(person_id=f"t{self._number}{self._last_staff:03d}", **person)

    def guardians(self, pupils: Iterable[Person]) -> tuple[Person, ...]:
        """Fathers of some pupils: people who have no business here and must be dropped at the door."""
        return tuple(
            Person(
                person_id=f"g{pupil.person_id[1:]}",
                given=pupil.father,
                father=pupil.family.split()[0],
                family=pupil.family,
                preferred="",
                gender="man",
                born="1980-01-01",
            )
            for pupil in pupils
            if self._chance.random() < GUARDIAN_SHARE
        )

    def _person(self, gender: str, age: int, *, nickname: bool) -> dict[str, str]:
        chance = self._chance
        coptic = chance.random() < COPTIC_SHARE
        fathers = names.COPTIC_BOYS if coptic else names.BOYS
        girls = names.COPTIC_GIRLS if coptic else names.GIRLS
        families = names.COPTIC_FAMILIES if coptic else names.FAMILIES
        given = chance.choice(girls if gender in ("girl", "woman") else fathers)
        preferred = names.NICKNAMES.get(given, "") if nickname and chance.random() < NICKNAME_SHARE else ""
        born = self._first - timedelta(days=age * 365 + chance.randrange(365))
        return {
            "given": given,
            "father": chance.choice(fathers),
            "family": f"{chance.choice(fathers)} {chance.choice(families)}",
            "preferred": preferred,
            "gender": gender,
            "born": born.isoformat(),
        }


def people_of(school: GeneratedSchool) -> list[tuple[Person, Role]]:
    """Everyone who must arrive, with the role they must arrive with."""
    pupils = [(pupil, Role.PUPIL) for part in school.classes for pupil in part.pupils]
    teachers = [(teacher, Role.TEACHER) for teacher in school.teachers]
    return [*pupils, *teachers, (school.coordinator, Role.CHAMPION), (school.principal, Role.CHAMPION)]


def members_of(part: GeneratedClass) -> list[tuple[Person, Role, int]]:
    """Everyone in a class, teachers first, with their place in the roll."""
    teachers = [(teacher, Role.TEACHER, 0) for teacher in part.teachers]
    return [*teachers, *((pupil, Role.PUPIL, roll) for roll, pupil in enumerate(part.pupils, 1))]
